"""Sums over rows from which the linear methods learn: they add up, part by part, to what all rows together give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from mmcore.errors import FusionError
from mmcore.fusion.data import Array, Views
from mmcore.fusion.impute import semidefinite
from mmcore.fusion.scaling import CONSTANT

BLOCK = 1 << 22
"""Numbers turned into float64 at a time, about. Part of the last bits of all that is learned from moments."""
LEAST_ROWS = 256
"""In a block, however wide its rows are."""

Pattern = tuple[bool, ...]
"""Which of the views a row has."""


@dataclass(frozen=True, eq=False)
class PatternMoments:
    """The moments of the rows with one pattern, over the columns that they have (d of them)."""

    rows: int
    weight: float
    """Sum of the rows' weights."""
    mean: Array
    """(d,)"""
    scatter: Array
    """Σ w (x − mean)(x − mean)ᵀ: (d, d), symmetric to the bit."""
    lowest: Array
    """(d,) the smallest value of each column."""
    highest: Array

    @classmethod
    def of(cls, X: Array, weights: Array) -> PatternMoments:
        """Of rows (n, d) float64, n > 0, in two passes; the second takes the rounding of the first off the mean.

        X is written over.
        """
        weight = float(weights.sum())
        shares = weights / weight if weight > 0 else np.zeros(len(X))
        mean = shares @ X
        lowest, highest = X.min(axis=0), X.max(axis=0)
        X -= mean
        error = shares @ X
        if (weights != 1).any():
            X *= np.sqrt(weights)[:, None]
        scatter = X.T @ X - weight * np.outer(error, error)
        return cls(len(X), weight, mean + error, scatter, lowest, highest)

    def merge(self, other: PatternMoments) -> PatternMoments:
        weight = self.weight + other.weight
        share = other.weight / weight if weight > 0 else 0.0
        apart = other.mean - self.mean
        return PatternMoments(
            self.rows + other.rows,
            weight,
            self.mean + share * apart,
            self.scatter + other.scatter + np.outer(apart, apart) * (self.weight * share),
            np.minimum(self.lowest, other.lowest),
            np.maximum(self.highest, other.highest),
        )

    def second(self) -> Array:
        """Σ w x xᵀ: (d, d)."""
        return np.asarray(self.scatter + self.weight * np.outer(self.mean, self.mean))

    def only(self, kept: Array) -> PatternMoments:
        """Of some of the columns."""
        across = np.ix_(kept, kept)
        return PatternMoments(
            self.rows, self.weight, self.mean[kept], self.scatter[across], self.lowest[kept], self.highest[kept]
        )

    def scaled(self, shift: Array, scale: Array) -> PatternMoments:
        """Of (x − shift) / scale, scale above 0."""
        return PatternMoments(
            self.rows,
            self.weight,
            (self.mean - shift) / scale,
            self.scatter / np.outer(scale, scale),
            (self.lowest - shift) / scale,
            (self.highest - shift) / scale,
        )


