"""Reading one manifest file (CSV, TSV, JSONL, Parquet, Arrow) as columns of strings."""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as pa_csv

from mmcore.errors import Problem, SourceError
from mmcore.records import Json, canonical_json
from mmcore.sources.references import pack

ARROW = frozenset({"arrow", "feather", "ipc"})
LARGEST_BLOCK = 1 << 30
LISTED = 20
"""Columns of a manifest that a message names."""


@dataclass(frozen=True)
class Malformed:
    """A row that cannot be read: its number (1 is the first row of data), its key where it has one, and why."""

    number: int
    key: str
    message: str


@dataclass(frozen=True)
class Sheet:
    """The wanted columns of one manifest as strings ('' where a cell is empty), with each row's number."""

    table: pa.Table
    numbers: pa.Array
    malformed: list[Malformed] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return int(self.table.num_rows) + len(self.malformed)


def read_sheet(
    data: bytes,
    file: str,
    wanted: dict[str, str],
    lists: AbstractSet[str] = frozenset(),
    media: AbstractSet[str] = frozenset(),
) -> Sheet:
    """The columns named by `wanted` (column to the setting that names it) of the manifest whose bytes are `data`.

    Columns in `lists` hold lists: JSON's or Arrow's, or texts with `;` between the items; their cells become JSON
    lists. Columns in `media` may hold the files themselves, as bytes; their cells become references to table cells.
    Raises SourceError with every fault of the file and its columns.
    """
    extension = file.rsplit(".", 1)[-1].lower()
    if not data:
        raise SourceError(Problem(file, "the file is empty.", "A manifest needs column names and rows."))
    if extension in ("csv", "tsv"):
        return _with_lists(_read_csv(data, file, wanted, "," if extension == "csv" else "\t"), lists)
    if extension in ("jsonl", "ndjson"):
        return _with_lists(_read_jsonl(data, file, wanted, lists), lists)
    if extension in ("parquet", "pq"):
        return _with_lists(_read_parquet(data, file, wanted, lists, media), lists)
    if extension in ARROW:
        return _with_lists(_read_arrow(data, file, wanted, lists, media), lists)
    known = ".csv, .tsv, .jsonl, .parquet, .arrow, .tar or a folder"
    raise SourceError(Problem(file, f"manifests of type .{extension} cannot be read.", f"Use {known}."))


def _with_lists(sheet: Sheet, lists: AbstractSet[str]) -> Sheet:
    """Cells of columns of lists as JSON lists; empty ones stay empty."""
    table = sheet.table
    for column in lists & set(table.column_names):
        cells = [
            cell if not cell or cell.startswith("[") else canonical_json(_items(cell)).decode()
            for cell in table[column].to_pylist()
        ]
        table = table.set_column(table.column_names.index(column), column, pa.array(cells, pa.string()))
    return replace(sheet, table=table)


def _items(cell: str) -> list[str]:
    return [item for part in cell.split(";") if (item := part.strip())]


def check_columns(file: str, wanted: dict[str, str], found: Sequence[str], hint: str = "") -> None:
    absent = [column for column in wanted if column not in found]
    if absent and hint:
        raise SourceError(Problem(file, f"has no columns {', '.join(map(repr, absent))}.", hint))
    names = ", ".join(map(repr, found[:LISTED])) + (f" and {len(found) - LISTED} more" if len(found) > LISTED else "")
    problems = []
    for column, setting in wanted.items():
        if column in absent:
            near = difflib.get_close_matches(column, found, n=1, cutoff=0.6)
            fix = (f"Did you mean {near[0]!r}? " if near else "") + f"Its columns: {names}."
            problems.append(Problem(file, f"has no column {column!r}, which {setting} names.", fix))
        elif list(found).count(column) > 1:
            problems.append(
                Problem(file, f"has {list(found).count(column)} columns {column!r}.", "Rename all but one.")
            )
    if problems:
        raise SourceError(problems)


def _check_utf8(data: bytes, file: str) -> None:
    try:
        str(data, "utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SourceError(
            Problem(file, f"line {line} is not valid UTF-8 ({error.reason}).", "Save the manifest as UTF-8.")
        ) from None


