"""Features by row: any order, out of files mapped into memory, whatever their number."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmcore.features.mapped import MappedViews
from mmcore.records import EncoderEntry, ShardEntry
from mmcore.shards.order import permutation
from mmcore.shards.read import read_index
from mmcore.storage import Store

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]
Rows = slice | Sequence[int] | Array
"""A slice, whole numbers (negative ones count from the end), or a mask of booleans."""

READERS = 8
"""Indexes that are read at a time."""
ROWS_AT_ONCE = 16_384
"""Rows gathered in one go: the views of so many are open at least."""


class Features:
    """The vectors of one encoder for all samples of some shards, numbered from 0 in shard order.

    `features[rows]` is an array (m, dim) of `dtype`; `opening.open_features` makes one. Rows without a vector (the
    modality is missing, or the encoder could not take the sample) are NaN; `present` tells which ones have one, and
    `features.of(features.present)` is these alone. Safe to pickle, to fork, and to read from several threads.
    """

    def __init__(
        self,
        store: Store,
        entry: EncoderEntry,
        shards: Sequence[ShardEntry],
        *,
        weights: str | None = None,
        verify: bool = True,
        cache_bytes: int,
        index: Indexes | None = None,
    ) -> None:
        self.store, self.entry, self.shards = store, entry, tuple(shards)
        self.index = index or Indexes(store, shards)
        sizes = [shard.samples for shard in self.shards]
        self._mapped = MappedViews(store, entry, self.shards, weights=weights, verify=verify, cache_bytes=cache_bytes)
        self._view_of = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        self._rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self._view_of) if self._rows is None else len(self._rows)

    def __repr__(self) -> str:
        return f"Features({self.modality} by {self.entry.name}: {len(self):,} x {self.dim} {self.dtype})"

    @property
    def modality(self) -> str:
        return self.entry.modality

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self._mapped.dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float16, as they are kept."""
        return self._mapped.dtype

    @property
    def has_tokens(self) -> bool:
        return self._mapped.has_tokens

    @property
    def files(self) -> list[str]:
        """The Arrow files, as paths or URLs, in shard order: columns `key`, `vector` and perhaps `tokens`."""
        return [self.store.url(path) for path in self._mapped.paths]

    @property
    def keys(self) -> list[str]:
        """The key of each row."""
        return self._column("key")

    @property
    def labels(self) -> list[Any]:
        """The label of each row, None where it has none."""
        return self._column("label")

    @property
    def splits(self) -> Array:
        """The split of each row (n,)."""
        names = np.array([shard.split for shard in self.shards], np.str_)
        return names[self._view_of[self._stored(slice(None))]]

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which rows have a vector (n,). Opens every file."""
        self._mapped.see_all()
        return self._mapped.present[self._stored(slice(None))]

    def of(self, rows: Rows) -> Features:
        """These rows only, in this order; they share open files with the others."""
        other = object.__new__(Features)
        other.__dict__ |= self.__dict__
        other._rows = self._stored(rows)
        return other

    def __getitem__(self, rows: Rows | int | np.integer[Any]) -> Array:
        """Vectors (m, dim) of `dtype`, NaN where there is none; of one row (dim,).

        A slice of step 1 that lies within one shard and has no absent rows is the file itself, read-only, on a local
        store; whatever else is asked for is a new array. Raises IndexError, and DamagedError, naming the file, where
        one is missing or not what was written.
        """
        if isinstance(rows, (int, np.integer)):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"row {rows} of {len(self):,}")
            found: Array = self._gathered(self._stored([int(rows)]))[0]
            return found
        if isinstance(rows, slice) and (part := self._slice(rows)) is not None:
            return part
        return self._gathered(self._stored(rows))

    def batches(
        self,
        size: int,
        *,
        shuffle: bool | Literal["shards"] = False,
        seed: int = 0,
        epoch: int = 0,
        shards_at_once: int = 16,
    ) -> Iterator[tuple[NDArray[np.int64], Array]]:
        """Every row once, as pairs of row numbers (m,) and vectors (m, dim); the last batch may be smaller.

        Only the batch at hand is in memory beside the mapped files. `shuffle`: `True` for a random order of all
        rows, another one for each `seed` and `epoch`; `"shards"` for a random order of shards, and of rows within
        every `shards_at_once` of them: for buckets, and for disks that are slow to seek.
        """
        if size < 1:
            raise ValueError(f"batches of {size} rows")
        order = self._order(shuffle, seed, epoch, shards_at_once)
        for start in range(0, len(self), size):
            rows = np.arange(start, min(start + size, len(self))) if order is None else order[start : start + size]
            yield rows, self[slice(start, start + len(rows))] if order is None else self[rows]

    def tensor(self, rows: Rows = slice(None)) -> torch.Tensor:
        """The vectors as a tensor (m, dim) on the CPU that shares memory with the array that `features[rows]` is.

        Where that is the file itself, the tensor is read-only too, though torch does not know it: writing to it ends
        the process. Clone it first.
        """
        import torch

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
            return torch.from_numpy(self[rows])

    def tokens(self, rows: Rows = slice(None)) -> list[Array | None]:
        """Each row's sequence (t, width), a part of the file on a local store; None where there is none.

        Raises ValueError where the encoder keeps no sequences.
        """
        if not self.has_tokens:
            raise ValueError(f"the {self.entry.name} encoder of {self.modality} keeps no sequences, only vectors")
        stored = self._stored(rows)
        views = self._view_of[stored]
        found: list[Array | None] = [None] * len(stored)
        for view in np.unique(views).tolist():
            places = np.flatnonzero(views == view)
            sequences = self._mapped.sequences(view, stored[places] - self._mapped.starts[view])
            for place, sequence in zip(places.tolist(), sequences, strict=True):
                found[place] = sequence
        return found

    # How rows are found

    def _stored(self, rows: Rows) -> NDArray[np.int64]:
        """Row numbers among all that are stored."""
        if isinstance(rows, slice):
            numbers = np.arange(*rows.indices(len(self)), dtype=np.int64)
            return numbers if self._rows is None else self._rows[rows]
        given = np.asarray(rows)
        if given.dtype == np.bool_:
            if given.shape != (len(self),):
                raise IndexError(f"a mask of {given.shape} for {len(self):,} rows")
            given = np.flatnonzero(given)
        elif given.ndim != 1 or (given.size and not np.issubdtype(given.dtype, np.integer)):
            raise IndexError("rows need to be a slice, a list of whole numbers or a mask")
        numbers = given.astype(np.int64, copy=False)
        # Negative numbers are the largest of all when they are taken as unsigned: one pass tells that all is well.
        if numbers.size and numbers.view(np.uint64).max() >= len(self):
            numbers = np.where(numbers < 0, numbers + len(self), numbers)
            if (wrong := (numbers < 0) | (numbers >= len(self))).any():
                raise IndexError(f"row {given[wrong][0]} of {len(self):,}")
        return numbers if self._rows is None else self._rows[numbers]

    def _slice(self, rows: slice) -> Array | None:
        """Where these rows are one part of a file: that part."""
        start, stop, step = rows.indices(len(self))
        if self._rows is not None or step != 1 or stop <= start:
            return None
        view = int(self._view_of[start])
        if view != self._view_of[stop - 1]:
            return None
        return self._mapped.part(view, start, stop)

    def _gathered(self, stored: NDArray[np.int64]) -> Array:
        if len(stored) <= ROWS_AT_ONCE:
            return self._mapped.gathered(self._view_of[stored], stored)
        found = np.empty((len(stored), self.dim), self.dtype)
        for start in range(0, len(stored), ROWS_AT_ONCE):
            some = stored[start : start + ROWS_AT_ONCE]
            found[start : start + len(some)] = self._mapped.gathered(self._view_of[some], some)
        return found

    def _order(
        self, shuffle: bool | Literal["shards"], seed: int, epoch: int, shards_at_once: int
    ) -> NDArray[np.int64] | None:
        if shuffle is False:
            return None
        if shuffle is True:
            return permutation([len(self)], "samples", seed, epoch)
        if shuffle != "shards":
            raise ValueError(f"shuffle={shuffle!r}: it is True, False or 'shards'")
        # Rows that `of` chose may lie in any order: those of one shard count as being together.
        views = self._view_of[self._stored(slice(None))]
        together = np.argsort(views, kind="stable")
        sizes = np.bincount(views, minlength=len(self.shards)).tolist()
        return together[permutation(sizes, "shards", seed, epoch, shards_at_once)]

    def _column(self, name: str) -> list[Any]:
        self._mapped.check_keys(self.index.keys)
        column = self.index.table[name]
        found: list[Any] = (column if self._rows is None else column.take(pa.array(self._rows))).to_pylist()
        return found


class Indexes:
    """Keys and labels of some shards, read when they are first needed."""

    def __init__(self, store: Store, shards: Sequence[ShardEntry]) -> None:
        self.store, self.shards = store, tuple(shards)

    @cached_property
    def keys(self) -> list[pa.ChunkedArray]:
        """Each shard's keys."""
        return [index["key"] for index in self._each]

    @cached_property
    def table(self) -> pa.Table:
        """`key` and `label` of all of them."""
        if not self.shards:
            return pa.table({"key": [], "label": []})
        table = pa.concat_tables(self._each, promote_options="permissive")
        # Beyond 2 GB of keys, plain strings no longer fit one array.
        return table.set_column(0, "key", table["key"].cast(pa.large_string())).combine_chunks()

    @cached_property
    def _each(self) -> list[pa.Table]:
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(lambda shard: read_index(self.store, shard).select(["key", "label"]), self.shards))
