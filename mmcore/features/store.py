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
from mmcore.storage import Store

Array = npt.NDArray[Any]

CONNECTIONS = 16
"""Receipts read at a time from a bucket."""


def folder_of(encoder: str) -> str:
    """Where the vectors of the encoder with this digest lie."""
    return f"features/{encoder}"


def write_view(
    store: Store, encoder: str, view: str, table: tuple[Sequence[str], Array, Array], *, weights: str
) -> DataFile:
    """Publish a table (what `read_view` gives) as `features/<encoder>/<view>.arrow`, then the receipt.

    Rows that are not `present` become null. `weights` is the hash of the weights that made the vectors: the view is
    stale where the encoder has others.
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
    receipt = {"file": file.as_json(), "rows": len(keys), "dim": dim, "weights": weights}
    store.publish_json(f"{folder_of(encoder)}/{view}.json", receipt)
    return file


def read_view(store: Store, entry: EncoderEntry, view: str) -> tuple[list[str], Array, Array]:
    """Keys, float32 vectors (n, d) and which rows have one (n,); values of the others mean nothing.

    On a local store the vectors are the file itself, mapped into memory and read-only.
    Raises DamagedError where the file is missing, cut off, or no such table.
    """
    path = f"{folder_of(entry.digest)}/{view}"
    try:
        receipt = store.read_json(f"{path}.json")
        file = DataFile(**receipt["file"])
        if not store.intact(file):
            raise DamagedError(f"{store.url(file.path)} is missing or cut off; run again to make it.")
        source = pa.memory_map(store.url(file.path)) if store.local else pa.BufferReader(store.read_bytes(file.path))
        table = pa.ipc.open_file(source).read_all().combine_chunks()
    except FileNotFoundError:
        raise DamagedError(f"{store.url(path)}.json is missing; run again to make it.") from None
    except (pa.ArrowInvalid, KeyError, TypeError) as error:
        raise DamagedError(
            f"{store.url(path)}.arrow is no feature table ({error}); remove it and run again."
        ) from error
    keys: list[str] = table["key"].to_pylist()
    if not keys:
        return keys, np.zeros((0, receipt["dim"]), np.float32), np.zeros(0, np.bool_)
    vectors = table["vector"].chunk(0)
    values = vectors.values.to_numpy(zero_copy_only=True).reshape(len(keys), receipt["dim"])
    return keys, values, vectors.is_valid().to_numpy(zero_copy_only=False)


def finished_views(store: Store, encoder: str, views: Sequence[str], weights: str | None) -> dict[str, str]:
    """What is there of these views: `finished`, `damaged`, or `stale` where other weights made it."""
    listing = store.listing(folder_of(encoder))
    there = [view for view in dict.fromkeys(views) if f"{view}.json" in listing]

    def state(view: str) -> str:
        try:
            receipt: Mapping[str, Json] = store.read_json(f"{folder_of(encoder)}/{view}.json")
            if listing.get(f"{view}.arrow") != receipt["file"]["size_bytes"]:
                return "damaged"
            return "finished" if receipt["weights"] == weights else "stale"
        except (DamagedError, FileNotFoundError, KeyError, TypeError):
            return "damaged"

    if store.local:
        return {view: state(view) for view in there}
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        return dict(zip(there, threads.map(state, there), strict=True))
