"""Reading a source file's bytes, and noticing when it is not the file that was planned with."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import lru_cache

import pyarrow as pa
from pyarrow import parquet

from mmcore.errors import SourceChangedError
from mmcore.modalities.base import Rejected
from mmcore.sources.fingerprints import HASHED, fingerprints, of_bytes, of_object, of_stat
from mmcore.sources.paths import file_system, is_remote, leads_out
from mmcore.sources.references import Reference, file_of
from mmcore.sources.tables import ARROW, arrow_table
from mmcore.sources.web import is_address

RETRY_AFTER_S = (0.1, 0.5, 2.0)
"""Waits between attempts to read a file that an I/O error kept back."""


def read_source(root: str, ref: Reference, fingerprint: str | None, max_bytes: int) -> bytes | Rejected:
    """The bytes of `ref` (a path, or what lies in a file: see `Reference`) below `root`, or why they are unfit.

    Raises SourceChangedError where the file does not match the fingerprint that it was planned with, before or
    after it was read, and OSError where reading fails time and again.
    """
    if leads_out(file_of(ref)):
        if is_address(file_of(ref)):
            return Rejected("outside-root", "an address, and data.allow_remote is off")
        return Rejected("outside-root", "the path leads out of the data's root")
    if fingerprint is None:
        return Rejected("missing-file", "there is no file of this name")
    try:
        if not isinstance(ref, str):
            return _patiently(lambda: _read_within(root, ref, fingerprint, max_bytes))
        read = _read_remote if is_remote(root) else _read_local
        return _patiently(lambda: read(root, ref, fingerprint, max_bytes))
    except FileNotFoundError:
        raise _changed(root, file_of(ref), "was removed") from None


def _patiently(read: Callable[[], bytes | Rejected]) -> bytes | Rejected:
    for wait_s in RETRY_AFTER_S:
        try:
            return read()
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            time.sleep(wait_s)
    return read()


def _read_local(root: str, ref: str, fingerprint: str, max_bytes: int) -> bytes | Rejected:
    hashed = fingerprint.startswith(HASHED)
    file = os.open(f"{root}/{ref}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(file).st_size if hashed else int(fingerprint.partition(":")[0])
        fits = size <= max_bytes
        data = _up_to(file, size + 1) if fits else b""
        after = os.fstat(file)
    finally:
        os.close(file)
    # The time of the last change is still that of the plan: nothing was written before the read, nor during it.
    same = not fits or of_bytes(data) == fingerprint if hashed else of_stat(after) == fingerprint
    if not same:
        raise _changed(root, ref, "was edited")
    return data if fits else _too_many(size, max_bytes)


def _up_to(file: int, size: int) -> bytes:
    """At most `size` bytes, in one read where the system gives them at once."""
    data = os.read(file, size)
    while 0 < len(data) < size - 1 and (more := os.read(file, size - len(data))):
        data += more
    return data


def _read_remote(root: str, ref: str, fingerprint: str, max_bytes: int) -> bytes | Rejected:
    system, base = file_system(root)
    path = f"{base.rstrip('/')}/{ref}"
    hashed = fingerprint.startswith(HASHED)
    size = system.size(path) if hashed else int(fingerprint.partition(":")[0])
    if size is not None and size > max_bytes:
        return _too_many(size, max_bytes)
    data: bytes = system.cat_file(path)
    if not hashed:
        # An object is replaced as a whole: if it is the planned one after the read, it was so during it.
        system.invalidate_cache(path.rpartition("/")[0])
    if (of_bytes(data) if hashed else of_object(system.info(path))) != fingerprint:
        raise _changed(root, ref, "was replaced")
    return data


def _read_within(root: str, ref: Reference, fingerprint: str, max_bytes: int) -> bytes | Rejected:
    """A member of a tar or a cell of a table."""
    kind, path, *within = ref
    (found,) = fingerprints(root, [path], "sha256" if fingerprint.startswith(HASHED) else "stat")
    if found != fingerprint:
        raise _changed(root, path, "was edited")
    if kind == "table":
        row, column = within
        cell = _cells_of(root, path, fingerprint, column)[row].as_py()
        data: bytes = cell["bytes"] if isinstance(cell, dict) else cell
        return _too_many(len(data), max_bytes) if len(data) > max_bytes else data
    offset, size = within
    if size > max_bytes:
        return _too_many(size, max_bytes)
    if is_remote(root):
        system, base = file_system(root)
        data = system.cat_file(f"{base.rstrip('/')}/{path}", start=offset, end=offset + size)
    else:
        with open(f"{root}/{path}", "rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, offset)
    if len(data) != size:
        raise _changed(root, path, "was edited")
    return bytes(data)


@lru_cache(maxsize=2)
def _cells_of(root: str, path: str, _fingerprint: str, column: str) -> pa.ChunkedArray:
    """One column of bytes of a table; a shard's rows follow each other, so that the last one is kept."""
    system, base = file_system(root) if is_remote(root) else (None, root)
    where = f"{base.rstrip('/')}/{path}"
    if path.rsplit(".", 1)[-1].lower() in ARROW:
        # Mapped where it is local: only the cells that are read take memory.
        source = pa.BufferReader(system.cat_file(where)) if system else pa.memory_map(where)
        return arrow_table(source)[column]
    data = pa.BufferReader(system.cat_file(where)) if system else where
    return parquet.ParquetFile(data, memory_map=system is None).read(columns=[column], use_threads=False)[column]


def _too_many(size: int, max_bytes: int) -> Rejected:
    return Rejected("too-many-bytes", f"{size:,} bytes; max_bytes is {max_bytes:,}")


def _changed(root: str, ref: str, how: str) -> SourceChangedError:
    return SourceChangedError(f"{root}/{ref} {how} after the run was planned. Run the same command again.")
