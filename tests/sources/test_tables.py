from __future__ import annotations

import io
import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from mmcore.errors import SourceError
from mmcore.sources.tables import read_sheet

WANTED = {"id": "data.columns.key", "label": "data.columns.label", "image": "data.modalities.image.column"}
ROWS = [("a", "x", "i/a.png"), ("b", "y", ""), ("c", 'x,"z"\nw', "i/c.png")]


def _csv(delimiter: str) -> bytes:
    quoted = [[f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row] for row in ROWS]
    lines = [delimiter.join(["other", "id", "label", "image"])]
    lines += [delimiter.join(["1", *row]) for row in quoted]
    return "\r\n".join(lines).encode()


def _parquet() -> bytes:
    file = io.BytesIO()
    columns = dict(zip(WANTED, map(list, zip(*ROWS, strict=True)), strict=True))
    columns["image"] = [cell or None for cell in columns["image"]]
    parquet.write_table(pa.table(columns), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("m.csv", _csv(",")),
        ("m.CSV", b"\xef\xbb\xbf" + _csv(",")),
        ("m.tsv", _csv("\t")),
        ("m.jsonl", "\n".join(json.dumps(dict(zip(WANTED, row, strict=True))) for row in ROWS).encode()),
        ("m.parquet", _parquet()),
    ],
)
def test_all_formats_give_the_same_rows(file: str, data: bytes) -> None:
    sheet = read_sheet(data, file, WANTED)
    assert [tuple(row.values()) for row in sheet.table.to_pylist()] == ROWS
    assert sheet.numbers.to_pylist() == [1, 2, 3]
    assert sheet.malformed == []


def test_numbers_are_spelt_as_in_the_file() -> None:
    data = b'{"id": 7, "label": 1.50, "image": null}\n\n{"id": true, "label": 12345678901234567890123, "image": "p"}\n'
    rows = read_sheet(data, "m.jsonl", WANTED).table.to_pylist()
    assert [tuple(row.values()) for row in rows] == [("7", "1.50", ""), ("true", "12345678901234567890123", "p")]
    rows = read_sheet(b"id,label,image\n007,1e3,NULL\n", "m.csv", WANTED).table.to_pylist()
    assert [tuple(row.values()) for row in rows] == [("007", "1e3", "NULL")]


def test_rows_that_cannot_be_read_are_named_and_the_others_kept() -> None:
    sheet = read_sheet(b'id,label,image\na,x,p\nb,x\n"c\n1",x,p,q\nd,x,p\n', "m.csv", WANTED)
    assert sheet.table["id"].to_pylist() == ["a", "d"]
    assert sheet.numbers.to_pylist() == [1, 4]
    assert [(bad.number, bad.key) for bad in sheet.malformed] == [(2, "b"), (3, "c\n1")]
    assert [bad.message for bad in sheet.malformed] == [
        "line 3: the row has 2 fields, and the header 3",
        "line 4: the row has 4 fields, and the header 3",
    ]

    lines = [
        '{"id": "a", "label": "x", "image": "p"}',
        '{"id": ',
        "[1]",
        '{"id": "d", "label": ["x"]}',
        r'{"id":"\ud800"}',
    ]
    sheet = read_sheet("\n".join(lines).encode(), "m.jsonl", WANTED)
    assert sheet.table["id"].to_pylist() == ["a"]
    assert [(bad.number, bad.key) for bad in sheet.malformed] == [(2, ""), (3, ""), (4, "d"), (5, "")]
    assert read_sheet(b"\n\n[1]\n", "m.jsonl", WANTED).malformed[0].message.startswith("line 3: the line is not a JSON")


def test_a_cell_may_be_longer_than_a_block() -> None:
    long = "word " * 500_000
    sheet = read_sheet(f'id,label,image\na,x,"{long}"\nb,x,p\n'.encode(), "m.csv", WANTED)
    assert sheet.table["image"].to_pylist() == [long, "p"]


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        ("m.csv", b"", "empty"),
        ("m.csv", b"\n\n", "no column 'id'"),
        ("m.csv", b"id;label;image\na;x;p\n", "separated by ';'"),
        ("m.csv", b"id,lable,image\na,x,p\n", r"Did you mean 'lable'\? Its columns: 'id', 'lable', 'image'"),
        ("m.csv", b"id,label,image,label\na,x,p,x\n", "2 columns 'label'"),
        ("m.csv", "id,label,image\na,garçon,p\n".encode("latin-1"), "line 2 is not valid UTF-8"),
        ("m.jsonl", b'{"id": "a", "image": "p"}\n', "no column 'label'"),
        ("m.parquet", b"PAR1 and more", "cannot be read"),
        ("m.xlsx", b"PK", "Use .csv"),
    ],
)
def test_faults_of_a_file_name_it_and_what_to_do(file: str, data: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        read_sheet(data, file, WANTED)
    assert all(problem.where == file and problem.fix for problem in caught.value.problems)


def test_all_missing_columns_are_named_at_once() -> None:
    with pytest.raises(SourceError) as caught:
        read_sheet(b"Id,picture\na,x\n", "m.csv", WANTED)
    assert len(caught.value.problems) == 3
    with pytest.raises(SourceError) as caught:
        read_sheet(b"id;label;image\na;x;p\n", "m.csv", WANTED)
    (problem,) = caught.value.problems
    assert problem.what == "has no columns 'id', 'label', 'image'."
    with pytest.raises(SourceError, match=r"'c19' and 5 more\.$"):
        read_sheet((",".join(["id", "label", *(f"c{n}" for n in range(2, 25))]) + "\n").encode(), "m.csv", WANTED)


def test_parquet_columns_that_are_no_text() -> None:
    file = io.BytesIO()
    parquet.write_table(pa.table({"id": [1, 2], "label": [["x"], []], "image": ["p", None]}), file)
    with pytest.raises(SourceError, match=r"'label' \(data.columns.label\) holds list"):
        read_sheet(file.getvalue(), "m.parquet", WANTED)
