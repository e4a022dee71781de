"""Features read a few shards at a time, and a bounded sample of their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from mmcore.errors import FusionError
from mmcore.fusion.data import Array, LabelledViews, View, Views, load_views
from mmcore.records import Dataset, EncoderEntry, ShardEntry
from mmcore.storage import Store

NUMBERS_AT_ONCE = 1 << 22
"""Numbers of features that are read into memory at a time, about."""
ROWS_OF_CLASS = 30
"""Rows of each class that a sample to learn from holds on the mean, at least, or all where there are fewer."""


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
    store: Store,
    dataset: Dataset,
    encoders: Sequence[EncoderEntry],
    split: str,
    *,
    rows: int,
    seed: int,
    every_class: bool = False,
) -> tuple[LabelledViews, Array]:
    """About `rows` labelled rows of a split in shard order, or all rows where there are no more; their weights (n,).

    A row is taken where a hash of its key and `seed` is small, whatever other rows there are: each alike, or with
    `every_class` more of rare classes (see `class_shares`) and, at the end, the first row of each class of which chance
    took none, so that every class is learned. A weight is one over the share of the row's class that is taken, in units
    of `rows` over all: weighted, classes have their true shares, and the sample weighs about `rows`. Raises as
    `load_views`, and FusionError where no labelled row is drawn.
    """
    total = sum(shard.samples for shard in dataset.of(split))
    if total <= rows:
        every = load_views(store, dataset, encoders, split)
        return every, np.ones(len(every))
    counted = every_class and dataset.task == "classes"
    counts = dataset.facts.get("splits", {}).get(split, {}).get("classes", {}) if counted else {}
    of_class = class_shares(counts, total, rows)
    taken: list[LabelledViews] = []
    weights: list[Array] = []
    drawn: set[str] = set()
    spare: dict[str, tuple[LabelledViews, Array]] = {}
    for found in in_batches(store, dataset, encoders, split):
        shares = np.array([of_class.get(str(label), rows / total) for label in found.labels])
        known = labelled(found.labels)
        some = np.flatnonzero((key_shares(found.keys, seed) < shares) & known)
        taken.append(found[some])
        weights.append(rows / total / shares[some])
        if of_class:
            drawn.update(map(str, found.labels[some]))
            for at in np.flatnonzero(known):
                if (name := str(found.labels[at])) not in drawn and name not in spare:
                    one = np.array([at])
                    spare[name] = found[one], rows / total / shares[one]
    for name, (row, weight) in spare.items():
        if name not in drawn:
            taken.append(row)
            weights.append(weight)
    if not any(map(len, taken)):
        raise FusionError(f"of about {rows:,} rows drawn of {split} none has a label; raise fusion.memory_bytes")
    return _joined(taken), np.concatenate(weights)


def class_shares(counts: Mapping[str, int], total: int, rows: int) -> dict[str, float]:
    """What share of each class's rows to take, given how many there are, so that about `rows` of `total` are taken.

    `ROWS_OF_CLASS` of each class (fewer where those of all classes would be more than half of `rows`), and of what
    `rows` leaves the same share of every class.
    """
    least = min(ROWS_OF_CLASS, rows / (2 * max(1, len(counts))))
    rest = (rows - sum(min(least, count) for count in counts.values())) / total
    return {name: min(1.0, rest + least / count) for name, count in counts.items() if count}


def key_shares(keys: Sequence[str] | Array, seed: int) -> Array:
    """A number from 0 to 1 for each key, (n,) float64, that depends on nothing but it and the seed."""
    salt = seed.to_bytes(8, "little")
    hashes = b"".join(hashlib.blake2b(str(key).encode(), digest_size=8, key=salt).digest() for key in keys)
    return np.frombuffer(hashes, dtype="<u8") / 2.0**64


def width_of(encoders: Sequence[EncoderEntry]) -> int:
    """Columns of all views together."""
    return sum(entry.dim or 0 for entry in encoders)


def labelled(labels: Array) -> Array:
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
