"""Which rows of a shard go through an encoder together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

PADDING = 0.03
"""Largest share of a batch's positions that may be padding, so long as the batch can be cut elsewhere."""

Rows = npt.NDArray[np.int64]


def cut_batches(
    lengths: Sequence[int] | None, parts: Sequence[int], batch: int | None, *, most_padding: float = PADDING
) -> list[tuple[int, Rows]]:
    """Part and row numbers of each batch: a function of one shard's rows and of `batch` alone.

    Rows of one part only are together, at most `batch` of them (None: all). Without `lengths` they stay in order; with
    them the longest go first and a batch ends where padding all of it to its longest row would waste more than
    `most_padding`.
    """
    numbers = np.asarray(parts, dtype=np.int64)
    found: list[tuple[int, Rows]] = []
    for part in np.unique(numbers):
        rows = np.flatnonzero(numbers == part)
        most = batch or max(1, len(rows))
        if lengths is None:
            cut = [rows[start : start + most] for start in range(0, len(rows), most)]
        else:
            cut = _by_length(rows, np.asarray(lengths, dtype=np.int64)[rows], most, most_padding)
        found += [(int(part), one) for one in cut]
    return found


def padding_of(lengths: Sequence[int]) -> tuple[int, int]:
    """Positions of one batch padded to its longest row, and how many of them are padding."""
    positions = max(lengths, default=0) * len(lengths)
    return positions, positions - sum(lengths)


def _by_length(rows: Rows, lengths: Rows, most: int, most_padding: float) -> list[Rows]:
    order = np.argsort(-lengths, kind="stable")
    rows, lengths = rows[order], lengths[order]
    found, start, real = [], 0, 0
    for end, length in enumerate(lengths.tolist()):
        positions = int(lengths[start]) * (end - start + 1)
        if end > start and (end - start == most or positions - real - length > most_padding * positions):
            found.append(rows[start:end])
            start, real = end, 0
        real += length
    return [*found, rows[start:]] if len(rows) else found
