"""Features out of the store into what other tools read: Parquet, and numpy's own files."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from mmcore.errors import ConfigError, Problem
from mmcore.features.reading import Array, Features
from mmcore.shards.export import safe_name, writing

Format = Literal["parquet", "npy"]
ROWS_AT_ONCE = 8192
"""Rows in memory at a time."""


def export_features(
    features: Sequence[Features],
    target: Path,
    to: Format,
    *,
    float32: bool = False,
    force: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Path]:
    """Write the features of each modality below the folder `target`; the files, which appear when all are whole.

    `parquet`: `<modality>.parquet` with `key`, `label`, `split` and `vector`, a list of numbers, null where there is
    none. `npy`: `<modality>.npy` (n, dim), NaN where there is none, and `<modality>.csv` with key, label and split of
    each row. A floor's are called `floor-<modality>`. Numbers stay as they are kept, or become `float32`. `force`
    replaces files of these names; others in the folder stay. `advance` is told of rows done.

    Raises ConfigError where the folder is not empty (without `force`) or cannot be written.
    """
    if target.exists() and (not target.is_dir() or (any(target.iterdir()) and not force)):
        next_ = "Name a new folder, or replace what is in it with --force." if target.is_dir() else "Name a new folder."
        raise ConfigError(Problem(str(target), "is there already and is not empty.", next_))
    unfinished = target.with_name(f".{target.name}.unfinished-{os.getpid()}")
    write = {"parquet": _parquet, "npy": _npy}[to]
    with writing(target):
        unfinished.mkdir(parents=True)
        try:
            for one in features:
                for done in write(
                    one, unfinished / safe_name(one.entry.view), np.dtype("f4") if float32 else one.dtype
                ):
                    advance(done)
            made = sorted(unfinished.iterdir())
            target.mkdir(exist_ok=True)
            for file in made:
                os.replace(file, target / file.name)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return [target / file.name for file in made]


def _parquet(features: Features, stem: Path, dtype: np.dtype[np.floating]) -> Iterator[int]:
    kind = pa.list_(pa.from_numpy_dtype(dtype))
    columns = {name: pa.array(values) for name, values in _told(features)}
    if pa.types.is_null(columns["label"].type):
        columns["label"] = columns["label"].cast(pa.string())
    fields = [pa.field(name, column.type) for name, column in columns.items()]
    schema = pa.schema([*fields, pa.field("vector", kind)])
    with parquet.ParquetWriter(f"{stem}.parquet", schema, compression="zstd") as file:
        start = 0
        for rows, vectors in features.batches(ROWS_AT_ONCE):
            told = [column.slice(start, len(rows)) for column in columns.values()]
            file.write_table(pa.table([*told, _lists(vectors.astype(dtype, copy=False))], schema))
            start += len(rows)
            yield len(rows)


def _lists(vectors: Array) -> pa.ListArray:
    absent = np.isnan(vectors[:, :1]).any(axis=1)
    offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors.ravel()), mask=pa.array(absent))


def _npy(features: Features, stem: Path, dtype: np.dtype[np.floating]) -> Iterator[int]:
    with open(f"{stem}.csv", "w", newline="", encoding="utf-8") as file:
        names, values = zip(*_told(features), strict=True)
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(zip(*values, strict=True))
    with open(f"{stem}.npy", "wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (len(features), features.dim)})
        for rows, vectors in features.batches(ROWS_AT_ONCE):
            file.write(np.ascontiguousarray(vectors, dtype).data)
            yield len(rows)


def _told(features: Features) -> Iterable[tuple[str, list[object]]]:
    return [("key", features.keys), ("label", features.labels), ("split", features.splits.tolist())]
