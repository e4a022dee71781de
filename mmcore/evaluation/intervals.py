"""How sure a score and a difference of scores are: intervals and tests, as pure functions of NumPy arrays.

The unit that is drawn is a row, or all rows of one group where rows come in groups (one speaker, one patient): rows
of one group are alike, and intervals that draw them one by one would be too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

RESAMPLES = 10_000
DRAWN_AT_ONCE = 4_000_000
"""Units drawn at a time (32 MB), whatever the number of rows."""
MOST_DRAWN = 200_000_000
"""Of very many rows fewer resamples are drawn, at least `LEAST_RESAMPLES`: the seconds stay few."""
LEAST_RESAMPLES = 1_000
FEW_GROUPS = 20
"""With fewer groups than this an interval that draws groups is known to be too narrow."""


@dataclass(frozen=True)
class Difference:
    """The mean score of one model minus that of another on the same rows."""

    difference: float
    low: float
    """Of the 95% interval."""
    high: float
    p: float
    """Two-sided, that there is no difference."""
    only_first: int
    """Rows on which the first model scores higher."""
    only_second: int
    n: int


def wilson_interval(right: float, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval of a proportion (95% by default): lower and upper end in 0 to 1.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    share = right / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At 0 and n the ends are 0 and 1 exactly, and rounding could take them out of the range.
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def bootstrap_interval(
    scores: Array, groups: Array | None = None, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95% percentile bootstrap interval of the mean of `scores` (n,).

    Rows are drawn with replacement, or whole groups where `groups` (n,) of int names each row's; the mean of a draw is
    over its rows. Sources: B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; for groups
    C. Field and A. Welsh, Bootstrapping clustered data, JRSS B 69 (2007), the randomised cluster bootstrap.
    """
    sums, sizes = _units(np.asarray(scores, float), groups)
    low, high = np.quantile(_drawn_means(sums, sizes, seed, resamples), [0.025, 0.975])
    return float(low), float(high)


def paired_difference(
    first: Array, second: Array, groups: Array | None = None, *, seed: int = 0, resamples: int = RESAMPLES
) -> Difference:
    """Mean of `first` minus mean of `second`, scores (n,) or (n, seeds) of the same rows, with interval and p value.

    A row's score is its mean over seeds, so that rows are what is drawn. The interval is a paired bootstrap: both
    models on the same draw of rows, or of groups. p is that of the paired permutation test: without a difference the
    two scores of a row (of a group: all at once) might as well be swapped; it is the share of random swaps, the given
    order among them, with a difference at least as large. Sources: Efron and Tibshirani (1993), chapters 8 and 13;
    E. Noreen, Computer-Intensive Methods for Testing Hypotheses (1989), chapter 2.
    """
    one, other = _over_seeds(first), _over_seeds(second)
    if one.shape != other.shape:
        raise ValueError(f"scores of the same rows are needed, got {len(one)} and {len(other)}")
    gaps = one - other
    # Sums over seeds leave dust in the last bits, which would count as differences.
    gaps[np.abs(gaps) < 1e-12] = 0.0
    sums, sizes = _units(gaps, groups)
    low, high = np.quantile(_drawn_means(sums, sizes, seed, resamples), [0.025, 0.975])
    p = _sign_flip_p(sums, seed, resamples)
    return Difference(
        float(gaps.mean()), float(low), float(high), p, int((gaps > 0).sum()), int((gaps < 0).sum()), len(gaps)
    )


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given: below .05 where the family's error rate of .05 rejects.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6
    (1979).
    """
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    adjusted, worst = [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = worst
    return adjusted


def group_note(groups: Array | None) -> str:
    """What to know of intervals that draw groups, in words; empty where there is nothing to say."""
    if groups is None:
        return ""
    sizes = np.unique(groups, return_counts=True)[1]
    said = []
    if len(sizes) < FEW_GROUPS:
        said.append(f"The test rows come from only {len(sizes)} groups: such intervals are too narrow.")
    alone = int((sizes == 1).sum())
    if alone == len(sizes):
        said.append("Every group has one test row: drawing groups is drawing rows.")
    elif alone:
        one = "1 group has" if alone == 1 else f"{alone:,} groups have"
        said.append(f"{one} one test row, of {len(sizes):,}.")
    return " ".join(said)


def _over_seeds(scores: Array) -> Array:
    scores = np.asarray(scores, float)
    return scores.mean(axis=1) if scores.ndim == 2 else scores.copy()


def _units(scores: Array, groups: Array | None) -> tuple[Array, Array]:
    """Sum of scores and number of rows of each unit that is drawn."""
    if groups is None:
        return scores, np.ones(len(scores))
    _, which = np.unique(groups, return_inverse=True)
    return np.bincount(which, scores), np.bincount(which).astype(float)


def _drawn_means(sums: Array, sizes: Array, seed: int, resamples: int) -> Array:
    """The mean over the rows of each of many draws of units with replacement."""
    random = np.random.default_rng(seed)
    units = len(sums)
    # Units that are alike (right, wrong) are counted, not drawn one by one.
    kinds, counts = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)
    if kinds.shape[1] <= 16:
        drawn = random.multinomial(units, counts / units, size=resamples)
        return np.asarray((drawn @ kinds[0]) / (drawn @ kinds[1]))
    resamples = _affordable(units, resamples)
    means = np.empty(resamples)
    step = max(1, DRAWN_AT_ONCE // units)
    for start in range(0, resamples, step):
        rows = random.integers(units, size=(min(step, resamples - start), units))
        means[start : start + len(rows)] = sums[rows].sum(axis=1) / sizes[rows].sum(axis=1)
    return means


def _sign_flip_p(sums: Array, seed: int, resamples: int) -> float:
    """Two-sided p of sum 0 when each unit's sign is as likely + as -."""
    sizes, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    random = np.random.default_rng(seed)
    seen = abs(sums.sum())
    if len(sizes) <= 64:
        # Units of equal size: how many of them are positive is binomial.
        positive = random.binomial(counts, 0.5, size=(resamples, len(sizes)))
        flipped = np.abs((2 * positive - counts) @ sizes)
    else:
        values = np.abs(sums)
        resamples = _affordable(len(values), resamples)
        flipped = np.empty(resamples)
        step = max(1, DRAWN_AT_ONCE // len(values))
        for start in range(0, resamples, step):
            bits = random.integers(0, 256, (min(step, resamples - start), -(-len(values) // 8)), dtype=np.uint8)
            signs = np.unpackbits(bits, axis=1, count=len(values))
            flipped[start : start + len(bits)] = np.abs(2 * (signs @ values) - values.sum())
    return float((1 + np.sum(flipped >= seen * (1 - 1e-9))) / (1 + resamples))


def _affordable(units: int, resamples: int) -> int:
    return min(resamples, max(LEAST_RESAMPLES, MOST_DRAWN // units))
