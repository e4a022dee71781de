"""Views whose vectors stay in the feature store, for models that learn and predict a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from mmcore.features.reading import Features

Array = npt.NDArray[Any]

ROWS_AT_ONCE = 65_536
"""Rows that are read at a time where all are looked at once."""


class StoredRows:
    """Vectors (n, d) in the place of a view's array. Cutting it reads nothing; `read` gathers rows.

    Pickled, it takes the names of the files, not what they hold.
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(
        self, features: Features, present: Array, scale: Callable[[Array, Array], Array] | None = None
    ) -> None:
        self.features, self.present, self._scale = features, present, scale

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.features), self.features.dim

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: slice | Sequence[int] | Array) -> StoredRows:
        return StoredRows(self.features.of(rows), self.present[rows], self._scale)

    def scaled(self, scale: Callable[[Array, Array], Array]) -> StoredRows:
        """The same through `scale`, which takes rows (m, d) and which of them are present."""
        return StoredRows(self.features, self.present, scale)

    def read(self, rows: slice | Sequence[int] | Array = slice(None)) -> Array:
        """These rows as an array: float32 with NaN where absent, or what `scale` makes of that."""
        values = self.features[rows].astype(np.float32, copy=False)
        return values if self._scale is None else self._scale(values, self.present[rows])


def read_rows(values: Array | StoredRows, rows: slice | Sequence[int] | Array = slice(None)) -> Array:
    """These rows of a view's array, wherever it is."""
    return values.read(rows) if isinstance(values, StoredRows) else values[rows]


def parts_of(values: Array | StoredRows, size: int | None = None) -> Iterator[tuple[slice, Array]]:
    """All rows in turn, `size` at a time, or as many as are read at once elsewhere."""
    size = size or ROWS_AT_ONCE
    for start in range(0, len(values), size):
        part = slice(start, start + size)
        yield part, read_rows(values, part)
