"""Reading shards back; every byte is checked against the index, and the index against its receipt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

import pyarrow as pa
from pyarrow import parquet

from mmcore.errors import DamagedError
from mmcore.records import DataFile, Dataset, ShardEntry
from mmcore.sources.keys import escape
from mmcore.storage import Store, sha256


def read_dataset(store: Store, name: str) -> Dataset:
    """The data set of this digest. Raises DamagedError where it is missing."""
    try:
        return Dataset.from_json(store.read_json(f"datasets/{name}.json"))
    except FileNotFoundError:
        raise DamagedError(f"{store.url(f'datasets/{name}.json')} is missing; run again to make it.") from None


def read_index(store: Store, entry: ShardEntry) -> pa.Table:
    """The shard's index in sample order: `key`, `label` and, as `image.offset`, the columns of `index.PARTS`.

    Raises DamagedError where it is missing or not the file that the receipt names.
    """
    file = _file(entry.index, entry)
    try:
        data = store.read_bytes(file.path)
    except FileNotFoundError:
        raise DamagedError(f"{store.url(file.path)} is missing; run again to make it.") from None
    if sha256(data) != file.sha256:
        raise DamagedError(f"{store.url(file.path)} is not the index that its receipt names; remove it and run again.")
    return table_of(data)


def table_of(data: bytes) -> pa.Table:
    """The table in a Parquet file's bytes.

    Without Arrow's threads: now and then they abort a process that ends soon after (arrow#34314).
    """
    return parquet.ParquetFile(pa.BufferReader(data)).read(use_threads=False)


def read_members(store: Store, entry: ShardEntry, modality: str) -> Iterator[tuple[str, tuple[bytes, ...] | None]]:
    """Key and members (None where there are none) of one modality of each sample, in index order.

    They are one, or several where the modality is so.

    Raises DamagedError, naming the tar and the member, where bytes are not those that were written.
    """
    index = read_index(store, entry)
    columns = [index[f"{modality}.{part}"].to_pylist() for part in ("offset", "size_bytes", "sha256")]
    tar = _file(entry.tar, entry)
    with _opened(store, tar) as file:
        for key, *places in zip(index["key"].to_pylist(), *columns, strict=True):
            if places[0] is None:
                yield key, None
                continue
            lists = places if isinstance(places[0], list) else [[value] for value in places]
            parts = []
            for offset, size_bytes, checksum in zip(*lists, strict=True):
                file.seek(offset)
                data = file.read(size_bytes)
                if sha256(data) != checksum:
                    raise DamagedError(
                        f"{store.url(tar.path)}: member {escape(key)}.{modality} (sample {key!r}) is "
                        f"{_damage(len(data), size_bytes)}; remove the tar and run again."
                    )
                parts.append(data)
            yield key, tuple(parts)


@contextmanager
def _opened(store: Store, tar: DataFile) -> Iterator[BinaryIO]:
    with ExitStack() as stack:
        try:
            file = stack.enter_context(stack.enter_context(store.as_local(tar.path)).open("rb"))
        except FileNotFoundError:
            raise DamagedError(f"{store.url(tar.path)} is missing; run again to make it.") from None
        yield file


def _damage(size_bytes: int, wanted_bytes: int) -> str:
    if size_bytes < wanted_bytes:
        return f"cut off: {size_bytes:,} of {wanted_bytes:,} bytes are there"
    return "damaged: its checksum is not the one that was written"


def _file(file: DataFile | None, entry: ShardEntry) -> DataFile:
    if file is None:
        raise ValueError(f"shard {entry.recipe} is only foreseen: there are no files to read")
    return file
