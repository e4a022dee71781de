"""The stored values of one modality of a shard, cut into the batches that an encoder takes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmcore.features.batches import Rows, cut_batches, padding_of
from mmcore.features.encoders.base import WHOLE, Encoder
from mmcore.modalities.base import Modality
from mmcore.records import ShardEntry
from mmcore.storage import Store

LOADERS = 8
"""Threads that decode ahead of a GPU at most; beside the CPU's own work more than one would only be in its way."""


@dataclass
class Loading:
    """One modality of a shard: samples, and the values that they have, sample after sample."""

    shard: ShardEntry
    keys: list[str]
    groups: list[str | None] | None
    owners: list[int]
    """The sample of each value."""
    data: list[bytes]
    """The stored bytes of each value."""
    failed: dict[int, Exception] = field(default_factory=dict)
    """Values that could not be made ready, and why."""

    @property
    def present(self) -> np.ndarray:
        """Which samples have values (n,)."""
        found = np.zeros(len(self.keys), np.bool_)
        found[self.owners] = True
        return found


@dataclass(frozen=True)
class Batch:
    """Values of one shard that go through an encoder together, by the model `part`."""

    loading: Loading
    part: int
    rows: Rows
    """Numbers of the values."""
    ready: list[Any]
    collated: Any
    """What `collate` made of them."""
    failure: Exception | None
    """What `collate` raised."""
    last: bool
    """Whether it is the shard's last one."""
    positions: int = 0
    padding: int = 0


def read_loading(store: Store, shard: ShardEntry, modality: str) -> Loading:
    """The shard's stored bytes, checked."""
    from mmcore.shards.read import read_index, read_members

    keys: list[str] = []
    owners: list[int] = []
    data: list[bytes] = []
    for number, (key, parts) in enumerate(read_members(store, shard, modality)):
        keys.append(key)
        owners += [number] * len(parts or ())
        data += parts or ()
    index = read_index(store, shard)
    groups = index["group"].to_pylist() if "group" in index.column_names else None
    return Loading(shard, keys, groups, owners, data)


def load_batches(
    store: Store, shards: Iterable[ShardEntry], name: str, modality: Modality[Any], encoder: Encoder
) -> Iterator[Batch]:
    """Batches of these shards, in order; every shard has at least one, if an empty one.

    They are a function of one shard and `encoder.batch` alone.
    """
    with ExitStack() as stack:
        threads: Executor | None = None
        if encoder.device != "cpu":
            threads = stack.enter_context(ThreadPoolExecutor(min(LOADERS, os.cpu_count() or 1)))
        for shard in shards:
            yield from _batches_of(read_loading(store, shard, name), modality, encoder, threads)


def _batches_of(
    loading: Loading, modality: Modality[Any], encoder: Encoder, threads: Executor | None
) -> Iterator[Batch]:
    values = range(len(loading.data))

    def ready(number: int) -> Any:
        try:
            made = encoder.ready(modality.load(loading.data[number]))
            return made, encoder.length(made)
        except Exception as error:
            loading.failed[number] = error
            return None, 0

    def made_ready(rows: Sequence[int]) -> list[tuple[Any, int | None]]:
        return list(threads.map(ready, rows)) if threads else [ready(row) for row in rows]

    by_length = encoder.by_length
    ahead = made_ready(values) if by_length else []
    lengths = [length or 0 for _, length in ahead] if by_length else None
    cut = cut_batches(lengths, _parts(loading, encoder).tolist(), encoder.batch, most_padding=encoder.most_padding)
    empty = np.zeros(0, np.int64)
    for number, (part, rows) in enumerate(cut or [(WHOLE, empty)], start=1):
        taken = [ahead[row] for row in rows] if by_length else made_ready(rows.tolist())
        fit = [place for place, row in enumerate(rows.tolist()) if row not in loading.failed]
        values_ready = [taken[place][0] for place in fit]
        sizes = padding_of([taken[place][1] or 0 for place in fit]) if by_length else (0, 0)
        collated = _collated(encoder, values_ready)
        yield Batch(loading, part, rows[fit], values_ready, *collated, number >= len(cut), *sizes)


def _collated(encoder: Encoder, ready: list[Any]) -> tuple[Any, Exception | None]:
    try:
        return encoder.collate(ready) if ready else None, None
    except Exception as error:
        return None, error


def _parts(loading: Loading, encoder: Encoder) -> np.ndarray:
    """The model that encodes each value."""
    owners = np.array(loading.owners, dtype=np.int64)
    if loading.shard.split != "train" or not encoder.settings.holds_out:
        return np.full(len(owners), WHOLE)
    return np.asarray(encoder.parts(loading.keys, loading.groups))[owners]
