"""Tests of canonical correlations: are two views related at all, and in how many dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2, f

from mmcore.errors import FusionError
from mmcore.fusion.data import Array

ONE = 1e-12
"""A correlation that is nearer to 1 is 1: the squares of what two equal variates differ by are rounding."""


@dataclass(frozen=True, eq=False)
class DimensionTests:
    """For each k the hypothesis that all canonical correlations from the k-th on (0, 1 …) are zero; arrays (k,)."""

    wilks: Array
    """Wilks' lambda, Π (1 − rᵢ²) over i ≥ k: 1 where nothing is left."""
    f: Array
    """Rao's approximation."""
    f_df: Array
    """(k, 2): degrees of freedom above and below."""
    f_p: Array
    chi2: Array
    """Bartlett's approximation with Lawley's correction for the correlations before k."""
    chi2_df: Array
    chi2_p: Array


@dataclass(frozen=True)
class TraceTest:
    """One statistic of all correlations together, its F approximation, degrees of freedom and p."""

    value: float
    f: float
    f_df: tuple[float, float]
    p: float


@dataclass(frozen=True, eq=False)
class CanonicalTests:
    """What the canonical correlations of two views say about their relation in the population.

    `pillai` Σ r², `hotelling_lawley` Σ r²/(1 − r²) and `roy`, the largest r²/(1 − r²), test all correlations at once;
    `dimensions` test them from one on. F for Pillai and Roy as in SAS, for Hotelling and Lawley that of McKeon 1974;
    Roy's is an upper bound, so its p is a lower one. Source of the formulas: Rencher and Christensen 2012, "Methods
    of Multivariate Analysis", chapters 6 and 11; Lawley 1959, "Tests of significance in canonical analysis".
    """

    correlations: Array
    dimensions: DimensionTests
    pillai: TraceTest
    hotelling_lawley: TraceTest
    roy: TraceTest


def canonical_tests(correlations: npt.ArrayLike, rows: int, first: int, second: int) -> CanonicalTests:
    """Tests of all min(first, second) canonical correlations of two views of these ranks, from so many rows.

    They suppose rows drawn on their own from normal distributions, and correlations without shrinkage. An F of a
    statistic without degrees of freedom (too few rows) is NaN. Raises FusionError where the numbers do not fit.
    """
    r = np.asarray(correlations, dtype=np.float64)
    if r.shape != (min(first, second),) or not ((r >= 0) & (r <= 1 + 1e-9)).all() or (np.diff(r) > 1e-9).any():
        raise FusionError(
            f"canonical tests need all {min(first, second)} correlations of views of ranks {first} and {second}, "
            f"falling and between 0 and 1, got {np.array2string(r, precision=4)}"
        )
    if rows < 2:
        raise FusionError(f"canonical tests need at least two rows, got {rows}")
    unexplained = np.where(r > 1 - ONE, 0.0, 1 - r**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (1 - unexplained) / unexplained
        return CanonicalTests(
            r,
            _dimensions(r, unexplained, rows, first, second),
            _pillai(float((1 - unexplained).sum()), rows, first, second),
            _hotelling_lawley(ratios.sum(), rows, first, second),
            _roy(ratios.max(), rows, first, second),
        )


def _dimensions(r: Array, unexplained: Array, rows: int, first: int, second: int) -> DimensionTests:
    k = np.arange(len(r))
    p, q = first - k, second - k
    wilks = np.cumprod(unexplained[::-1])[::-1]
    squares = p**2 + q**2 - 5
    root = np.sqrt(np.where(squares > 0, ((p * q) ** 2 - 4) / np.where(squares > 0, squares, 1), 1.0))
    above = p * q
    below = (rows - 1 - (first + second + 1) / 2) * root - above / 2 + 1
    lambda_root = wilks ** (1 / root)
    value, chance = _f((1 - lambda_root) / lambda_root * below / above, above, below)
    # Lawley: each correlation before k, taken as given, adds 1/r² − 1 to Bartlett's factor.
    given = np.concatenate([[0.0], np.cumsum(1 / r**2 - 1)])[: len(r)]
    factor = rows - 1 - (first + second + 1) / 2 + given
    bartlett = np.where(wilks < 1, -factor * np.log(wilks), 0.0)
    return DimensionTests(
        wilks, value, np.stack([above, below], axis=1), chance, bartlett, above, chi2.sf(bartlett, above)
    )


def _pillai(value: float, rows: int, first: int, second: int) -> TraceTest:
    s, wider = min(first, second), max(first, second)
    above, below = s * wider, s * (rows - 1 - wider)
    return _trace(value, below / above * value / (s - value) if value < s else np.inf, above, below)


def _hotelling_lawley(value: float, rows: int, first: int, second: int) -> TraceTest:
    s, wider = min(first, second), max(first, second)
    n = (rows - 2 - first - second) / 2
    if n > 1:
        above = first * second
        b = (first + 2 * n) * (second + 2 * n) / 2 / (2 * n + 1) / (n - 1)
        below = 4 + (above + 2) / (b - 1)
        return _trace(value, below / above * value * 2 * n / (below - 2), above, below)
    above, below = s * wider, 2 * (s * n + 1)
    return _trace(value, below * value / (s * above), above, below)


def _roy(value: float, rows: int, first: int, second: int) -> TraceTest:
    wider = max(first, second)
    return _trace(value, (rows - 1 - wider) / wider * value, wider, rows - 1 - wider)


def _trace(value: float, f_value: float, above: float, below: float) -> TraceTest:
    found, chance = _f(np.array(f_value), above, below)
    return TraceTest(float(value), float(found), (float(above), float(below)), float(chance))


def _f(value: Array, above: Array | float, below: Array | float) -> tuple[Array, Array]:
    """F and its p, NaN without degrees of freedom."""
    value = np.where(np.asarray(below) > 0, value, np.nan)
    return value, np.where(np.isnan(value), np.nan, f.sf(value, above, np.maximum(below, 1e-300)))
