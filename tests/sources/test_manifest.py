from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest

from mmcore.config import DataConfig
from mmcore.errors import DataError, SourceError
from mmcore.records import count_by
from mmcore.sources.manifest import read_manifest

MODALITIES = {
    "image": {"kind": "image", "column": "image"},
    "text": {"kind": "text", "column": "text", "inline": True},
}
HEADER = "id,label,split,image,text"
GOOD = [
    "a,x,train,i/a.png,word",
    "b,y,train,i/b.png,",
    "c,x,val,,word",
    "d,y,test,i/d.png,word",
]


def _config(manifest: Any, **settings: Any) -> DataConfig:
    return DataConfig.model_validate({"manifest": manifest, "modalities": MODALITIES, **settings})


def _write(folder: Path, rows: Sequence[str], name: str = "m.csv") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join([HEADER, *rows]) + "\n")
    return str(folder / name)


def test_a_good_manifest(tmp_path: Path) -> None:
    manifest = read_manifest(_config(_write(tmp_path, GOOD)))
    assert manifest.rows == 4
    assert manifest.rejects == ()
    assert manifest.roots == (str(tmp_path),)
    assert manifest.table.to_pydict() == {
        "key": ["a", "b", "c", "d"],
        "label": ["x", "y", "x", "y"],
        "split": ["train", "train", "val", "test"],
        "media.image": ["i/a.png", "i/b.png", None, "i/d.png"],
        "media.text": ["word", None, "word", "word"],
        "partition": [0, 0, 0, 0],
    }


def test_each_faulty_row_is_set_aside_with_one_reason(tmp_path: Path) -> None:
    faulty = {
        ",x,train,p,w": "missing-key",
        "a/b,x,train,p,w": "bad-key",
        ".hidden,x,train,p,w": "bad-key",
        '"s\n0",x,train,p,w': "bad-key",
        f"{'k' * 90},x,train,p,w": "bad-key",
        "twice,x,train,p,w": "duplicate-key",
        "twice,x,test,q,w": "duplicate-key",
        "twice,,test,q,w": "duplicate-key",
        "nolabel,,train,p,w": "missing-label",
        "holdout,x,holdout,p,w": "unknown-split",
        "nothing,x,train,,": "no-modality",
        "short,x,train": "malformed-row",
    }
    manifest = read_manifest(_config(_write(tmp_path, [*GOOD, *faulty])))
    assert manifest.rows == len(GOOD) + len(faulty)
    assert manifest.table["key"].to_pylist() == ["a", "b", "c", "d"]
    assert count_by(reject.code for reject in manifest.rejects) == count_by(faulty.values())
    by_source = {reject.source: reject.code for reject in manifest.rejects}
    assert by_source == {f"m.csv, row {n}": code for n, code in enumerate(faulty.values(), start=5)}
    assert all(reject.message and not reject.modality and not reject.circumstantial for reject in manifest.rejects)


@pytest.mark.parametrize("key", ["v1.2", "50%", "S0", "s0", "ключ", "with space", "-rf", "CON", "k" * 83])
def test_keys_that_are_fine(tmp_path: Path, key: str) -> None:
    manifest = read_manifest(_config(_write(tmp_path, [*GOOD, f"{key},x,train,p,w"])))
    assert manifest.rejects == ()
    assert manifest.table["key"].to_pylist()[-1] == key


def test_partitions_are_joined_in_name_order(tmp_path: Path) -> None:
    second = _write(tmp_path / "two", GOOD[2:], "2.csv")
    first = _write(tmp_path / "one", GOOD[:2], "1.csv")
    manifest = read_manifest(_config([second, first]))
    assert manifest.table["key"].to_pylist() == ["a", "b", "c", "d"]
    assert manifest.table["partition"].to_pylist() == [0, 0, 1, 1]
    assert manifest.roots == (str(tmp_path / "one"), str(tmp_path / "two"))
    assert read_manifest(_config(str(tmp_path / "*" / "?.csv"))).table.equals(manifest.table)
    assert read_manifest(_config([second, first], root=str(tmp_path))).roots == (str(tmp_path),) * 2
    _write(tmp_path / "one", [*GOOD[:2], "e,x,train,p,w"], "1.csv")
    _write(tmp_path / "two", [*GOOD[2:], "e,x,test,p,w"], "2.csv")
    assert count_by(r.code for r in read_manifest(_config([first, second])).rejects) == {"duplicate-key": 2}


def test_only_the_first_rows(tmp_path: Path) -> None:
    _write(tmp_path, [*GOOD[:2], "short,x", GOOD[2]], "1.csv")
    _write(tmp_path, [GOOD[3], "e,x,train,p,w"], "2.csv")
    manifest = read_manifest(_config(str(tmp_path / "*.csv"), limit=5))
    assert (manifest.rows, len(manifest.rejects), manifest.table["key"].to_pylist()) == (5, 1, ["a", "b", "c", "d"])
    with pytest.raises(DataError, match=r"data.limit: 3.*no usable row has split 'val'"):
        read_manifest(_config(str(tmp_path / "*.csv"), limit=3))


