"""Encoders that learned from other data than a run has: which of them a run may keep."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mmcore.config import TrainedEncoder
from mmcore.errors import DamagedError
from mmcore.records import Json, ShardEntry, digest
from mmcore.storage import Store, sha256

Receipt = Mapping[str, Json]
Hashes = npt.NDArray[np.uint64]

WIDTH = 8
"""Bytes kept of a key's hash: among millions of keys no two meet by chance, and if they did, an encoder is trained
that could have been kept."""


UNKNOWN = "follows from shards that are not made yet"
LEAKS = "rows it learned from are now in val or test"


def choose_standing(  # noqa: PLR0917
    settings: TrainedEncoder,
    wanted: Json,
    entries: Sequence[ShardEntry],
    modality: str,
    samples: int,
    receipts: Sequence[Receipt],
    store: Store,
) -> tuple[Receipt | None, str]:
    """The best encoder that may be kept; or None and why one that `refit` lets stand may not ('': there is none).

    `wanted` is the recipe of a new one, `samples` how many training samples there are now.
    """
    views = [entry.views[modality] for entry in entries if entry.split == "train"]
    fit = _candidates(settings, wanted, views, samples, receipts)
    if not fit:
        return None, ""
    keys = _keys_of(store, entries)
    if keys is None:
        return None, UNKNOWN
    found = next((receipt for receipt in fit if not _leaks(store, receipt, keys)), None)
    return found, "" if found else LEAKS


def pack_keys(keys: Iterable[str]) -> bytes:
    """Sorted hashes of the keys, 8 bytes each: what an encoder keeps to tell which rows it knows."""
    return _hashes(keys).astype("<u8").tobytes()


def _candidates(
    settings: TrainedEncoder, wanted: Json, views: Iterable[str | None], samples: int, receipts: Sequence[Receipt]
) -> list[Receipt]:
    """Those that `refit` lets stand, best first: who shares most of the training `views`, then most samples.

    Without a shared view it is another data set's.
    """
    if settings.refit == "always":
        return []
    now = {view for view in views if view is not None}
    same = ("settings", "name", "modality", "classes", "threads", "device")

    def rank(receipt: Receipt) -> tuple[int, int, str]:
        shared = len(now.intersection(receipt["recipe"]["train"]))
        return shared, receipt["samples"]["train"], digest(receipt["recipe"])

    fit = [r for r in receipts if rank(r)[0] and all(r["recipe"][name] == wanted[name] for name in same)]
    # Folds by key would tear groups apart, and those by group know no rows without one.
    fit = [r for r in fit if (r["recipe"].get("groups") is None) == (wanted.get("groups") is None)]
    if settings.refit != "never":
        fit = [r for r in fit if abs(samples - r["samples"]["train"]) < settings.refit * r["samples"]["train"]]
    return sorted(fit, key=rank, reverse=True)


def _keys_of(store: Store, entries: Sequence[ShardEntry]) -> dict[str, Hashes] | None:
    """Hashes of all keys in val (and of those removed) and in test; None where one of their shards is not made yet."""
    from mmcore.shards.read import read_index

    keys: dict[str, list[str]] = {"val": [], "test": []}
    for entry in entries:
        if entry.split in keys:
            if entry.index is None:
                return None
            keys[entry.split] += read_index(store, entry)["key"].to_pylist()
        # Nothing may have learned from what was removed, as if val held it.
        keys["val"] += entry.removed
    return {split: _hashes(found) for split, found in keys.items()}


def _leaks(store: Store, receipt: Receipt, keys: Mapping[str, Hashes]) -> bool:
    """Whether rows it was trained on are now in val or test, or rows it was validated on in test."""
    learned, chosen_by = (_unpacked(store, receipt["keys"][split]) for split in ("train", "val"))
    pairs = ((learned, keys["val"]), (learned, keys["test"]), (chosen_by, keys["test"]))
    return any(np.isin(ours, theirs).any() for ours, theirs in pairs)


def _hashes(keys: Iterable[str]) -> Hashes:
    packed = b"".join(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=WIDTH).digest() for key in keys)
    return np.sort(np.frombuffer(packed, "<u8").astype(np.uint64))


def _unpacked(store: Store, file: Mapping[str, Json]) -> Hashes:
    data = store.read_bytes(file["path"])
    if sha256(data) != file["sha256"]:
        raise DamagedError(
            f"{store.url(file['path'])} is not the file that its receipt names; remove it and run again."
        )
    return np.frombuffer(data, "<u8").astype(np.uint64)
