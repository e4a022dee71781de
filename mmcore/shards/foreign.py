"""Indexes of tars that other tools wrote, built in one pass and grouped into samples as webdataset does."""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import pyarrow as pa
import xxhash
from pyarrow import parquet

from mmcore.errors import DamagedError, Problem, SourceError
from mmcore.shards.access import missing
from mmcore.shards.read import table_of
from mmcore.sources.fingerprints import of_object, of_stat
from mmcore.sources.tar_headers import scan
from mmcore.storage import file_system, sha256

Scattered = Literal["error", "join"]
_SPLIT = re.compile(r"((?:.*/|)[^./]+)\.([^/]*)", re.DOTALL)
"""Key, with its folders, and field: the base name up to its first dot, and what follows."""
_NOT_SAMPLES = re.compile(r"__[^/]*__($|/)")
BESIDE = ".index.parquet"
MARK = b"mmcore.source"
VERSION = 1
"""Raised when what an index of a foreign tar holds changes."""


def index_of(url: str, folder: str | Path | None, scattered: Scattered) -> pa.Table:
    """The index of one tar: from `folder` (or `beside` the tar) where one was saved and the tar is still the same.

    Raises DamagedError for a tar that is damaged, and SourceError where its members cannot be grouped.
    """
    mark = f"{VERSION} {scattered} {_fingerprint(url)}".encode()
    place = _place(url, folder)
    if place is not None:
        system, path = file_system(place, "indexes", SourceError)
        try:
            saved = table_of(system.cat_file(path))
            if (saved.schema.metadata or {}).get(MARK) == mark:
                return saved
        except (FileNotFoundError, pa.ArrowException):
            pass
    with _opened(url) as file:
        table = build_index(file, url, scattered).replace_schema_metadata({MARK: mark})
    if place is not None:
        out = io.BytesIO()
        parquet.write_table(table, out, compression="zstd")
        _save(out.getvalue(), place)
    return table


def build_index(file: BinaryIO, url: str, scattered: Scattered = "error") -> pa.Table:
    """Read a tar once: a row per sample with the offset, size and xxh3 of each of its members, by field.

    Keys are paths up to the base name's first dot; fields are the rest in lower case. Other files are passed over.
    Raises SourceError where a sample has two members of one field, or, unless `scattered` is `join`, where a sample's
    members do not follow each other: webdataset would make two samples of it.
    """
    samples: dict[str, dict[str, tuple[int, int, int]]] = {}
    latest = None
    for member in scan(file, url):
        found = _SPLIT.fullmatch(member.name)
        if found is None or _NOT_SAMPLES.match(member.name):
            continue
        key, field = found[1], found[2].lower()
        if key in samples and key != latest and scattered == "error":
            what = f"the members of sample {key!r} do not follow each other ({member.name!r} comes late)."
            raise SourceError(Problem(url, what, 'Pack the tar in order of names, or join them: scattered="join".'))
        latest = key
        fields = samples.setdefault(key, {})
        if field in fields:
            raise SourceError(Problem(url, f"two members {member.name!r} of one sample.", "Rename one of them."))
        file.seek(member.offset)
        data = file.read(member.size_bytes)
        if len(data) != member.size_bytes:
            raise DamagedError(f"{url}: member {member.name!r} is cut off.")
        fields[field] = (member.offset, member.size_bytes, xxhash.xxh3_64_intdigest(data))
    names = sorted({field for fields in samples.values() for field in fields})
    columns: dict[str, Any] = {"key": pa.array(samples, pa.string()), "label": pa.nulls(len(samples))}
    for name in names:
        rows = [fields.get(name) for fields in samples.values()]
        columns[f"{name}.present"] = pa.array([row is not None for row in rows])
        for place, (part, kind) in enumerate({"offset": "int64", "size_bytes": "int64", "xxh3": "uint64"}.items()):
            columns[f"{name}.{part}"] = pa.array([row and row[place] for row in rows], kind)
    return pa.table(columns)


@contextmanager
def _opened(url: str) -> Iterator[BinaryIO]:
    if "://" not in url:
        try:
            with open(url, "rb") as file:
                yield file
        except FileNotFoundError:
            raise missing(url) from None
        return
    system, path = file_system(url, "tars", SourceError)
    with system.open(path, "rb", block_size=8 << 20) as file:
        yield cast("BinaryIO", file)


def _fingerprint(url: str) -> str:
    try:
        if "://" not in url:
            return of_stat(Path(url).stat())
        system, path = file_system(url, "tars", SourceError)
        return of_object(system.info(path))
    except FileNotFoundError:
        raise missing(url) from None


def _place(url: str, folder: str | Path | None) -> str | None:
    """Where the index of a tar is saved."""
    if folder is None:
        return None
    if str(folder) == "beside":
        return url + BESIDE
    return f"{folder}/{Path(url).stem}-{sha256(url.encode())[:12]}{BESIDE}"


def _save(data: bytes, place: str) -> None:
    """Put an index in its place, whole or not at all."""
    system, path = file_system(place, "indexes", SourceError)
    if "://" in place:
        system.pipe_file(path, data)
        return
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(f"{place}.{uuid.uuid4().hex}")
    unfinished.write_bytes(data)
    unfinished.replace(place)
