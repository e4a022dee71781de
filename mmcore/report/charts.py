"""The geometry of the report's drawings: numbers in, coordinates out. The template draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CURVE_WIDTH, CURVE_HEIGHT = 320, 170
CURVE_LEFT, CURVE_RIGHT, CURVE_TOP, CURVE_BOTTOM = 40, 14, 10, 24


@dataclass(frozen=True)
class Axis:
    """A line from `low` to `high`, drawn from `start` to `stop` pixels."""

    low: float
    high: float
    start: float
    stop: float
    ticks: tuple[float, ...] = ()

    def at(self, value: float) -> float:
        """Where the value lies, in pixels to a hundredth; values outside lie on the ends."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.stop - self.start), 2)


def share_axis(values: Sequence[float], width: float, margin: float = 6) -> Axis:
    """An axis for shares of 1 that ends at 1 and starts at the tenth below the least value."""
    low = math.floor(max(0.0, min(values, default=0.0)) * 10) / 10
    return Axis(min(low, 0.9), 1.0, margin, width - margin)


def difference_axis(values: Sequence[float], width: float, margin: float = 6) -> Axis:
    """An axis for differences, as wide to the left of zero as to its right."""
    end = max((abs(value) for value in values), default=0) or 0.01
    return Axis(-end, end, margin, width - margin)


def bar_axis(values: Sequence[float], width: float, margin: float = 6) -> Axis:
    """An axis for bars from zero, with no more room below it than the values need."""
    low, high = min(0.0, min(values, default=0.0)), max(0.0, max(values, default=0.0))
    return Axis(low, high if high > low else low + 1, margin, width - margin)


def nice_ticks(low: float, high: float, about: int = 4) -> tuple[float, ...]:
    """Round numbers from at most `low` to at least `high`, some `about` of them."""
    if not high > low:
        high = low + (abs(low) or 1)
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(round(k * step, 12) for k in range(first, last + 1))


@dataclass(frozen=True)
class Curves:
    """One drawing of losses over epochs."""

    title: str
    note: str
    x: Axis
    y: Axis
    train: str
    """Points of a polyline."""
    val: str
    best_epoch: int
    """From 1."""
    best_val: float
    best_x: float
    best_y: float


def draw_curves(title: str, note: str, train: Sequence[float], val: Sequence[float]) -> Curves | None:
    """Training and validation loss per epoch; None where validation has no finite loss."""
    finite = [(loss, epoch) for epoch, loss in enumerate(val, 1) if math.isfinite(loss)]
    if not finite:
        return None
    best_val, best_epoch = min(finite)
    seen = [loss for loss in (*train, *val) if math.isfinite(loss)]
    ticks = nice_ticks(min(0.0, *seen), max(seen), 3)
    y = Axis(ticks[0], ticks[-1], CURVE_HEIGHT - CURVE_BOTTOM, CURVE_TOP, ticks)
    epochs = max(len(train), len(val), 2)
    x = Axis(1, epochs, CURVE_LEFT, CURVE_WIDTH - CURVE_RIGHT, _epoch_ticks(epochs))
    return Curves(
        title,
        note,
        x,
        y,
        _polyline(train, x, y),
        _polyline(val, x, y),
        best_epoch,
        best_val,
        x.at(best_epoch),
        y.at(best_val),
    )


def _epoch_ticks(epochs: int) -> tuple[float, ...]:
    step = max(1, math.ceil(epochs / 4 / 5) * 5 if epochs > 8 else 1 if epochs < 5 else 2)
    return (1, *(tick for tick in range(step, epochs + 1, step) if tick > 1 + step / 2))


def _polyline(losses: Sequence[float], x: Axis, y: Axis) -> str:
    points = [(x.at(epoch), y.at(loss)) for epoch, loss in enumerate(losses, 1) if math.isfinite(loss)]
    return " ".join(f"{a},{b}" for a, b in points)


LINES_WIDTH, LINES_HEIGHT = 470, 290
LINES_LEFT, LINES_RIGHT, LINES_TOP, LINES_BOTTOM = 44, 14, 12, 26
DRAWN_LAST = ("other", "late", "single", "chosen")
"""Roles of lines in the order of drawing: what matters most lies on top."""


