"""Features read a few shards at a time, and a bounded sample of their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from mmcore.fusion.data import Array, LabelledViews, View, Views, load_views
from mmcore.records import Dataset, EncoderEntry, ShardEntry
from mmcore.storage import Store

NUMBERS_AT_ONCE = 1 << 22
"""Numbers of features that are read into memory at a time, about."""
ROWS_OF_CLASS = 30
"""Rows of each class that a sample holds on the mean, at least, or all where there are fewer."""


def in_batches(store: Store, dataset: Dataset, encoders: Sequence[EncoderEntry], split: str) -> Iterator[LabelledViews]:
    """All rows of a split in shard order, as many whole shards at a time as `NUMBERS_AT_ONCE` asks for.

    Raises as `load_views`.
    """
    batch: list[ShardEntry] = []
    for shard in dataset.of(split):
        batch.append(shard)
        if sum(one.samples for one in batch) * width_of(encoders) >= NUMBERS_AT_ONCE:
            yield load_views(store, replace(dataset, shards=tuple(batch)), encoders, split)
            batch = []
    if batch:
        yield load_views(store, replace(dataset, shards=tuple(batch)), encoders, split)


def sample_rows(
    store: Store, dataset: Dataset, encoders: Sequence[EncoderEntry], split: str, *, rows: int, seed: int
) -> LabelledViews:
    """About `rows` labelled rows of a split in shard order, or all rows where there are no more.

    A row is taken where a hash of its key and `seed` is small, whatever other rows there are: each alike, but of a
    class so rare that there would be fewer than `ROWS_OF_CLASS` more, so that every class is learned. Raises as
    `load_views`.
    """
    total = sum(shard.samples for shard in dataset.of(split))
    if total <= rows:
        return load_views(store, dataset, encoders, split)
    counts = dataset.facts.get("splits", {}).get(split, {}).get("classes", {}) if dataset.task == "classes" else {}
    of_class = {name: min(1.0, max(rows / total, ROWS_OF_CLASS / count)) for name, count in counts.items()}
    taken = []
    for found in in_batches(store, dataset, encoders, split):
        shares = np.array([of_class.get(str(label), rows / total) for label in found.labels])
        taken.append(found[np.flatnonzero((key_shares(found.keys, seed) < shares) & _labelled(found.labels))])
    return _joined(taken)


def key_shares(keys: Sequence[str] | Array, seed: int) -> Array:
    """A number from 0 to 1 for each key, (n,) float64, that depends on nothing but it and the seed."""
    salt = seed.to_bytes(8, "little")
    hashes = b"".join(hashlib.blake2b(str(key).encode(), digest_size=8, key=salt).digest() for key in keys)
    return np.frombuffer(hashes, dtype="<u8") / 2.0**64


def width_of(encoders: Sequence[EncoderEntry]) -> int:
    """Columns of all views together."""
    return sum(entry.dim or 0 for entry in encoders)


def _labelled(labels: Array) -> Array:
    """Which rows have a label (n,): None, or NaN, stands for none."""
    if labels.dtype == object:
        return np.array([label is not None for label in labels], bool)
    return ~np.isnan(labels) if labels.dtype.kind == "f" else np.ones(len(labels), bool)


def _joined(parts: Sequence[LabelledViews]) -> LabelledViews:
    views = {
        name: View(
            np.concatenate([part.views[name].values for part in parts]),
            np.concatenate([part.views[name].present for part in parts]),
        )
        for name in parts[0].views
    }
    labels, keys = (np.concatenate([getattr(part, name) for part in parts]) for name in ("labels", "keys"))
    return LabelledViews(Views(views), labels, keys)
