"""Views mapped into memory, and rows gathered out of many of them at once."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmcore.errors import DamagedError, StageError
from mmcore.features.store import folder_of, open_view, sequences_of, view_receipt
from mmcore.records import EncoderEntry, ShardEntry
from mmcore.storage import Store

Array = NDArray[Any]
Integers = NDArray[Any]

READERS = 8
"""Views that are opened at a time."""
SEEN_AT_ONCE = 64
"""Views opened at a time where all are looked at."""
MOST_MAPPED = 32_768
"""Views of a local store mapped at a time, at most; the kernel allows a process twice as many maps."""


@dataclass(frozen=True)
class _Open:
    """The views that are open. Never changed, so that a thread may gather from it while others open more."""

    tables: dict[int, pa.Table]
    """Per view, the latest last."""
    addresses: NDArray[np.int64]
    """Per view, where the vectors of row 0 of all views would lie if this view's went back so far; 0: not open."""
    heads: Array
    """All that lies between the first and the last of these vectors, as numbers."""
    space: Array
    """The same, as the vectors that start at each number."""
    lowest: int
    highest: int
    """Where it begins and ends."""


class MappedViews:
    """The views of one encoder in shard order; each is opened, and checked, when it is first read.

    Of a bucket whole files are fetched, and of those the latest `cache_bytes` kept, or as many as one call needs.
    """

    def __init__(
        self,
        store: Store,
        entry: EncoderEntry,
        shards: Sequence[ShardEntry],
        *,
        weights: str | None,
        verify: bool,
        cache_bytes: int,
    ) -> None:
        self.store, self.entry = store, entry
        self.names = [_view(shard, entry.modality) for shard in shards]
        self.starts = np.cumsum([0, *(shard.samples for shard in shards)])
        self.present = np.zeros(self.starts[-1], np.bool_)
        """Which rows have a vector, of the views that were `seen`."""
        self._some_absent = False
        self.seen = np.zeros(len(self.names), np.bool_)
        """Which views were ever opened."""
        self._weights, self._verify, self._cache_bytes = weights, verify, cache_bytes
        self._keys: Sequence[pa.ChunkedArray] | None = None
        # The first view's receipt tells the kind of all.
        first = view_receipt(store, entry.digest, self.names[0]) if self.names else None
        try:
            self.dim = int(first["dim"] if first else entry.dim or 0)
            self.dtype = np.dtype(first["dtype"] if first else "float32")
            self.has_tokens = bool(first and first["tokens"] is not None)
        except (KeyError, TypeError) as error:
            where = store.url(f"{folder_of(entry.digest)}/{self.names[0]}.json")
            raise DamagedError(f"{where} is no receipt of features ({error}); remove it and run again.") from error
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._open = self._nothing()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in {"_lock", "_open"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._forget()

    @property
    def _row(self) -> np.dtype[Any]:
        """One vector as one thing to copy."""
        return np.dtype((np.void, self.dim * self.dtype.itemsize))

    @property
    def paths(self) -> list[str]:
        return [f"{folder_of(self.entry.digest)}/{name}.arrow" for name in self.names]

    def see_all(self) -> None:
        """Open every view once, few at a time, so that `present` tells of all rows."""
        unseen = np.flatnonzero(~self.seen)
        for start in range(0, len(unseen), SEEN_AT_ONCE):
            self.opened(unseen[start : start + SEEN_AT_ONCE])

    def gathered(self, views: Integers, rows: NDArray[np.int64]) -> Array:
        """Vectors (m, dim) of these rows of all views, NaN where there is none; `views` says in which each one lies."""
        if not len(rows) or not self.dim:
            return np.empty((len(rows), self.dim), self.dtype)
        opened = self._open
        bases = opened.addresses[views]
        if not bases.all():
            opened = self.opened(np.unique(views))
            bases = opened.addresses[views]
        size = self.dtype.itemsize
        places = (bases - opened.lowest) // size + rows * self.dim
        # Touching each row first has the processor look for many of their pages at once: an eighth of all time.
        opened.heads[places]
        # One copy per row, whichever file it is in: a call per file would cost more than the copying.
        found = opened.space[places]
        vectors: Array = found.view(self.dtype).reshape(len(rows), self.dim)
        if self._some_absent:
            vectors[~self.present[rows]] = np.nan
        return vectors

    def part(self, view: int, start: int, stop: int) -> Array | None:
        """Vectors of these rows of all views, which lie in one, as a part of its file; None where some are absent."""
        opened = self.opened([view])
        if not self.present[start:stop].all():
            return None
        first = int(self.starts[view])
        return self._values(opened.tables[view], stop - first)[start - first :]

    def sequences(self, view: int, rows: NDArray[np.int64]) -> list[Array | None]:
        """The sequences (t, width) of these rows of one view."""
        column = self.opened([view]).tables[view]["tokens"].chunk(0)
        found = sequences_of(column)
        return [found[row] for row in rows.tolist()]

    def check_keys(self, keys: Sequence[pa.ChunkedArray]) -> None:
        """Compare each view's keys with these, now or when it is opened. Raises DamagedError where they differ."""
        self._keys = keys
        for view, table in self._open.tables.items():
            self._check(view, table)

    def opened(self, views: Iterable[int]) -> _Open:
        """What is open, these views among it. Raises DamagedError, naming the file, for one that cannot be read."""
        wanted = [int(view) for view in views]
        now = self._open
        if all(view in now.tables for view in wanted):
            return now
        with self._lock:
            now = self._open
            missing = [view for view in wanted if view not in now.tables]
            with ThreadPoolExecutor(READERS) as pool:
                tables = dict(zip(missing, pool.map(self._table, missing), strict=True))
            found = self._with(now, tables)
            self._open = self._within_limits(found, wanted)
        return found

    def _with(self, now: _Open, tables: dict[int, pa.Table]) -> _Open:
        """These views open too."""
        addresses, row = now.addresses.copy(), self._row.itemsize
        lowest, highest = now.lowest, now.highest
        for view, table in tables.items():
            first = table["vector"].chunk(0).values.buffers()[1].address if len(table) and self.dim else 0
            if first:
                lowest = min(lowest or first, first)
                highest = max(highest, first + len(table) * row)
                addresses[view] = first - int(self.starts[view]) * row
        heads, space = (self._between(lowest, highest, kind) for kind in (self.dtype, self._row))
        return _Open({**now.tables, **tables}, addresses, heads, space, lowest, highest)

    def _between(self, lowest: int, highest: int, kind: np.dtype[Any]) -> Array:
        """All memory between two addresses as what starts at each number; only where views lie may any be read."""
        if not lowest:
            return np.zeros(0, kind)
        size = self.dtype.itemsize
        places = (highest - lowest - kind.itemsize) // size + 1
        interface = {"version": 3, "data": (lowest, True), "shape": (places,), "strides": (size,), "typestr": kind.str}
        return np.asarray(SimpleNamespace(__array_interface__=interface))

    def _within_limits(self, now: _Open, needed: Sequence[int]) -> _Open:
        """Without the views opened longest ago where there are too many; those that are needed stay."""
        if self.store.local:
            over, cost = len(now.tables) - MOST_MAPPED, dict.fromkeys(now.tables, 1)
        else:
            cost = {view: table.nbytes for view, table in now.tables.items()}
            over = sum(cost.values()) - self._cache_bytes
        if over <= 0:
            return now
        kept, staying = dict(now.tables), set(needed)
        for view in now.tables:
            if over > 0 and view not in staying:
                del kept[view]
                over -= cost[view]
        return self._with(self._nothing(), kept)

    def _nothing(self) -> _Open:
        addresses = np.zeros(len(self.names), np.int64)
        return _Open({}, addresses, np.zeros(0, self.dtype), np.zeros(0, self._row), 0, 0)

    def _table(self, view: int) -> pa.Table:
        table, receipt = open_view(
            self.store, self.entry.digest, self.names[view], weights=self._weights, verify=self._verify
        )
        start, stop = self.starts[view : view + 2]
        alike = (len(table), receipt["dim"], receipt["dtype"]) == (stop - start, self.dim, self.dtype.name)
        if not alike:
            raise DamagedError(
                f"{self.store.url(self.paths[view])} holds {len(table):,} x {receipt['dim']} {receipt['dtype']}, and "
                f"not {stop - start:,} x {self.dim} {self.dtype.name}; remove it and run again."
            )
        self._check(view, table)
        if len(table):
            self.present[start:stop] = present = table["vector"].chunk(0).is_valid().to_numpy(zero_copy_only=False)
            self._some_absent |= not present.all()
        self.seen[view] = True
        return table

    def _check(self, view: int, table: pa.Table) -> None:
        if self._keys is not None and not table["key"].equals(self._keys[view]):
            raise DamagedError(
                f"{self.store.url(self.paths[view])} holds other keys than its shard; remove it and run again."
            )

    def _values(self, table: pa.Table, rows: int) -> Array:
        values: Array = table["vector"].chunk(0).values.to_numpy(zero_copy_only=True)
        return values.reshape(-1, self.dim)[:rows]


def _view(shard: ShardEntry, modality: str) -> str:
    view = shard.views.get(modality)
    if view is None:
        raise StageError(f"shard {shard.recipe}: its view of {modality} is not known yet; run again")
    return view