def _read_csv(data: bytes, file: str, wanted: dict[str, str], delimiter: str) -> Sheet:
    _check_utf8(data, file)
    with io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="") as text:
        header = next((row for row in csv.reader(text, delimiter=delimiter) if row), [])
    other = next((mark for mark in ",;\t|" if len(header) == 1 and mark in header[0]), None)
    hint = f"Its columns seem to be separated by {other!r}; {delimiter!r} is needed." if other else ""
    check_columns(file, wanted, header, hint)
    malformed: list[Malformed] = []
    key_at = header.index(next(iter(wanted)))

    def set_aside(row: Any) -> str:
        cells = next(csv.reader(io.StringIO(row.text, newline=""), delimiter=delimiter), [])
        key = cells[key_at] if key_at < len(cells) else ""
        message = f"the row has {row.actual_columns} fields, and the header {row.expected_columns}"
        # Arrow counts the header as a row.
        malformed.append(Malformed(row.number - 1, key, message))
        return "skip"

    try:
        table = pa_csv.read_csv(
            pa.BufferReader(data),
            # One thread, or rows have no numbers; one block, so that no cell is too long for it.
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=min(max(len(data), 1 << 20), LARGEST_BLOCK)),
            parse_options=pa_csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=set_aside
            ),
            convert_options=pa_csv.ConvertOptions(
                include_columns=list(wanted), column_types=dict.fromkeys(wanted, pa.string())
            ),
        )
    except pa.ArrowInvalid as error:
        raise SourceError(Problem(file, f"cannot be read ({error}).", "It must be well-formed.")) from error
    if malformed:
        malformed = _with_lines(malformed, data, delimiter, len(header))
    skipped = {row.number for row in malformed}
    numbers = (number for number in range(1, table.num_rows + len(malformed) + 1) if number not in skipped)
    return Sheet(table.select(list(wanted)), pa.array(numbers, pa.int64()), malformed)


def _with_lines(malformed: list[Malformed], data: bytes, delimiter: str, fields: int) -> list[Malformed]:
    """The same rows, their messages with the line on which each starts."""
    with io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="") as text:
        reader, starts, start = csv.reader(text, delimiter=delimiter), [], 1
        for cells in reader:
            if cells and len(cells) != fields:
                starts.append(start)
            start = reader.line_num + 1
    if len(starts) != len(malformed):  # Arrow splits these rows in another way
        return malformed
    return [replace(bad, message=f"line {n}: {bad.message}") for bad, n in zip(malformed, starts, strict=True)]


def _read_jsonl(data: bytes, file: str, wanted: dict[str, str], lists: AbstractSet[str]) -> Sheet:
    _check_utf8(data, file)
    # Numbers stay spelt as they are in the file.
    decode = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).decode
    cells: dict[str, list[str]] = {column: [] for column in wanted}
    numbers: list[int] = []
    malformed: list[Malformed] = []
    names: dict[str, None] = {}
    key_column = next(iter(wanted))
    number = 0
    for line_number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        number += 1
        row: Any = None
        try:
            row = decode(line.decode())
            names.update(dict.fromkeys(row))
            texts = [
                _list_of(value, column)
                if column in lists and isinstance(value := row.get(column), list)
                else _text_of(row.get(column), column)
                for column in wanted
            ]
        except (ValueError, AttributeError, TypeError) as error:
            key = row.get(key_column) if isinstance(row, dict) else None
            reason = f"the line is not a JSON object ({error})" if not isinstance(row, dict) else str(error)
            named = key if isinstance(key, str) and key.isprintable() else ""
            malformed.append(Malformed(number, named, f"line {line_number}: {reason}"))
            continue
        numbers.append(number)
        for column, text in zip(wanted, texts, strict=True):
            cells[column].append(text)
    if numbers:
        check_columns(file, wanted, list(names))
    table = pa.table({column: pa.array(values, pa.string()) for column, values in cells.items()})
    return Sheet(table, pa.array(numbers, pa.int64()), malformed)


def _list_of(value: list[Any], column: str) -> str:
    """A JSON list as a cell. Raises ValueError where its items are no texts."""
    return canonical_json([_text_of(item, column) for item in value]).decode()


def _text_of(value: Any, column: str) -> str:
    """A JSON value as a cell. Raises ValueError where it has no one spelling."""
    if isinstance(value, str):
        if not value.isascii():
            value.encode()  # a lone surrogate, as \ud800, is no text: UnicodeEncodeError is a ValueError
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    raise ValueError(f"{column!r} holds a {'list' if isinstance(value, list) else 'mapping'}; a text is needed")


