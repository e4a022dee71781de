"""Feature tables: one Arrow file per view, key and vector row by row, and a receipt beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mmcore.errors import DamagedError
from mmcore.records import DataFile, EncoderEntry, Json
from mmcore.storage import Store, sha256

Array = npt.NDArray[Any]

CONNECTIONS = 16
"""Receipts read at a time from a bucket."""


def folder_of(encoder: str) -> str:
    """Where the vectors of the encoder with this digest lie."""
    return f"features/{encoder}"


def write_view(
    store: Store,
    encoder: str,
    view: str,
    table: tuple[Sequence[str], Array, Array],
    *,
    weights: str,
    held_out: bool = False,
) -> DataFile:
    """Publish a table (what `read_view` gives) as `features/<encoder>/<view>.arrow`, then the receipt.

    Rows that are not `present` become null. `weights` is the hash of the weights that made the vectors: the view is
    stale where the encoder has others. `held_out` tells that they are by models that did not learn from these rows.
    """
    keys, values, present = table
    dim = values.shape[1]
    held = np.where(present[:, None], values, 0).astype(np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(held.ravel()), dim, mask=pa.array(~present))
    batch = pa.record_batch({"key": pa.array(keys, pa.string()), "vector": vectors})
    with store.scratch() as folder:
        with pa.ipc.new_file(str(folder / "view"), batch.schema) as writer:
            writer.write_batch(batch)
        file = store.publish_file(folder / "view", f"{folder_of(encoder)}/{view}.arrow")
    receipt = {"file": file.as_json(), "rows": len(keys), "dim": dim, "weights": weights, "held_out": held_out}
    store.publish_json(f"{folder_of(encoder)}/{view}.json", receipt)
    return file


def read_view(
    store: Store, entry: EncoderEntry, view: str, *, weights: str | None = None
) -> tuple[list[str], Array, Array]:
    """Keys, float32 vectors (n, d) and which rows have one (n,); values of the others mean nothing.

    On a local store the vectors are the file itself, mapped into memory and read-only.
    Raises DamagedError where the file is missing, not the one that its receipt names, or no such table; and where
    other weights than `weights` (if given) made it.
    """
    path = f"{folder_of(entry.digest)}/{view}"
    try:
        receipt = store.read_json(f"{path}.json")
        file = DataFile(**receipt["file"])
        made_by = receipt["weights"]
        if not store.intact(file):
            raise DamagedError(f"{store.url(file.path)} is missing or cut off; run again to make it.")
        data = _bytes(store, file)
        if sha256(memoryview(data)) != file.sha256:
            where = store.url(file.path)
            raise DamagedError(f"{where} is not the file that its receipt names; remove it and run again.")
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all().combine_chunks()
    except FileNotFoundError:
        raise DamagedError(f"{store.url(path)}.json is missing; run again to make it.") from None
    except (pa.ArrowInvalid, KeyError, TypeError) as error:
        raise DamagedError(
            f"{store.url(path)}.arrow is no feature table ({error}); remove it and run again."
        ) from error
    if weights not in (None, made_by):
        raise DamagedError(f"{store.url(path)}.arrow was made by other weights than the encoder has now; run again.")
    keys: list[str] = table["key"].to_pylist()
    if not keys:
        return keys, np.zeros((0, receipt["dim"]), np.float32), np.zeros(0, np.bool_)
    vectors = table["vector"].chunk(0)
    values = vectors.values.to_numpy(zero_copy_only=True).reshape(len(keys), receipt["dim"])
    return keys, values, vectors.is_valid().to_numpy(zero_copy_only=False)


def finished_views(store: Store, encoder: str, views: Mapping[str, bool], weights: str | None) -> dict[str, str]:
    """What is there of these views, each with whether it is to be held-out scores.

    `finished`, `damaged`, `stale` where other weights made it, or `moved` where it was made for another split.
    """
    listing = store.listing(folder_of(encoder))
    there = [view for view in views if f"{view}.json" in listing]

    def state(view: str) -> str:
        try:
            receipt: Mapping[str, Json] = store.read_json(f"{folder_of(encoder)}/{view}.json")
            if listing.get(f"{view}.arrow") != receipt["file"]["size_bytes"]:
                return "damaged"
            if receipt["weights"] != weights:
                return "stale"
            return "finished" if receipt["held_out"] == views[view] else "moved"
        except (DamagedError, FileNotFoundError, KeyError, TypeError):
            return "damaged"

    if store.local:
        return {view: state(view) for view in there}
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        return dict(zip(there, threads.map(state, there), strict=True))


def _bytes(store: Store, file: DataFile) -> pa.Buffer:
    """The file's bytes; on a local store the file itself."""
    if not store.local:
        return pa.py_buffer(store.read_bytes(file.path))
    with pa.memory_map(store.url(file.path)) as source:
        return source.read_buffer()
