"""What each modality gives a fitted model: its Shapley share, and what is lost when it is shuffled across rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial

import numpy as np

from mmcore.evaluation.intervals import Difference, paired_difference
from mmcore.evaluation.masking import MOST_EXACT, Masked, ScoreRows, all_masks, seeded
from mmcore.fusion.data import Array, View, Views

SHUFFLES = 3
SHUFFLE_RESAMPLES = 2_000
PREFIXES = 128
"""About so many sets are tried where Shapley shares are sampled."""


@dataclass(frozen=True)
class Shares:
    """How the score with every modality, less that with none, is shared out among them."""

    values: dict[str, float]
    """They add up to `full` - `nothing`."""
    full: float
    nothing: float
    exact: bool
    """Whether every set of modalities was tried, or permutations were drawn."""


def shapley_shares(masked: Masked, reads: Sequence[str], seed: int = 0) -> Shares:
    """The Shapley value of each modality that the model reads; a set's worth is the mean score with the others hidden.

    φ_m = Σ_S |S|! (M - |S| - 1)! / M! · (v(S + m) - v(S)) over the sets S without m: what m adds to those before it,
    over all orders in which modalities may come. Beyond five modalities random orders, each with its reverse.
    Sources: L. Shapley, A value for n-person games (1953); R. Mitchell et al., Sampling permutations for Shapley
    value estimation, JMLR 23 (2022).
    """
    names = [name for name in masked.names if name in set(reads)]
    columns = np.flatnonzero(np.isin(masked.names, names))
    exact = len(names) <= MOST_EXACT
    sets = all_masks(len(names)) if exact else prefixes(len(names), seed)
    shown = np.zeros((len(sets), len(masked.names)), bool)
    shown[:, columns] = sets
    worth = masked(shown[:, None, :]).mean(axis=1)
    values = shapley_values(worth) if exact else from_prefixes(worth, sets)
    every = int(sets.sum(axis=1).argmax())
    none = int((~sets.any(axis=1)).argmax())
    shares = {name: float(value) for name, value in zip(names, values, strict=True)}
    return Shares(shares, float(worth[every]), float(worth[none]), exact)


def shapley_values(worth: Array) -> Array:
    """Shapley values (M,) from the worth of every set (2^M,), numbered by its bits as `all_masks` does."""
    count = len(worth).bit_length() - 1
    codes = np.arange(len(worth))
    sizes = all_masks(count).sum(axis=1)
    weights = np.array([factorial(s) * factorial(count - s - 1) / factorial(count) for s in range(count)])
    values = np.empty(count)
    for m in range(count):
        before = codes[(codes >> m) & 1 == 0]
        values[m] = np.sum(weights[sizes[before]] * (worth[before | (1 << m)] - worth[before]))
    return values


def prefixes(count: int, seed: int) -> Array:
    """The sets on the way through random orders, each followed by its reverse: (orders x (count + 1), count)."""
    random = np.random.default_rng(seed)
    orders = [random.permutation(count) for _ in range(max(2, PREFIXES // (2 * count)))]
    ranks = np.stack([np.argsort(order) for one in orders for order in (one, one[::-1])])
    return np.asarray(ranks[:, None, :] < np.arange(count + 1)[None, :, None]).reshape(-1, count)


def from_prefixes(worth: Array, sets: Array) -> Array:
    """Mean of what each thing adds where it comes, from the worth of `prefixes`."""
    count = sets.shape[1]
    steps = np.diff(worth.reshape(-1, count + 1), axis=1)
    came = np.diff(sets.reshape(-1, count + 1, count).astype(np.int8), axis=1)
    return np.asarray((steps[:, :, None] * came).sum(axis=1).mean(axis=0))


def shuffled_scores(score: ScoreRows, views: Views, name: str, seed: int = 0) -> Array | None:
    """Scores (n,) of rows that each have another row's values of modality `name`, the mean of several shuffles.

    It is shuffled among the rows that have it, so that who has what stays; None where fewer than two have it.
    Source: L. Breiman, Random forests (2001), section 10, for one column.
    """
    rows = np.flatnonzero(views[name].present)
    if len(rows) < 2:
        return None
    total = np.zeros(len(views))
    for repeat in range(SHUFFLES):
        order = seeded(name, seed, repeat).permutation(rows)
        values = views[name].values.copy()
        values[order] = views[name].values[np.roll(order, 1)]
        changed = Views({n: View(values, view.present) if n == name else view for n, view in views.items()})
        total += score(changed, np.arange(len(views)))
    return total / SHUFFLES


def shuffle_loss(scores: Array, shuffled: Array, groups: Array | None) -> Difference:
    """What shuffling costs: the mean score as rows are, less that with one modality shuffled."""
    return paired_difference(scores, shuffled, groups, resamples=SHUFFLE_RESAMPLES)
