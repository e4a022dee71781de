"""WebDataset tars as manifests: one row per sample, its members as references into the tar."""

from __future__ import annotations

import json
from collections.abc import Set as AbstractSet
from typing import Any, BinaryIO

import pyarrow as pa

from mmcore.errors import DamagedError, Problem, SourceError
from mmcore.sources.references import pack
from mmcore.sources.tables import Sheet, check_columns
from mmcore.sources.tar_headers import TarMember, scan

KEY = "__key__"
"""Column of the samples' names, as webdataset calls it."""
LARGEST_CELL_BYTES = 16_000_000
"""A label or a text that is read into the manifest is no longer."""


def read_tar(file: BinaryIO, url: str, wanted: dict[str, str], media: AbstractSet[str]) -> Sheet:
    """The samples of a tar in order.

    Columns are `__key__` (`_` for `/`), members by what follows the first dot of their names (`jpg`, `cls`,
    `caption.txt`), and fields of JSON members (`json.label`, for the member `json`).

    Columns in `media` become references, the others the members' texts. `jpg;png` is the first of these that a sample
    has. Raises SourceError for a tar that is damaged or has no such columns.
    """
    samples: dict[str, dict[str, TarMember]] = {}
    try:
        for member in scan(file, url):
            folder, _, base = member.name.rpartition("/")
            stem, dot, field = base.partition(".")
            if not dot or not stem:
                continue
            fields = samples.setdefault(f"{folder}/{stem}" if folder else stem, {})
            if field.lower() in fields:
                raise SourceError(Problem(url, f"two members {member.name!r} of one sample.", "Rename one of them."))
            fields[field.lower()] = member
    except DamagedError as error:
        raise SourceError(Problem(url, str(error), "Fetch or make the tar again.")) from error
    reader = _Cells(file, url.rsplit("/", 1)[-1], media)
    known = list(dict.fromkeys(name for fields in samples.values() for name in fields))
    found = [KEY, *known]
    for column in wanted:
        if column not in found and any(reader.has(column, fields) for fields in samples.values()):
            found.append(column)
    check_columns(url, wanted, found)
    columns = {
        name: [key.replace("/", "_") if name == KEY else reader.cell(name, fields) for key, fields in samples.items()]
        for name in wanted
    }
    table = pa.table({name: pa.array(cells, pa.string()) for name, cells in columns.items()})
    return Sheet(table, pa.array(range(1, len(samples) + 1), pa.int64()))


class _Cells:
    """Cells of one tar's samples; JSON members are read once per sample."""

    def __init__(self, file: BinaryIO, name: str, media: AbstractSet[str]) -> None:
        self._file = file
        self._name = name
        self._media = media
        self._latest: tuple[TarMember | None, Any] = (None, None)

    def has(self, column: str, fields: dict[str, TarMember]) -> bool:
        member, name = self._member(column, fields)
        if member is None or name is None:
            return member is not None
        value = self._json(member)
        return isinstance(value, dict) and name in value

    def cell(self, column: str, fields: dict[str, TarMember]) -> str:
        member, name = self._member(column, fields)
        if member is None:
            return ""
        if column in self._media:
            return pack(["tar", self._name, member.offset, member.size_bytes])
        if name is None:
            return self._text(member).strip()
        found = self._json(member)
        value = found.get(name) if isinstance(found, dict) else None
        return "" if value is None else value if isinstance(value, str) else json.dumps(value)

    @staticmethod
    def _member(column: str, fields: dict[str, TarMember]) -> tuple[TarMember | None, str | None]:
        """The member that a column is in, and the name of a field in it where it is JSON."""
        for option in column.split(";"):
            if option.lower() in fields:
                return fields[option.lower()], None
            before, dot, name = option.rpartition("json.")
            if dot and f"{before}json".lower() in fields:
                return fields[f"{before}json".lower()], name
        return None, None

    def _json(self, member: TarMember) -> Any:
        if self._latest[0] != member:
            try:
                value = json.loads(self._text(member))
            except ValueError:
                value = None
            self._latest = (member, value)
        return self._latest[1]

    def _text(self, member: TarMember) -> str:
        self._file.seek(member.offset)
        return self._file.read(min(member.size_bytes, LARGEST_CELL_BYTES)).decode("utf-8", "replace")
