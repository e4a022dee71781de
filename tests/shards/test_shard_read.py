from __future__ import annotations

from pathlib import Path

import pytest

from mmcore.config.media import TextSettings
from mmcore.errors import DamagedError
from mmcore.records import ShardEntry
from mmcore.shards.foresee import entries_of
from mmcore.shards.read import read_index, read_members
from mmcore.shards.recipe import WRITER_VERSION, ShardJob, ShardRecipe
from mmcore.shards.write import make_shard
from mmcore.storage import Store

TEXT = {"kind": "text", "max_chars": 1000, "max_bytes": 1000, "several": False, "version": TextSettings.version}
WORDS = ["one", None, "three" * 100, "four"]


def _made(store: Store) -> ShardEntry:
    body = {
        "kind": "shard",
        "writer": WRITER_VERSION,
        "task": "classes",
        "part_bytes": None,
        "extras": {},
        "split": "val",
        "bad_modality": "keep",
        "filters": [],
        "modalities": {"note": TEXT, "word": TEXT},
        "keys": ["a", "b.b", "c", "d"],
        "labels": ["x", "y", "x", "y"],
        "media": {"note": {"texts": ["n"] * 4}, "word": {"texts": WORDS}},
        "excluded": [],
    }
    return entries_of(make_shard(ShardJob(ShardRecipe.of(body), store, (("/", 4),), 60.0)))[0]


def test_members_come_back_as_they_were_written(store: Store) -> None:
    entry = _made(store)
    assert list(read_members(store, entry, "word")) == [
        (key, word and (word.encode(),)) for key, word in zip(["a", "b.b", "c", "d"], WORDS, strict=True)
    ]
    assert read_index(store, entry)["label"].to_pylist() == ["x", "y", "x", "y"]


def test_every_flipped_bit_of_a_member_is_found(store: Store) -> None:
    entry = _made(store)
    index = read_index(store, entry).to_pydict()
    tar = Path(store.url(entry.tar.path))
    sound = tar.read_bytes()
    for row, word in enumerate(WORDS):
        if word is None:
            continue
        for at in (0, len(word) - 1):
            damaged = bytearray(sound)
            damaged[index["word.offset"][row] + at] ^= 1
            tar.write_bytes(damaged)
            with pytest.raises(DamagedError, match=rf"{tar.name}: member {index['key'][row]}.word .* is damaged"):
                list(read_members(store, entry, "word"))
    tar.write_bytes(sound)
    list(read_members(store, entry, "word"))


def test_truncation_and_absence_are_found(store: Store) -> None:
    entry = _made(store)
    tar, index = (Path(store.url(file.path)) for file in (entry.tar, entry.index))
    last = read_index(store, entry).to_pydict()["word.offset"][3]
    tar.write_bytes(tar.read_bytes()[: last + 2])
    members = read_members(store, entry, "word")
    assert [next(members)[0] for _ in range(3)] == ["a", "b.b", "c"]
    with pytest.raises(DamagedError, match="member d.word .* is cut off: 2 of 4 bytes"):
        next(members)
    tar.unlink()
    with pytest.raises(DamagedError, match="is missing"):
        list(read_members(store, entry, "word"))
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(DamagedError, match="not the index"):
        read_index(store, entry)
    index.unlink()
    with pytest.raises(DamagedError, match="is missing"):
        read_index(store, entry)


def test_shards_on_a_bucket() -> None:
    store = Store("memory://shards-on-a-bucket").open()
    entry = _made(store)
    assert [data for _, data in read_members(store, entry, "note")] == [(b"n",)] * 4


def test_a_shard_that_is_only_foreseen_has_no_files(store: Store) -> None:
    entry = ShardEntry("recipe", "train", 1, {}, None)
    with pytest.raises(ValueError, match="only foreseen"):
        read_index(store, entry)
