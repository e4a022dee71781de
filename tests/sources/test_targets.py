from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mmcore.config.data import SplitConfig
from mmcore.errors import DataError
from mmcore.sources.manifest import read_manifest
from mmcore.sources.targets import divided, targets, torn_groups
from tests.sources.test_kinds import _config

TEXT = {"text": {"kind": "text", "column": "text", "inline": True}}


def _read(folder: Path, header: str, *rows: str, **settings: Any):
    (folder / "rows.csv").write_text("\n".join([header, *rows]) + "\n")
    return read_manifest(_config(str(folder / "rows.csv"), TEXT, **settings), learnable=False)


def test_several_labels(tmp_path: Path) -> None:
    rows = ["a,b; a;b,train,w", "b,[],train,w", "c,,train,w"]
    manifest = _read(tmp_path, "id,label,split,text", *rows, task="multilabel")
    assert targets(manifest.table["label"], "multilabel") == [["a", "b"], []]
    assert [(reject.key, reject.code) for reject in manifest.rejects] == [("c", "missing-label")]


def test_numbers(tmp_path: Path) -> None:
    rows = ["a,1e-3,train,w", "b,nan,train,w", "c,two,train,w", "d,-7,val,w", "e,inf,val,w", "f,,val,w"]
    manifest = _read(tmp_path, "id,label,split,text", *rows, task="regression")
    assert targets(manifest.table["label"], "regression") == [0.001, -7.0]
    assert [(reject.key, reject.code) for reject in manifest.rejects] == [
        ("b", "bad-target"),
        ("c", "bad-target"),
        ("e", "bad-target"),
        ("f", "missing-label"),
    ]


def test_no_labels_and_further_columns(tmp_path: Path) -> None:
    columns = {"label": None, "group": "who", "weight": "w", "keep": ["site", "age"]}
    rows = ["a,train,x,p,1,north,7", "b,train,x,p,-1,south,8", "c,val,x,q,,north,"]
    manifest = _read(tmp_path, "id,split,text,who,w,site,age", *rows, columns=columns)
    assert manifest.extras == ("group", "weight", "meta.site", "meta.age")
    found = manifest.table.select(["key", "label", *manifest.extras]).to_pydict()
    assert found == {
        "key": ["a", "c"],
        "label": [None, None],
        "group": ["p", "q"],
        "weight": ["1", ""],
        "meta.site": ["north", "north"],
        "meta.age": ["7", ""],
    }
    assert [reject.code for reject in manifest.rejects] == ["bad-target"]


def test_a_group_in_two_splits(tmp_path: Path) -> None:
    rows = ["a,x,train,w,ann", "b,x,test,w,ann", "c,x,val,w,bob", "d,x,train,w,", "e,x,test,w,"]
    with pytest.raises(DataError, match=r"1 groups of column 'who' .* 'ann' in test and train"):
        _read(tmp_path, "id,label,split,text,who", *rows, columns={"group": "who"})
    split = {"by": "who", "seed": 3}
    table = _read(tmp_path, "id,label,split,text,who", *rows, columns={"group": "who"}, split=split).table
    assert torn_groups(table["group"], table["split"]) == []


@given(st.lists(st.text(max_size=5), max_size=30), st.lists(st.text(max_size=5), max_size=5))
def test_a_key_keeps_its_split_whatever_comes_or_goes(keys: list[str], more: list[str]) -> None:
    settings = SplitConfig(ratios={"train": 3, "val": 1, "test": 1})
    before = dict(zip(keys, divided(keys, settings).to_pylist(), strict=True))
    both = more + keys[::-1]
    after = dict(zip(both, divided(both, settings).to_pylist(), strict=True))
    assert {key: after[key] for key in before} == before


def test_the_shares_are_met_on_average() -> None:
    keys = [f"k{n}" for n in range(20_000)]
    settings = SplitConfig(ratios={"train": 7, "val": 1, "test": 2}, seed=5)
    counts = pa.chunked_array([divided(keys, settings)]).value_counts().to_pylist()
    for item in counts:
        share = {"train": 0.7, "val": 0.1, "test": 0.2}[item["values"]]
        assert abs(item["counts"] / 20_000 - share) < 4 * math.sqrt(share * (1 - share) / 20_000)
    assert divided(keys, settings) != divided(keys, SplitConfig(ratios=settings.ratios, seed=6))
    only = divided(keys[:1000], SplitConfig(ratios={"train": 1, "val": 0, "test": 0}))
    assert set(only.to_pylist()) == {"train"}


@pytest.mark.parametrize("ratios", [{}, {"train": 0}, {"train": -1, "val": 2}])
def test_ratios_that_make_no_sense(ratios: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="ratios must be positive"):
        SplitConfig(ratios=ratios)