class Moments:
    """Weight, means and centred scatter of rows, for each pattern of present views, in float64.

    Those of two parts of the rows `merge` into those of both by the update of Chan, Golub and LeVeque 1979,
    "Updating formulae and a pairwise algorithm for computing sample variances", which loses no digits where means are
    far larger than deviations. So covariances are exact out of core, however many rows there are. Merge in one order
    for equal bits. They take 8 d² bytes per pattern.
    """

    def __init__(self, widths: Mapping[str, int], patterns: Mapping[Pattern, PatternMoments]) -> None:
        self.widths = dict(widths)
        # Sorted, so that sums over patterns do not depend on which came first.
        self.patterns = {pattern: patterns[pattern] for pattern in sorted(patterns, reverse=True)}

    @classmethod
    def of(cls, views: Views, weights: Array | None = None) -> Moments:
        """Of views of one vector per row, each row counted `weights` (n,) times. Raises FusionError for sequences."""
        if sequences := [name for name, view in views.items() if len(view.shape) != 1]:
            raise FusionError(f"view {sequences[0]}: moments need one vector per row, (n, d)")
        weights = np.ones(len(views)) if weights is None else np.asarray(weights, np.float64)
        nothing = cls({name: view.shape[0] for name, view in views.items()}, {})
        size = max(LEAST_ROWS, BLOCK // max(1, nothing.width))
        blocks = (slice(start, start + size) for start in range(0, len(views), size))
        return reduce(cls.merge, (nothing._of_block(views[rows], weights[rows]) for rows in blocks), nothing)

    def _of_block(self, views: Views, weights: Array) -> Moments:
        present = np.stack([view.present for _, view in views.items()], axis=1)
        found = {}
        # Rows of one pattern, most of all complete ones, need neither sorting nor a copy of their own.
        same = bool((present == present[0]).all())
        for pattern in present[:1] if same else np.unique(present, axis=0):
            rows = slice(None) if same else np.flatnonzero((present == pattern).all(axis=1))
            parts = [view.values[rows] for (_, view), there in zip(views.items(), pattern, strict=True) if there]
            nothing = np.zeros((len(weights[rows]), 0))
            X = np.concatenate([nothing, *parts], axis=1, dtype=np.float64)
            found[tuple(pattern.tolist())] = PatternMoments.of(X, weights[rows])
        return Moments(self.widths, found)

    @classmethod
    def merged(cls, parts: Iterable[Moments]) -> Moments:
        """Of all rows of at least one part, merged in this order."""
        return reduce(cls.merge, parts)

    def merge(self, other: Moments) -> Moments:
        """Of the rows of both. Raises FusionError where they are not of the same views."""
        if list(self.widths.items()) != list(other.widths.items()):
            raise FusionError(f"moments of {self.widths} and of {other.widths} do not add up")
        both = dict(self.patterns)
        for pattern, part in other.patterns.items():
            both[pattern] = both[pattern].merge(part) if pattern in both else part
        return Moments(self.widths, both)

    def only(self, names: Sequence[str]) -> Moments:
        """Of these views alone, in this order."""
        if names == list(self.widths):
            return self
        places = [list(self.widths).index(name) for name in names]
        parts = []
        for pattern, part in self.patterns.items():
            edges = np.cumsum([0, *(width * there for width, there in zip(self.widths.values(), pattern, strict=True))])
            kept = np.concatenate([np.arange(edges[place], edges[place + 1]) for place in places])
            seen = tuple(pattern[place] for place in places)
            parts.append(Moments({name: self.widths[name] for name in names}, {seen: part.only(kept)}))
        return Moments.merged([Moments({name: self.widths[name] for name in names}, {}), *parts])

    def scaled(self, shift: Array, scale: Array) -> Moments:
        """Of (x − shift) / scale, both (d,), scale above 0."""
        return Moments(
            self.widths,
            {
                pattern: part.scaled(shift[there], scale[there])
                for pattern, part in self.patterns.items()
                for there in [self.columns(pattern)]
            },
        )

    @property
    def rows(self) -> int:
        """How many rows have something present."""
        return sum(part.rows for pattern, part in self.patterns.items() if any(pattern))

    @property
    def weight(self) -> float:
        """Sum of the weights of the rows that have something present."""
        return sum(part.weight for pattern, part in self.patterns.items() if any(pattern))

    @property
    def width(self) -> int:
        """Columns of all views."""
        return sum(self.widths.values())

    @property
    def spans(self) -> dict[str, slice]:
        """The columns of each view."""
        edges = np.cumsum([0, *self.widths.values()]).tolist()
        return {name: slice(edges[i], edges[i + 1]) for i, name in enumerate(self.widths)}

    @property
    def complete(self) -> bool:
        """Whether each row that has something has everything."""
        return all(all(pattern) for pattern in self.patterns if any(pattern))

    def columns(self, pattern: Pattern) -> Array:
        """Which columns rows of a pattern have: numbers (d,)."""
        return np.flatnonzero(np.repeat(pattern, list(self.widths.values())))

    # What is learned from them

    def weights(self) -> dict[str, float]:
        """Sum of the weights of the rows that have each view."""
        return {
            name: sum(part.weight for pattern, part in self.patterns.items() if pattern[place])
            for place, name in enumerate(self.widths)
        }

    def means(self) -> Array:
        """Mean (d,) of each column over the rows that have it, 0 where none does: `impute.column_means`."""
        total, mean = np.zeros(self.width), np.zeros(self.width)
        for pattern, part in self.patterns.items():
            there = self.columns(pattern)
            total[there] += part.weight
            # A running mean: sums of large means would lose what sets columns apart.
            share = part.weight / np.where(total[there] > 0, total[there], 1.0)
            mean[there] += share * (part.mean - mean[there])
        return mean

    def deviations(self) -> Array:
        """Deviation (d,) of each column over the rows that have it, 1 for a constant one: as `Scaler` has it."""
        mean = self.means()
        squares, total, largest = np.zeros(self.width), np.zeros(self.width), np.ones(self.width)
        for pattern, part in self.patterns.items():
            there = self.columns(pattern)
            squares[there] += part.scatter.diagonal() + part.weight * (part.mean - mean[there]) ** 2
            total[there] += part.weight
            largest[there] = np.maximum(largest[there], np.maximum(np.abs(part.lowest), np.abs(part.highest)))
        deviation = np.sqrt(np.maximum(squares, 0.0) / np.where(total > 0, total, 1.0))
        return np.where(deviation > CONSTANT * largest, deviation, 1.0)

    def covariance(self) -> Array:
        """Covariance (d, d) of each two columns over the rows that have both, as `impute.pairwise_covariance` has it.

        About each column's mean over all rows that have it; positive semi-definite.
        """
        mean = self.means()
        total, together = np.zeros((self.width, self.width)), np.zeros((self.width, self.width))
        for pattern, part in self.patterns.items():
            there = self.columns(pattern)
            apart = part.mean - mean[there]
            total[np.ix_(there, there)] += part.scatter + part.weight * np.outer(apart, apart)
            together[np.ix_(there, there)] += part.weight
        covariance = total / np.where(together > 0, together, 1.0)
        return covariance if self.complete else semidefinite(covariance)

    # On disk

    def arrays(self) -> dict[str, Array]:
        """All numbers; `restored` needs the views' widths beside them."""
        found = {
            "patterns": np.array(list(self.patterns), dtype=np.bool_).reshape(len(self.patterns), len(self.widths)),
            "rows": np.array([part.rows for part in self.patterns.values()], dtype=np.int64),
            "weight": np.array([part.weight for part in self.patterns.values()], dtype=np.float64),
        }
        for number, part in enumerate(self.patterns.values()):
            for name in _PARTS:
                found[f"{number}.{name}"] = getattr(part, name)
        return found

    @classmethod
    def restored(cls, widths: Mapping[str, int], arrays: Mapping[str, Array]) -> Moments:
        patterns = {}
        facts = zip(arrays["patterns"].tolist(), arrays["rows"].tolist(), arrays["weight"].tolist(), strict=True)
        for number, (pattern, rows, weight) in enumerate(facts):
            parts = [arrays[f"{number}.{name}"] for name in _PARTS]
            patterns[tuple(pattern)] = PatternMoments(rows, weight, *parts)
        return cls(widths, patterns)


_PARTS = ("mean", "scatter", "lowest", "highest")
