"""Indexes with signatures and with several members per sample, as columns that may be there or not."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from mmcore.config.quality import DuplicatesConfig
from mmcore.modalities import minhash
from mmcore.quality.duplicates import find_duplicates, removals
from mmcore.records import ShardEntry
from mmcore.storage import Store

TEXT = "The quick brown fox jumps over the lazy dog, and the dog sleeps on in the warm afternoon sun. " * 3


def _shard(store: Store, split: str, columns: dict[str, pa.Array]) -> ShardEntry:
    with store.scratch() as folder:
        parquet.write_table(pa.table(columns), folder / "index")
        index = store.publish_content(folder / "index", "shards", "parquet")
    return ShardEntry(f"recipe-{split}", split, len(columns["key"]), {}, "labels", {}, None, index)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path).open()


def _columns(keys: list[str], **more: pa.Array) -> dict[str, pa.Array]:
    return {"key": pa.array(keys), "label": pa.array(["a"] * len(keys)), **more}


def test_edited_texts_and_changed_bits_are_found_across_splits(store: Store) -> None:
    edited = TEXT.replace("warm afternoon", "late afternoon", 1).upper()
    texts = {"train": [TEXT, "quite another text, " * 9], "test": [edited, "nothing of the kind in here " * 5]}
    look = bytes([100] * 64) + b"\xff"
    pictures = {"train": [bytes(8) + look, None], "test": [bytes(7) + b"\x11" + look, bytes([255] * 8) + look]}
    entries = [
        _shard(
            store,
            split,
            _columns(
                [f"{split}0", f"{split}1"],
                **{
                    "text.sha256": pa.array([f"{split}0", f"{split}1"]),
                    "text.signature": pa.array([minhash.signature(text) for text in texts[split]], pa.binary()),
                    "image.sha256": pa.array([f"{split}2", None]),
                    "image.signature": pa.array(pictures[split], pa.binary()),
                },
            ),
        )
        for split in ("train", "test")
    ]
    wanted = DuplicatesConfig(remove="across-splits")
    report = find_duplicates(entries, {"text": "text", "image": "image"}, store, wanted)
    for name in ("text", "image"):
        assert report["modalities"][name]["pairs"]["train+test"]["samples"] == {"train": 1, "test": 1}
        assert report["modalities"][name]["exact"] == 0
    assert removals(store, report, wanted) == {0: {"train0": "duplicate-across-splits"}}


def test_equal_sources_and_equal_lists_are_exact(store: Store) -> None:
    lists = pa.array([["x", "y"], ["x"], ["x", "y"], None])
    sources = pa.array(["1", "2", "3", "2"])
    entry = _shard(store, "train", _columns(list("abcd"), **{"film.sha256": lists, "film.source_sha256": sources}))
    report = find_duplicates([entry], {"film": "video"}, store, DuplicatesConfig())
    clusters = [{one["key"] for one in example["samples"]} for example in report["modalities"]["film"]["examples"]]
    assert clusters == [{"a", "c"}, {"b", "d"}]


def test_a_table_that_went_is_made_again(store: Store) -> None:
    entry = _shard(store, "train", _columns(list("ab"), **{"text.sha256": pa.array(["1", "1"])}))
    report = find_duplicates([entry], {"text": "text"}, store, DuplicatesConfig())
    store.remove(report["table"]["path"])
    assert find_duplicates([entry], {"text": "text"}, store, DuplicatesConfig()) == report
    assert store.exists(report["table"]["path"])