def _read_parquet(
    data: bytes, file: str, wanted: dict[str, str], lists: AbstractSet[str], media: AbstractSet[str]
) -> Sheet:
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(pa.BufferReader(data))
        schema = opened.schema_arrow
        check_columns(file, wanted, schema.names)
        # Columns of bytes are not read here: each cell is when its sample is made.
        there = [name for name in wanted if not (name in media and holds_bytes(schema.field(name).type))]
        table = opened.read(columns=there, use_threads=False)
        empty = {name: _absent_in(opened, name) for name in wanted if name not in there}
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(Problem(file, f"cannot be read ({error}).", "It must be a whole Parquet file.")) from error
    return _sheet_of(table, file, wanted, lists, empty)


def _read_arrow(
    data: bytes, file: str, wanted: dict[str, str], lists: AbstractSet[str], media: AbstractSet[str]
) -> Sheet:
    try:
        table = arrow_table(pa.BufferReader(data))
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(Problem(file, f"cannot be read ({error}).", "It must be a whole Arrow file.")) from error
    check_columns(file, wanted, table.column_names)
    empty = {
        name: _is_absent(table[name]) for name in wanted if name in media and holds_bytes(table.schema.field(name).type)
    }
    return _sheet_of(table, file, wanted, lists, empty)


def arrow_table(source: Any) -> pa.Table:
    """An Arrow file or stream (as Hugging Face saves them) as a table."""
    try:
        return pa.ipc.open_file(source).read_all()
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source).read_all()


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds files themselves: bytes, or Hugging Face's struct of bytes and path."""
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and holds_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_absent(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_struct(column.type):
        return pc.or_(pc.is_null(column), pc.is_null(pc.struct_field(column, "bytes")))
    return pc.is_null(column)


def _absent_in(opened: Any, name: str) -> pa.ChunkedArray:
    """Which cells of a Parquet file's column of bytes are null, one row group in memory at a time."""
    chunks = []
    for group in range(opened.num_row_groups):
        chunks += _is_absent(opened.read_row_group(group, columns=[name], use_threads=False)[name]).chunks
    return pa.chunked_array(chunks, pa.bool_())


def _sheet_of(
    table: pa.Table, file: str, wanted: dict[str, str], lists: AbstractSet[str], empty: dict[str, pa.ChunkedArray]
) -> Sheet:
    """The wanted columns as strings; those in `empty`, which says where they have no bytes, as references."""
    columns, problems = {}, []
    name_of_file = file.rstrip("/").rsplit("/", 1)[-1]
    names = _class_names(table.schema)
    for column, setting in wanted.items():
        if column in empty:
            absent = enumerate(empty[column].to_pylist())
            cells = ["" if gone else pack(["table", name_of_file, row, column]) for row, gone in absent]
            columns[column] = pa.chunked_array([pa.array(cells, pa.string())])
            continue
        values = table[column]
        if column in lists and pa.types.is_list(values.type) | pa.types.is_large_list(values.type):
            cells = [
                "" if one is None else canonical_json([str(item) for item in one]).decode()
                for one in values.to_pylist()
            ]
            columns[column] = pa.chunked_array([pa.array(cells, pa.string())])
            continue
        try:
            if column in names and pa.types.is_integer(values.type):
                values = pa.chunked_array(
                    [pa.array([_named(names[column], one) for one in values.to_pylist()], pa.string())]
                )
            columns[column] = values.cast(pa.string()).fill_null("")
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            what = f"column {column!r} ({setting}) holds {table[column].type}."
            problems.append(Problem(file, what, "It must hold strings or numbers."))
    if problems:
        raise SourceError(problems)
    rows = len(next(iter(columns.values()))) if columns else 0
    return Sheet(pa.table(columns), pa.array(range(1, rows + 1), pa.int64()))


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Names of the classes that Hugging Face's columns hold the numbers of."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {name: one["names"] for name, one in features.items() if isinstance(one, dict) and "names" in one}


def _named(names: Sequence[str], number: int | None) -> Json:
    return names[number] if number is not None and 0 <= number < len(names) else number and str(number)