def test_manifests_on_a_bucket(tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    files.pipe("/manifests/1.csv", "\n".join([HEADER, *GOOD]).encode())
    manifest = read_manifest(_config("memory://manifests/*.csv"))
    assert manifest.table["key"].to_pylist() == ["a", "b", "c", "d"]
    assert manifest.roots == ("memory:///manifests",)
    assert read_manifest(_config("memory://manifests/1.csv")).roots == ("memory://manifests",)
    with pytest.raises(SourceError, match="there is no such file"):
        read_manifest(_config("memory://manifests/2.csv"))


def test_all_faults_of_all_files_at_once(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("id,lable,split,image,text\na,x,train,p,w\n")
    (tmp_path / "2.csv").write_bytes(b"")
    with pytest.raises(SourceError) as caught:
        read_manifest(_config([str(tmp_path / name) for name in ("1.csv", "2.csv", "3.csv")] + [str(tmp_path)]))
    assert len(caught.value.problems) == 4
    assert "Did you mean 'lable'?" in str(caught.value)
    assert "this folder holds no class folders" in str(caught.value)
    with pytest.raises(SourceError, match="no file matches"):
        read_manifest(_config(str(tmp_path / "*.parquet")))
    with pytest.raises(SourceError, match="the list is empty"):
        read_manifest(_config([]))
    _write(tmp_path, [], "header.csv")
    with pytest.raises(SourceError, match="no rows"):
        read_manifest(_config(str(tmp_path / "header.csv")))


def test_data_that_nothing_can_be_learned_from(tmp_path: Path) -> None:
    one_class = ["a,x,train,p,w", "b,x,train,p,w", "c,,val,p,w", "d,y,test,p,w"]
    with pytest.raises(DataError) as caught:
        read_manifest(_config(_write(tmp_path, one_class)))
    text = str(caught.value)
    assert len(caught.value.problems) == 3
    assert "no usable row has split 'val' (train 2, val 0, test 1; set aside: missing-label 1)" in text
    assert "one label, 'x'" in text
    assert "test has a label that no row of train has: 'y'" in text


def test_faults_of_all_rows_come_with_an_example_and_the_rule(tmp_path: Path) -> None:
    rows = ["i/a,x,train,p,w", "b,x,TRAIN,p,w", "c,y,dev,p,w", '"d\n",x', "e,x"]
    with pytest.raises(DataError) as caught:
        read_manifest(_config(_write(tmp_path, rows)))
    text = str(caught.value)
    assert "'i/a' (m.csv, row 1) is no usable key: the key holds '/'. Keys hold no slash" in text
    assert "at most 85 bytes" in text
    assert "the splits 'TRAIN', 'dev' are unknown. Use train, val, test, spelt so." in text
    assert "the first malformed row is m.csv, row 4: line 5: the row has 2 fields, and the header 5" in text
    assert len(caught.value.problems) == 6


def test_data_behind_a_library_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for manifest in ("s3://bucket/m.csv", "s3://bucket/*.csv"):
        with pytest.raises(SourceError, match=r"not installed .* Run: pip install 'mmcore\[s3\]'"):
            read_manifest(_config(manifest))


EDGE_CASES = {
    "absolute_path": None, "bad_json": "malformed-row", "bom_crlf": None, "directory_as_file": None,
    "dot_in_id": None, "duplicate_ids": "duplicate-key", "empty": SourceError, "empty_label": "missing-label",
    "good": None, "header_only": SourceError, "id_in_two_splits": "duplicate-key", "ids_differ_in_case": None,
    "json_types": None, "latin1": SourceError, "long_row": "malformed-row", "missing_file": None,
    "no_label_column": SourceError, "no_modality": "no-modality", "one_class": None, "only_text": None,
    "path_escape": None, "quoted_newline": "bad-key", "same_media_two_splits": None, "semicolons": SourceError,
    "short_row": "malformed-row", "slash_in_id": "bad-key", "unknown_split": "unknown-split", "url": None,
}  # fmt: skip
"""What the manifest's first fault is; paths are judged later, where they are read."""


def test_manifests_of_the_edge_cases(edge_cases_dir: Path) -> None:
    found = {path.stem.removeprefix("manifest-"): path for path in edge_cases_dir.glob("manifest-*")}
    assert found.keys() == EDGE_CASES.keys()
    modalities = {name: {"kind": "text", "column": name} for name in ("image", "audio", "text")}
    modalities_of = {".jsonl": {"text": modalities["text"]}, ".csv": modalities}
    for name, path in found.items():
        config = DataConfig.model_validate({"manifest": str(path), "modalities": modalities_of[path.suffix]})
        expected = EDGE_CASES[name]
        if expected is SourceError:
            with pytest.raises(SourceError):
                read_manifest(config)
            continue
        # They are too small to learn from; that message counts what was set aside.
        with pytest.raises(DataError) as caught:
            read_manifest(config)
        assert (f"set aside: {expected}" in str(caught.value)) == (expected is not None), name
        assert expected is not None or "set aside" not in str(caught.value), name


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ("a,x,holdout,p\n", "the splits 'holdout' are unknown"),
        ("a,x,train,p\na,y,train,q\n", "2 rows have this key: 'a' (rows.csv, row 1)"),
    ],
)
def test_where_no_row_is_left_an_example_says_why(tmp_path: Path, rows: str, what: str) -> None:
    (tmp_path / "rows.csv").write_text("id,label,split,image\n" + rows)
    data = DataConfig.model_validate(
        {"manifest": str(tmp_path / "rows.csv"), "modalities": {"image": {"kind": "image", "column": "image"}}}
    )
    with pytest.raises(DataError) as caught:
        read_manifest(data, learnable=False)
    assert what in str(caught.value)
