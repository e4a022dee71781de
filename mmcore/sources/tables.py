"""Reading one manifest file (CSV, TSV, JSONL, Parquet) as columns of strings."""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
from pyarrow import csv as pa_csv

from mmcore.errors import Problem, SourceError

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


def read_sheet(data: bytes, file: str, wanted: dict[str, str]) -> Sheet:
    """The columns named by `wanted` (column to the setting that names it) of the manifest whose bytes are `data`.

    Raises SourceError with every fault of the file and its columns.
    """
    extension = file.rsplit(".", 1)[-1].lower()
    if not data:
        raise SourceError(Problem(file, "the file is empty.", "A manifest needs column names and rows."))
    if extension in ("csv", "tsv"):
        return _read_csv(data, file, wanted, "," if extension == "csv" else "\t")
    if extension in ("jsonl", "ndjson"):
        return _read_jsonl(data, file, wanted)
    if extension in ("parquet", "pq"):
        return _read_parquet(data, file, wanted)
    raise SourceError(
        Problem(file, f"manifests of type .{extension} cannot be read.", "Use .csv, .tsv, .jsonl or .parquet.")
    )


def _check_columns(file: str, wanted: dict[str, str], found: Sequence[str], hint: str = "") -> None:
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
    _check_columns(file, wanted, header, hint)
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


def _read_jsonl(data: bytes, file: str, wanted: dict[str, str]) -> Sheet:
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
            texts = [_text_of(row.get(column), column) for column in wanted]
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
        _check_columns(file, wanted, list(names))
    table = pa.table({column: pa.array(values, pa.string()) for column, values in cells.items()})
    return Sheet(table, pa.array(numbers, pa.int64()), malformed)


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


def _read_parquet(data: bytes, file: str, wanted: dict[str, str]) -> Sheet:
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(pa.BufferReader(data))
        _check_columns(file, wanted, opened.schema_arrow.names)
        table = opened.read(columns=list(wanted))
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(Problem(file, f"cannot be read ({error}).", "It must be a whole Parquet file.")) from error
    columns, problems = {}, []
    for column, setting in wanted.items():
        try:
            columns[column] = table[column].cast(pa.string()).fill_null("")
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            what = f"column {column!r} ({setting}) holds {table[column].type}."
            problems.append(Problem(file, what, "It must hold strings or numbers."))
    if problems:
        raise SourceError(problems)
    return Sheet(pa.table(columns), pa.array(range(1, table.num_rows + 1), pa.int64()))
