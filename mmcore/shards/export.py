"""Samples out of shards into what other tools read: Parquet, a folder of files, plain numbered tars."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pyarrow import parquet

from mmcore.errors import ConfigError, Problem
from mmcore.records import Json, canonical_json
from mmcore.shards.reader import Sample, Shards
from mmcore.shards.tar import TarWriter
from mmcore.sources.keys import escape

Format = Literal["parquet", "folder", "tars"]
AT_ONCE = 64
"""Samples in memory at a time."""
UNSAFE = re.compile(r"[/\\%\x00-\x1f\x7f]|^\.|^$")
"""What no file or folder made from a key or label may hold."""


def export(
    splits: Mapping[str, Shards],
    extensions: Mapping[str, str],
    target: Path,
    to: Format,
    *,
    samples_per_file: int = 1000,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Write the samples of each split below `target`, a folder that must be new or empty; it appears when it is whole.

    `parquet`: `train-000000.parquet`, …, a row per sample, members as binary. `tars`: `train-000000.tar`, … with a
    member per file and a `.json` with label and columns. `folder`: `train/<label>/<key>.<extension>` and a
    `manifest.jsonl` that names the files of each sample. `advance` is told of samples done.

    Raises ConfigError where the folder is not empty or cannot be made, and DamagedError for a shard that is damaged.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(Problem(str(target), "is there already and is not empty.", "Name a new folder."))
    unfinished = target.with_name(f".{target.name}.unfinished-{os.getpid()}")
    with writing(target):
        unfinished.mkdir(parents=True)
    try:
        write = {"parquet": _parquet, "folder": _folder, "tars": _tars}[to]
        for split, shards in splits.items():
            for done in write(shards, split, extensions, unfinished, samples_per_file):
                advance(done)
        if target.exists():
            target.rmdir()
        os.replace(unfinished, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """What a person asked to be written to `target`: raises ConfigError where that cannot be."""
    try:
        yield
    except OSError as error:
        what = f"cannot be written ({error.strerror or error})."
        raise ConfigError(Problem(str(target), what, "Name another folder.")) from error


def member_files(sample: Sample, extensions: Mapping[str, str]) -> Iterator[tuple[str, str, bytes]]:
    """Field, what follows the key in the file's name, and bytes of each of a sample's files."""
    for field, extension in extensions.items():
        value = sample[field]
        if isinstance(value, tuple):
            for part, data in enumerate(value):
                yield field, f"{field}.{part:03d}.{extension}", data
        elif value is not None:
            yield field, f"{field}.{extension}", value


def safe_name(text: str) -> str:
    """A label or key as the name of a file or folder."""
    return UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in found.group().encode()) or "%", text)


def _numbered(shards: Shards, samples_per_file: int) -> Iterator[Iterator[list[Sample]]]:
    """Per file to write, its samples, some at a time."""
    for start in range(0, len(shards), samples_per_file):
        yield shards.of(range(start, min(start + samples_per_file, len(shards)))).batches(AT_ONCE)


def _parquet(
    shards: Shards, split: str, extensions: Mapping[str, str], folder: Path, samples_per_file: int
) -> Iterator[int]:
    schema = _schema(shards, extensions)
    for number, batches in enumerate(_numbered(shards, samples_per_file)):
        with parquet.ParquetWriter(folder / f"{split}-{number:06d}.parquet", schema, compression="zstd") as file:
            for samples in batches:
                rows = [{**sample, "key": sample["__key__"], "split": split} for sample in samples]
                columns = {name: [row[name] for row in rows] for name in schema.names}
                file.write_table(pa.table(columns, schema=schema))
                yield len(samples)


def _schema(shards: Shards, wanted: Iterable[str]) -> pa.Schema:
    fields = [pa.field("key", pa.string()), pa.field("split", pa.string())]
    fields += [field for field in shards.catalogue.table.schema if field.name != "key"]
    several = {name for name, members in shards.catalogue.members.items() if members.counts is not None}
    fields += [pa.field(name, pa.list_(pa.binary()) if name in several else pa.binary()) for name in wanted]
    return pa.schema(fields)


def _tars(
    shards: Shards, split: str, extensions: Mapping[str, str], folder: Path, samples_per_file: int
) -> Iterator[int]:
    for number, batches in enumerate(_numbered(shards, samples_per_file)):
        with (folder / f"{split}-{number:06d}.tar").open("wb", buffering=1 << 20) as file:
            tar = TarWriter(file)
            for samples in batches:
                for sample in samples:
                    key = sample["__key__"]
                    for _, ending, data in member_files(sample, extensions):
                        tar.add(f"{escape(key)}.{ending}", data)
                    tar.add(f"{escape(key)}.json", canonical_json(_told(sample, extensions)))
                yield len(samples)
            tar.finish()


def _folder(
    shards: Shards, split: str, extensions: Mapping[str, str], folder: Path, _samples_per_file: int
) -> Iterator[int]:
    distinct = len(set(extensions.values())) == len(extensions)
    with (folder / "manifest.jsonl").open("a", encoding="utf-8") as manifest:
        for samples in shards.batches(AT_ONCE):
            for sample in samples:
                label = sample["label"]
                inside = f"{split}/{safe_name(label)}" if isinstance(label, str) else split
                (folder / inside).mkdir(parents=True, exist_ok=True)
                paths: dict[str, list[str]] = {}
                for field, ending, data in member_files(sample, extensions):
                    several = isinstance(sample[field], tuple)
                    # Files of one sample have one stem where their extensions tell them apart.
                    ending_ = ending if several or not distinct else ending.removeprefix(f"{field}.")
                    path = f"{inside}/{safe_name(sample['__key__'])}.{ending_}"
                    (folder / path).write_bytes(data)
                    paths.setdefault(field, []).append(path)
                files = {f: p if isinstance(sample[f], tuple) else p[0] for f, p in paths.items()}
                row = {**_told(sample, extensions), "split": split, **files}
                manifest.write(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")
            yield len(samples)


def _told(sample: Sample, fields: Sequence[str] | Mapping[str, str]) -> dict[str, Json]:
    """What is known of a sample beside its files."""
    told: dict[str, Any] = {name: value for name, value in sample.items() if name not in fields and name != "__key__"}
    return {"key": sample["__key__"], **told}
