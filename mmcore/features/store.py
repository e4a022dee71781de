"""Feature tables: one Arrow file per view, row by row key, vector and perhaps a sequence, and a receipt beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mmcore.errors import DamagedError
from mmcore.records import DataFile, EncoderEntry, Json, Reject
from mmcore.storage import Store, sha256

Array = npt.NDArray[Any]

CONNECTIONS = 16
"""Receipts read at a time from a bucket."""


def folder_of(encoder: str) -> str:
    """Where the vectors of the encoder with this digest lie."""
    return f"features/{encoder}"


@dataclass(frozen=True)
class Table:
    """One view: `keys`, `vectors` (n, dim) float32 or float16, and which rows have one (n,); the others mean nothing.

    `tokens` are the rows' sequences (t, width), None for absent rows; None as a whole where the encoder gives none.
    """

    keys: Sequence[str]
    vectors: Array
    present: Array
    tokens: Sequence[Array | None] | None = None
    token_dim: int | None = None
    """Width of the sequences, told where no row may have one."""


@dataclass(frozen=True)
class Made:
    """How a view was made: what its receipt tells beside the file."""

    weights: str
    """The hash of the weights that made it; the view is stale where the encoder has others."""
    held_out: bool = False
    """Whether its vectors are by models that did not learn from their rows."""
    batch: int | None = None
    """Values that went through the encoder at a time; other numbers give other last bits."""
    rejects: Sequence[Reject] = ()
    """Samples that the encoder could not take; their rows are null."""


def write_view(store: Store, encoder: str, view: str, table: Table, made: Made) -> DataFile:
    """Publish a table as `features/<encoder>/<view>.arrow`, then the receipt."""
    batch = _packed(table)
    with store.scratch() as folder:
        with pa.ipc.new_file(str(folder / "view"), batch.schema) as writer:
            writer.write_batch(batch)
        file = store.publish_file(folder / "view", f"{folder_of(encoder)}/{view}.arrow")
    receipt = {
        "file": file.as_json(),
        "rows": len(table.keys),
        "dim": table.vectors.shape[1],
        "dtype": _kind(table).name,
        "tokens": sum(len(row) for row in table.tokens or () if row is not None) if table.tokens is not None else None,
        "weights": made.weights,
        "held_out": made.held_out,
        "batch": made.batch,
        "rejects": [reject.as_json() for reject in made.rejects],
    }
    store.publish_json(f"{folder_of(encoder)}/{view}.json", receipt)
    return file


def read_view(store: Store, entry: EncoderEntry, view: str, *, weights: str | None = None) -> Table:
    """The table of one view.

    On a local store the vectors are the file itself, mapped into memory and read-only. Raises as `open_view`.
    """
    table, receipt = open_view(store, entry.digest, view, weights=weights)
    return _unpacked(table, receipt["dim"])


def open_view(
    store: Store, encoder: str, view: str, *, weights: str | None = None, verify: bool = True
) -> tuple[pa.Table, Json]:
    """The Arrow table of one view in one piece, on a local store mapped into memory; and its receipt.

    Raises DamagedError where the file is missing, not the one that its receipt names (`verify`: by its bytes, not
    only its size), or no such table; and where other weights than `weights` (if given) made it.
    """
    path = f"{folder_of(encoder)}/{view}"
    receipt = view_receipt(store, encoder, view)
    try:
        file = DataFile(**receipt["file"])
        made_by, _ = receipt["weights"], receipt["dim"]
        if not store.intact(file):
            raise DamagedError(f"{store.url(file.path)} is missing or cut off; run again to make it.")
        data = _bytes(store, file)
        if verify and sha256(memoryview(data)) != file.sha256:
            where = store.url(file.path)
            raise DamagedError(f"{where} is not the file that its receipt names; remove it and run again.")
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all().combine_chunks()
    except (pa.ArrowInvalid, KeyError, TypeError) as error:
        raise DamagedError(
            f"{store.url(path)}.arrow is no feature table ({error}); remove it and run again."
        ) from error
    if weights not in (None, made_by):
        raise DamagedError(f"{store.url(path)}.arrow was made by other weights than the encoder has now; run again.")
    return table, receipt


def view_receipt(store: Store, encoder: str, view: str) -> Json:
    """What is told of a view beside its file. Raises DamagedError where it is missing or cannot be read."""
    path = f"{folder_of(encoder)}/{view}.json"
    try:
        return store.read_json(path)
    except FileNotFoundError:
        raise DamagedError(f"{store.url(path)} is missing; run again to make it.") from None


def finished_views(
    store: Store, encoder: str, views: Mapping[str, bool], weights: str | None
) -> dict[str, tuple[str, Json]]:
    """What is there of these views, each with whether it is to be held-out scores: its state and its receipt.

    States are `finished`, `damaged`, `stale` where other weights made it, or `moved` where it was made for another
    split.
    """
    listing = store.listing(folder_of(encoder))
    there = [view for view in views if f"{view}.json" in listing]

    def state(view: str) -> tuple[str, Json]:
        try:
            receipt: Mapping[str, Json] = store.read_json(f"{folder_of(encoder)}/{view}.json")
            if listing.get(f"{view}.arrow") != receipt["file"]["size_bytes"]:
                return "damaged", None
            if receipt["weights"] != weights:
                return "stale", receipt
            return ("finished" if receipt["held_out"] == views[view] else "moved"), receipt
        except (DamagedError, FileNotFoundError, KeyError, TypeError):
            return "damaged", None

    if store.local:
        return {view: state(view) for view in there}
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        return dict(zip(there, threads.map(state, there), strict=True))


def _kind(table: Table) -> np.dtype[Any]:
    """What numbers are kept as."""
    return np.dtype(np.float16 if table.vectors.dtype == np.float16 else np.float32)


def _packed(table: Table) -> pa.RecordBatch:
    absent = ~np.asarray(table.present, dtype=np.bool_)
    dim = table.vectors.shape[1]
    kind = _kind(table)
    held = np.where(absent[:, None], 0, table.vectors).astype(kind, copy=False)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(held.ravel()), dim, mask=pa.array(absent))
    columns = {"key": pa.array(table.keys, pa.string()), "vector": vectors}
    if table.tokens is not None:
        rows = [row for row in table.tokens if row is not None]
        lengths = [0 if row is None else len(row) for row in table.tokens]
        flat = np.concatenate(rows).astype(kind, copy=False) if rows else np.zeros((0, table.token_dim or 1), kind)
        inner = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
        columns["tokens"] = pa.LargeListArray.from_arrays(offsets, inner, mask=pa.array(absent))
    return pa.record_batch(columns)


def _unpacked(table: pa.Table, dim: int) -> Table:
    keys: list[str] = table["key"].to_pylist()
    kind = table.schema.field("vector").type.value_type.to_pandas_dtype()
    if not keys:
        empty: list[Array | None] | None = [] if "tokens" in table.column_names else None
        return Table(keys, np.zeros((0, dim), kind), np.zeros(0, np.bool_), empty)
    vectors = table["vector"].chunk(0)
    values = vectors.values.to_numpy(zero_copy_only=True).reshape(len(keys), dim)
    present = vectors.is_valid().to_numpy(zero_copy_only=False)
    tokens = sequences_of(table["tokens"].chunk(0)) if "tokens" in table.column_names else None
    return Table(keys, values, present, tokens)


def sequences_of(column: pa.LargeListArray) -> list[Array | None]:
    """Each row's sequence (t, width), which is a part of the file."""
    width = column.type.value_type.list_size
    flat = column.values.values.to_numpy(zero_copy_only=True).reshape(-1, width)
    offsets = column.offsets.to_numpy()
    valid = column.is_valid().to_pylist()
    return [flat[offsets[row] : offsets[row + 1]] if there else None for row, there in enumerate(valid)]


def _bytes(store: Store, file: DataFile) -> pa.Buffer:
    """The file's bytes; on a local store the file itself."""
    if not store.local:
        return pa.py_buffer(store.read_bytes(file.path))
    with pa.memory_map(store.url(file.path)) as source:
        return source.read_buffer()
