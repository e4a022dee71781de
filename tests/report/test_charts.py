"""Geometry: ticks, curves, the confusion matrix, shortened names."""

from __future__ import annotations

import itertools
import math

import pytest

from mmcore.report.charts import (
    MOST_DRAWN_CLASSES,
    Axis,
    difference_axis,
    draw_curves,
    draw_lines,
    draw_matrix,
    most_confused,
    nice_ticks,
    share_axis,
    shorten,
)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 2.37), (-0.3, 0.02), (0, 0), (5, 5), (0, 1e-6), (0, 34_000)])
def test_ticks_are_round_and_enclose(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 2 <= len(ticks) <= 8
    steps = {round(b - a, 9 - math.floor(math.log10(ticks[-1] - ticks[0]))) for a, b in itertools.pairwise(ticks)}
    assert len(steps) == 1


def test_axis_maps_its_ends_and_holds_what_lies_outside() -> None:
    axis = Axis(0.5, 1.0, 10, 110)
    assert [axis.at(v) for v in (0.5, 0.75, 1.0, 0.1, 2.0)] == [10, 60, 110, 10, 110]


def test_shared_axes() -> None:
    assert (share_axis([0.93, 0.47], 100).low, share_axis([0.99], 100).low, share_axis([], 100).low) == (0.4, 0.9, 0.0)
    even = difference_axis([-0.2, 0.1], 100)
    assert even.at(0) == 50
    assert difference_axis([0, 0], 100).at(0) == 50


def test_curves_mark_the_best_epoch() -> None:
    drawn = draw_curves("image", "cnn", [2.0, 1.0, 0.5], [1.8, 0.9, 1.1])
    assert drawn is not None
    assert (drawn.best_epoch, drawn.best_val) == (2, 0.9)
    assert len(drawn.train.split()) == 3
    assert f"{drawn.best_x},{drawn.best_y}" in drawn.val.split()


def test_curves_with_gaps_and_without_any_loss() -> None:
    assert draw_curves("x", "", [1.0], [math.nan]) is None
    gap = draw_curves("x", "", [1.0, math.inf, 0.5], [1.0, 0.8, math.nan])
    assert gap is not None
    assert len(gap.train.split()) == 2
    single = draw_curves("x", "", [], [0.0])
    assert single is not None
    assert single.best_epoch == 1


def test_matrix_draws_counts_only() -> None:
    matrix = draw_matrix([[3, 1], [0, 0]], ["a", "b" * 90])
    assert matrix is not None
    assert [(cell.count, cell.share, cell.right) for cell in matrix.cells] == [(3, 0.75, True), (1, 0.25, False)]
    assert len(matrix.labels[1].short) == 18
    assert matrix.labels[1].full.startswith("b" * 90)


@pytest.mark.parametrize("k", [2, 6, 7, 12, 20, 21, 45, 85, 100, MOST_DRAWN_CLASSES])
def test_matrix_of_many_classes_fits_a_laptop(k: int) -> None:
    names = [f"class {i}" for i in range(k)]
    matrix = draw_matrix([[int(i == j) for j in range(k)] for i in range(k)], names)
    assert matrix is not None
    assert matrix.width < 1260
    assert matrix.numbers == (k <= 20)


def test_too_many_classes_are_not_drawn() -> None:
    k = MOST_DRAWN_CLASSES + 1
    assert draw_matrix([[0] * k] * k, [str(i) for i in range(k)]) is None


def test_most_confused_are_sorted() -> None:
    found = most_confused([[5, 2, 0], [2, 1, 0], [0, 1, 9]], ["a", "b", "c"])
    assert found == [("b", "a", 2, 2 / 3), ("a", "b", 2, 2 / 7), ("c", "b", 1, 0.1)]
    assert most_confused([[1, 0], [0, 1]], ["a", "b"]) == []


def test_shortened_names_keep_both_ends() -> None:
    assert shorten("short", 10) == "short"
    text = shorten("abcdefghijklmnopqrstuvwxyz", 10)
    assert len(text) == 10
    assert text == "abcdef…xyz"


def test_lines_share_their_axes_and_the_chosen_lies_on_top() -> None:
    at = [0.0, 0.5, 1.0]
    drawn = draw_lines([("best", "chosen", at, [0.9, 0.8, 0.6]), ("x", "other", at, [0.5, 0.2, -0.1])])
    assert drawn is not None
    assert [(line.name, line.first, line.last) for line in drawn.lines] == [("x", 0.5, -0.1), ("best", 0.9, 0.6)]
    assert drawn.y.low <= -0.1
    assert drawn.y.high >= 0.9
    assert drawn.lines[1].points.split()[1] == f"{drawn.x.at(0.5)},{drawn.y.at(0.8)}"
    assert draw_lines([]) is None
