"""A fitted model as a function of which modalities it is shown: the score of each row under any mask.

What a model says of a row depends on nothing but the parts of it that are there, so that each set of parts of each row
is predicted once, many in one call, however many questions are asked of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from mmcore.fusion.data import Array, View, Views

ScoreRows = Callable[[Views, Array], Array]
"""Scores (m,) of views (m rows) that stand for the rows numbered by an array (m,); higher is better."""

MOST_EXACT = 5
"""Up to so many modalities all masks are tried (32); beyond, some are drawn."""

ROWS_AT_ONCE = 8_192
"""Rows of one call, whatever masks they have."""


class Masked:
    """The scores of n rows with some modalities hidden.

    `names` are the modalities of the data, `present` (n, D) which of them each row has; the model reads `reads` only,
    and hiding another changes nothing.
    """

    def __init__(self, score: ScoreRows, views: Views, reads: Sequence[str]) -> None:
        # Not in the order of the configuration, which is no part of what names the scores.
        self.names = sorted(views)
        self.views = views
        self.present = np.stack([views[name].present for name in self.names], axis=1)
        self._score = score
        self._read = self.present & np.isin(self.names, list(reads))
        self._bits = 1 << np.arange(len(self.names), dtype=np.int64)
        self._known = np.zeros(0, np.int64)
        self._scores = np.zeros(0)

    def __len__(self) -> int:
        return len(self.present)

    def __call__(self, shown: Array) -> Array:
        """Scores (..., n) of masks (..., n, D) or, the same for all rows, (..., 1, D): true is shown."""
        wanted = ((shown & self._read) @ self._bits) * len(self) + np.arange(len(self))
        self._learn(np.setdiff1d(wanted, self._known))
        return np.asarray(self._scores[np.searchsorted(self._known, wanted)])

    def _learn(self, new: Array) -> None:
        if not len(new):
            return
        parts = np.split(new, range(ROWS_AT_ONCE, len(new), ROWS_AT_ONCE))
        scores = np.concatenate([self._predicted(*np.divmod(part, len(self))) for part in parts])
        known = np.append(self._known, new)
        order = np.argsort(known)
        self._known, self._scores = known[order], np.append(self._scores, scores)[order]

    def _predicted(self, codes: Array, rows: Array) -> Array:
        shown = {name: (codes & bit) > 0 for name, bit in zip(self.names, self._bits, strict=True)}
        return self._score(Views({n: View(self.views[n].values[rows], mask) for n, mask in shown.items()}), rows)


def all_masks(count: int) -> Array:
    """Every set of `count` things: (2^count, count) of bool; row c holds the bits of c, lowest first."""
    return np.asarray((np.arange(1 << count)[:, None] >> np.arange(count)) & 1, dtype=bool)


def seeded(name: str, *numbers: int) -> np.random.Generator:
    """Random numbers of one modality, whatever others there are and in whatever order."""
    return np.random.default_rng([zlib.crc32(name.encode()), *numbers])