@dataclass(frozen=True)
class Line:
    """One model's scores over an axis."""

    name: str
    role: str
    """`chosen`, `single`, `late`, or `other`."""
    points: str
    first: float
    last: float


@dataclass(frozen=True)
class Lines:
    """One drawing of many models' scores over one axis."""

    x: Axis
    y: Axis
    lines: tuple[Line, ...]


def draw_lines(series: Sequence[tuple[str, str, Sequence[float], Sequence[float]]]) -> Lines | None:
    """Name, role, places on the axis and scores of each model, over the same places; None without any."""
    if not series:
        return None
    at = series[0][2]
    scores = [score for *_, own in series for score in own]
    ticks = nice_ticks(min(scores), max(scores))
    y = Axis(ticks[0], ticks[-1], LINES_HEIGHT - LINES_BOTTOM, LINES_TOP, ticks)
    x = Axis(at[0], at[-1], LINES_LEFT, LINES_WIDTH - LINES_RIGHT, tuple(at))
    lines = [
        Line(name, role, " ".join(f"{x.at(a)},{y.at(s)}" for a, s in zip(places, own, strict=True)), own[0], own[-1])
        for name, role, places, own in sorted(series, key=lambda one: DRAWN_LAST.index(one[1]))
    ]
    return Lines(x, y, tuple(lines))


@dataclass(frozen=True)
class Cell:
    """One cell of the confusion matrix that is not empty."""

    x: float
    y: float
    count: int
    share: float
    """Of the rows of its true class."""
    truth: str
    predicted: str
    right: bool


@dataclass(frozen=True)
class Label:
    """A class's name beside its row (`y`) or above its column (`x`)."""

    at: float
    short: str
    full: str
    n: int
    """Test rows of the class."""


@dataclass(frozen=True)
class Matrix:
    """The confusion matrix as a heat map."""

    size: float
    """Side of a cell, in pixels."""
    left: float
    top: float
    width: float
    height: float
    cells: tuple[Cell, ...]
    labels: tuple[Label, ...]
    numbers: bool
    """Whether cells are large enough for their counts."""
    font: float


MOST_DRAWN_CLASSES = 120
"""With more classes than this the matrix is left out and the confusions are listed only."""


def draw_matrix(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Matrix | None:
    """Rows are true classes, columns predicted ones; only cells with a count are drawn. None with too many classes."""
    k = len(classes)
    if k > MOST_DRAWN_CLASSES:
        return None
    size = 46 if k <= 6 else 38 if k <= 12 else 28 if k <= 20 else 16 if k <= 45 else 10 if k <= 85 else 8.5
    font = 13 if k <= 12 else 11 if k <= 20 else min(10, size - 1.5)
    short = [shorten(name, 18) for name in classes]
    room = max(len(name) for name in short) * font * 0.62 + 14
    left, top = round(min(room + 18, 190), 1), round(min(max(room * 0.75, 30) + 18, 160), 1)
    totals = [sum(row) for row in confusion]
    cells = tuple(
        Cell(left + j * size, top + i * size, n, n / totals[i], classes[i], classes[j], i == j)
        for i, row in enumerate(confusion)
        for j, n in enumerate(row)
        if n
    )
    labels = tuple(
        Label(i * size + size / 2, short[i], f"{name} ({totals[i]:,} test rows)", totals[i])
        for i, name in enumerate(classes)
    )
    # The slanted names of the last columns need room to their right.
    width = left + k * size + min(room * 0.7, 110)
    return Matrix(size, left, top, round(width, 1), top + k * size + 2, cells, labels, k <= 20, font)


def most_confused(
    confusion: Sequence[Sequence[int]], classes: Sequence[str], most: int = 10
) -> list[tuple[str, str, int, float]]:
    """The most frequent mistakes: true class, predicted class, count, share of the true class's rows."""
    wrong = [
        (classes[i], classes[j], n, n / sum(row))
        for i, row in enumerate(confusion)
        for j, n in enumerate(row)
        if n and i != j
    ]
    return sorted(wrong, key=lambda one: (-one[2], -one[3], one[0], one[1]))[:most]


def shorten(text: str, most: int) -> str:
    """At most `most` characters, the middle left out."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 3
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"
