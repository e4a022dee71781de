"""Which training rows are set aside: folds for scores of rows not learned from, or a part to stop training by."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold

from mmcore.fusion.data import Array
from mmcore.fusion.targets import Target

MAX_FOLDS = 5
HELD_OUT = 0.15
"""Share of the rows (of each class) that tells when to stop where there are no validation rows."""


def folds(target: Target, targets: Array, seed: int | None) -> list[tuple[Array, Array]]:
    """Positions to learn from and positions to score, each row scored once; none where the rows are too few.

    At most `MAX_FOLDS`, stratified for classes: no more folds than the rarest class has rows.
    """
    seed = 0 if seed is None else seed
    if target.task != "classes":
        if len(targets) < 2 * MAX_FOLDS:
            return []
        return list(KFold(MAX_FOLDS, shuffle=True, random_state=seed).split(targets))
    counts = np.bincount(targets)
    count = min(MAX_FOLDS, int(counts[counts > 0].min()))
    if count < 2:
        return []
    return list(StratifiedKFold(count, shuffle=True, random_state=seed).split(targets, targets))


def held_out(target: Target, targets: Array, seed: int | None) -> Array:
    """Booleans (n,): the rows to stop by, `HELD_OUT` of each class (of all rows for labels and numbers)."""
    random = np.random.default_rng(0 if seed is None else seed)
    held = np.zeros(len(targets), bool)
    strata = targets if target.task == "classes" else np.zeros(len(targets), np.intp)
    for stratum in np.unique(strata):
        members = random.permutation(np.flatnonzero(strata == stratum))
        held[members[: int(len(members) * HELD_OUT)]] = True
    return held
