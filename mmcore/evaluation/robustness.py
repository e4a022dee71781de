"""How a fitted model's score falls as modalities go missing and as features get noisy; nothing is refitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmcore.evaluation.masking import MOST_EXACT, Masked, ScoreRows, all_masks, seeded
from mmcore.fusion.data import Array, View, Views

MISSING_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
NOISE_LEVELS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
MISSING_REPEATS = 5
NOISE_REPEATS = 3


@dataclass(frozen=True)
class Curve:
    """Mean scores along an axis, and the area under them as it is: in units of score times axis, not rescaled by what
    other models reach.
    """

    at: tuple[float, ...]
    scores: tuple[float, ...]
    area: float


def missing_curve(scores: Array) -> Curve:
    """The mean over rows of `missing_scores` (shares, n)."""
    return _curve(MISSING_SHARES, scores.mean(axis=1).tolist())


def missing_scores(masked: Masked, seed: int = 0) -> Array:
    """Each row's score where it keeps one of its modalities and loses each other with probability p: (shares, n).

    Which one is kept is equally likely any that the row has; all the modalities of the data count, also those that
    this model does not read, so that the curves of all models are about the same rows. Up to five modalities it is
    the expectation itself: a row of r modalities is left with the set S with probability
    |S|/r · p^(r - |S|) · (1 - p)^(|S| - 1). Beyond, the mean of several draws, the same for every model and nested.
    """
    return _expected(masked) if masked.present.shape[1] <= MOST_EXACT else _drawn(masked, seed)


def noise_curve(score: ScoreRows, views: Views, reads: Sequence[str], seed: int = 0) -> Curve:
    """The mean score where Gaussian noise is added to every feature, the mean of several draws.

    Its standard deviation is the level times that of the feature over the rows that have it. Each model that reads
    the same features gets the same noise.
    """
    rows = np.arange(len(views))
    noisy = {name: view for name, view in views.items() if name in reads and view.present.any()}
    spread = {name: np.std(view.values, axis=0, dtype=np.float64, where=_there(view)) for name, view in noisy.items()}
    scores = [float(score(views, rows).mean())]
    draws = []
    for repeat in range(NOISE_REPEATS):
        noise = {n: seeded(n, seed, repeat).standard_normal(noisy[n].values.shape) * spread[n] for n in sorted(noisy)}
        draws.append([float(score(_with(views, noise, level), rows).mean()) for level in NOISE_LEVELS[1:]])
    return _curve(NOISE_LEVELS, [*scores, *np.mean(draws, axis=0).tolist()])


def left_with(present: Array, sets: Array, share: float) -> Array:
    """How likely each row (n, D: what it has) is left with each set (s, D): (s, n); a row with nothing keeps that."""
    has, size = present.sum(axis=1), sets.sum(axis=1)[:, None]
    within = ~(sets[:, None, :] & ~present).any(axis=2) & ((size > 0) | (has == 0))
    lost = np.where(within, has - size, 0)
    kept = np.where(within, np.maximum(size - 1, 0), 0)
    odds = np.where(has > 0, size / np.maximum(has, 1), 1.0) * share**lost * (1 - share) ** kept
    return np.asarray(np.where(within, odds, 0.0))


def _expected(masked: Masked) -> Array:
    sets = all_masks(masked.present.shape[1])
    scores = masked(sets[:, None, :])
    return np.stack([(left_with(masked.present, sets, share) * scores).sum(axis=0) for share in MISSING_SHARES])


def _drawn(masked: Masked, seed: int) -> Array:
    shown = np.stack([hidden_at_random(masked.present, masked.names, seed, r) for r in range(MISSING_REPEATS)])
    return np.asarray(masked(shown).mean(axis=0))


def hidden_at_random(present: Array, names: Sequence[str], seed: int, repeat: int) -> Array:
    """What rows are left with at each share: (shares, n, D) of bool; what one share hides, a larger one hides too."""
    n = len(present)
    draws = np.stack([seeded(name, seed, repeat).random((n, 2)) for name in names], axis=1)
    first = np.where(present, draws[:, :, 0], -1.0).argmax(axis=1)
    stays = present & (np.arange(len(names)) == first[:, None])
    return np.stack([present & (stays | (draws[:, :, 1] >= share)) for share in MISSING_SHARES])


def _with(views: Views, noise: dict[str, Array], level: float) -> Views:
    return Views(
        {n: View(view.values + level * noise[n], view.present) if n in noise else view for n, view in views.items()}
    )


def _there(view: View) -> Array:
    return view.present.reshape(-1, *[1] * (view.values.ndim - 1))


def _curve(at: tuple[float, ...], scores: Sequence[float]) -> Curve:
    return Curve(at, tuple(scores), float(np.trapezoid(scores, at)))
