"""The ways to open features for reading: those of a run, and those of one encoder of a data set."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mmcore.errors import ConfigError, DamagedError, Problem
from mmcore.features.foresee import FOLDER, weights_of
from mmcore.features.reading import Features
from mmcore.records import SPLITS, Dataset, EncoderEntry, Json, Reject
from mmcore.shards.opening import run_records
from mmcore.shards.read import read_dataset
from mmcore.storage import Store

CACHE_BYTES = 1 << 30
"""What is kept in memory of views that were fetched from a bucket."""


def open_features(
    root: str | os.PathLike[str] | Store,
    modality: str | None = None,
    *,
    run: str | None = None,
    splits: Sequence[str] = SPLITS,
    verify: bool = True,
    cache_bytes: int = CACHE_BYTES,
) -> Features:
    """The features of one modality (which may be left out where there is one) that a run below an output root made.

    It is the run `run`, or the latest that finished its features. `verify` reads every file once, when it is first
    needed, to compare its checksum. Samples that the data set names as removed are left out. `cache_bytes` is kept
    in memory of what is fetched from a bucket.

    Raises ConfigError where there is no such run, modality or split, or the run has no features yet, and DamagedError
    where files are missing.
    """
    store = root if isinstance(root, Store) else Store(os.fspath(root))
    store.check_layout()
    dataset, encoders = find_encoders(store, run)
    entry = choose_encoder(encoders, modality)
    return open_encoder(store, dataset, entry, splits=splits, verify=verify, cache_bytes=cache_bytes)


def open_encoder(
    store: Store,
    dataset: Dataset,
    entry: EncoderEntry,
    *,
    splits: Sequence[str] = SPLITS,
    verify: bool = True,
    cache_bytes: int = CACHE_BYTES,
    beside: Features | None = None,
) -> Features:
    """`open_features` where the data set and the encoder are known; `beside` are those of another for the same splits.

    Keys and labels are read once for both.
    """
    if unknown := set(splits) - set(SPLITS):
        raise ConfigError(Problem("splits", f"no split {min(unknown)!r}.", f"There are: {', '.join(SPLITS)}."))
    features = Features(
        store,
        entry,
        dataset.of(*splits),
        weights=_weights(store, entry),
        verify=verify,
        cache_bytes=cache_bytes,
        index=beside.index if beside else None,
    )
    if not dataset.removed:
        return features
    return features.of([row for row, key in enumerate(features.keys) if key not in dataset.removed])


def find_encoders(
    store: Store, run: str | None = None, *, name: str | None = None
) -> tuple[Dataset, tuple[EncoderEntry, ...]]:
    """The data set and encoders of a run, or of the latest (of this name) that finished its features.

    Raises ConfigError where there is none.
    """
    records = run_records(store, run, name=name)
    record = next((record for record in records if record.get("encoders")), None)
    if record is not None:
        return read_dataset(store, str(record["dataset"])), tuple(_entry(one) for one in record["encoders"])
    where = f"below {store.root}" + (f" of the name {name!r}" if name else "")
    if not records:
        raise ConfigError(Problem("run", f"no run {where}.", "Start one: mmcore run FILE."))
    latest = records[0]
    what = f"run {latest['run_id']!r} {where} has no features: it is {latest.get('state', 'unfinished')}."
    if run is None and len(records) > 1:
        what = f"none of {len(records)} runs {where} has features."
    raise ConfigError(Problem("run", what, "Run it again: mmcore run FILE goes on where it was."))


def choose_encoder(encoders: Sequence[EncoderEntry], modality: str | None) -> EncoderEntry:
    """The encoder of this modality, or of its floor (`floor-image`); without one, the only one that is no floor.

    Raises ConfigError where there is no such.
    """
    there = ", ".join(entry.view for entry in encoders)
    configured = [entry for entry in encoders if not entry.floor]
    if modality is None:
        if len(configured) == 1:
            return configured[0]
        raise ConfigError(Problem("modality", "the run has features of several modalities.", f"Name one of: {there}."))
    for entry in encoders:
        if entry.view == modality:
            return entry
    raise ConfigError(Problem("modality", f"no features of {modality!r}.", f"There are: {there}."))


def _entry(value: Mapping[str, Json]) -> EncoderEntry:
    entry = EncoderEntry(**value)
    return replace(entry, rejects=tuple(Reject(**reject) for reject in value.get("rejects", ())))


def _weights(store: Store, entry: EncoderEntry) -> str | None:
    """The hash of the weights that the encoder has now; None where its receipt is gone, and its vectors stand."""
    try:
        return weights_of(store.read_json(f"{FOLDER}/{entry.digest}/receipt.json"))
    except (FileNotFoundError, DamagedError, KeyError, TypeError):
        return None
