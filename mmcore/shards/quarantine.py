"""The bytes of what was unfit, beside the shards: a tar of them and a table that says what each is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
from pyarrow import parquet

from mmcore.errors import DamagedError
from mmcore.records import DataFile, Json, Reject
from mmcore.shards.read import table_of
from mmcore.shards.tar import BLOCK, TarWriter, member_name
from mmcore.sources.keys import EXTENSION_BYTES
from mmcore.storage import Store, sha256

FOLDER = "quarantine"
DEFAULT_LIMITS: Mapping[str, int] = {"file_bytes": 1_000_000, "shard_bytes": 64_000_000}
"""What recipes without limits of their own stand for."""

_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("modality", pa.string()),
        ("code", pa.string()),
        ("message", pa.string()),
        ("source", pa.string()),
        ("size_bytes", pa.int64()),
        ("sha256", pa.string()),
        ("offset", pa.int64()),
    ]
)
_ENDING = re.compile(rf"[a-z0-9]{{1,{EXTENSION_BYTES}}}").fullmatch


@dataclass(frozen=True)
class Refused:
    """Bytes that were read and found unfit, and how their file's name ended (`bin` where it says nothing)."""

    data: bytes
    ending: str = "bin"


@dataclass(frozen=True)
class Quarantined:
    """One cell in a shard's table: `size_bytes` and `sha256` where it was read, `offset` where its bytes are kept."""

    key: str
    modality: str
    code: str
    message: str
    source: str
    size_bytes: int | None = None
    sha256: str | None = None
    offset: int | None = None
    """Of its first byte in the tar."""


class QuarantineWriter:
    """Collects a shard's unfit cells; the tar is begun with the first bytes that are kept.

    Files above `file_bytes`, and those for which `shard_bytes` leave no room, are named in the table, not kept.
    """

    def __init__(self, folder: Path, limits: Mapping[str, int]) -> None:
        self._path = folder / "quarantine.tar"
        self._table_path = folder / "quarantine.parquet"
        self._limits = limits
        self._file: BinaryIO | None = None
        self._tar: TarWriter | None = None
        self._cells: list[Quarantined] = []
        self._kept_bytes = 0

    def add(self, reject: Reject, refused: Refused | None) -> None:
        """A cell that was set aside, with its bytes where they could be read."""
        named = (reject.key, reject.modality, reject.code, reject.message, reject.source)
        if refused is None:
            self._cells.append(Quarantined(*named))
            return
        offset, data = None, refused.data
        fits = self._kept_bytes + len(data) <= self._limits["shard_bytes"]
        if data and fits and len(data) <= self._limits["file_bytes"]:
            if self._tar is None:
                self._file = self._path.open("wb")
                self._tar = TarWriter(self._file)
            offset = self._tar.add(member_name(reject.key, reject.modality, refused.ending), data)
            self._kept_bytes += len(data)
        self._cells.append(Quarantined(*named, len(data), sha256(data), offset))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def published(self, store: Store) -> dict[str, Json]:
        """What the receipt says of it, once its files are in the store; nothing where no cell was set aside."""
        if not self._cells:
            return {}
        tar = None
        if self._tar is not None:
            self._tar.finish()
            self.close()
            tar = store.publish_content(self._path, FOLDER, "tar").as_json()
        columns = {name: [getattr(cell, name) for cell in self._cells] for name in _SCHEMA.names}
        parquet.write_table(pa.table(columns, schema=_SCHEMA), self._table_path)
        table = store.publish_content(self._table_path, FOLDER, "parquet").as_json()
        return {"quarantine": {"table": table, "tar": tar}}


def ending_of(path: str) -> str:
    """The ending that a kept file gets: that of its name where it is a plain one."""
    _, dot, ending = path.rpartition("/")[2].lower().rpartition(".")
    return ending if dot and _ENDING(ending) else "bin"


def read_quarantine(store: Store, receipt: Mapping[str, Json]) -> list[Quarantined]:
    """The unfit cells of a finished shard, in the order of its rows; none where it has no table (any more)."""
    found = receipt.get("quarantine")
    if not found:
        return []
    try:
        data = store.read_bytes(found["table"]["path"])
        return [Quarantined(**row) for row in table_of(data).to_pylist()]
    except FileNotFoundError:
        return []
    except (pa.ArrowException, TypeError) as error:
        raise DamagedError(f"{store.url(found['table']['path'])} is damaged ({error}); remove it.") from error


def kept_bytes(store: Store, receipt: Mapping[str, Json], cell: Quarantined) -> tuple[str, bytes] | None:
    """A cell's member name and bytes; None where they are not kept (any more).

    Raises DamagedError where they are not those that were set aside.
    """
    if cell.offset is None or cell.size_bytes is None:
        return None
    tar = DataFile(**receipt["quarantine"]["tar"])
    if not store.exists(tar.path):
        return None
    found = store.read_range(tar.path, cell.offset - BLOCK, cell.offset + cell.size_bytes)
    name, data = found[:100].rstrip(b"\0").decode("utf-8", "replace"), found[BLOCK:]
    if sha256(data) != cell.sha256:
        what = f"{cell.modality} of {cell.key!r}"
        raise DamagedError(f"{store.url(tar.path)} is damaged: {what} is not what was set aside; remove the file.")
    return name, data
