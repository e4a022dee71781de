"""Models whose score under any mask is known, to ask about modalities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mmcore.evaluation.masking import Masked
from mmcore.fusion.data import View, Views


def made_views(n: int, names: str, seed: int = 0, share: float = 0.7) -> Views:
    """Views of two columns each; what rows do not have is NaN."""
    rng = np.random.default_rng(seed)
    views = {}
    for name in names:
        present = rng.random(n) < share
        values = rng.normal(size=(n, 2)) * [1.0, 5.0]
        values[~present] = np.nan
        views[name] = View(values, present)
    return Views(views)


class Counted:
    """Scores by what is present, counting the rows that were asked for."""

    def __init__(self, worth: Callable[[dict[str, np.ndarray], np.ndarray], np.ndarray]) -> None:
        self.worth, self.asked, self.calls = worth, 0, 0

    def __call__(self, views: Views, rows: np.ndarray) -> np.ndarray:
        self.asked, self.calls = self.asked + len(rows), self.calls + 1
        assert len(views) == len(rows)
        return self.worth({name: view.present for name, view in views.items()}, rows)


def worth_of(present: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Unequal parts, of which two only count together, and one counts by row."""
    a, b, c = (present[name].astype(float) for name in "abc")
    return 0.1 + 0.4 * a + 0.3 * a * b + 0.2 * c * (rows % 3)


def masked_game(n: int = 50) -> tuple[Masked, Counted]:
    score = Counted(worth_of)
    return Masked(score, made_views(n, "cab"), "abc"), score
