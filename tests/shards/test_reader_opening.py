from __future__ import annotations

from dataclasses import replace

import pytest

from mmcore.errors import ConfigError, DamagedError, LayoutError
from mmcore.parallel import Pool
from mmcore.records import Dataset
from mmcore.shards import ShardDataset, ShardStream, open_dataset
from mmcore.shards.opening import find_dataset
from mmcore.shards.prepare import prepare
from mmcore.shards.read import read_members
from tests.shards.conftest import Bench, Tally


@pytest.fixture
def dataset(bench: Bench, serial: Pool, tally: Tally) -> Dataset:
    made = prepare(bench.write(), bench.store, serial, tally)
    _record(bench, "r-1", "2026-01-01", made.digest)
    return made


def _record(bench: Bench, run: str, started: str, digest: str | None, name: str = "r") -> None:
    record = {"run_id": run, "name": name, "started": started, "dataset": digest}
    bench.store.publish_json(f"runs/{run}/run.json", record)


def test_samples_are_those_that_extraction_reads(bench: Bench, dataset: Dataset) -> None:
    shards = open_dataset(bench.store.root)
    samples = shards.read(range(len(shards)))
    assert len(samples) == 60
    for name in ("word", "note"):
        read = [pair for entry in dataset.shards for pair in read_members(bench.store, entry, name)]
        assert [(s["__key__"], s[name]) for s in samples] == [
            (key, data[0] if isinstance(data, tuple) else data) for key, data in read
        ]
    assert {s["__key__"]: s["label"] for s in samples} == {key: row[0] for key, row in bench.rows.items()}


def test_splits_and_decoded_values(bench: Bench, dataset: Dataset) -> None:
    val = open_dataset(bench.store, splits=["val"])
    assert len(val) == sum(entry.samples for entry in dataset.of("val"))
    assert ShardDataset(val, decode=True)[0]["word"].startswith("word ")
    batch = next(iter(ShardStream(val, 3, decode=True, fields=["word"], shuffle=False)))
    assert [set(sample) for sample in batch] == [{"__key__", "label", "word"}] * 3
    with pytest.raises(ConfigError, match="no split 'dev'. There are: train, val, test"):
        open_dataset(bench.store, splits=["dev"])


def test_which_data_set(bench: Bench, dataset: Dataset) -> None:
    other = replace(dataset, shards=dataset.shards[:1])
    bench.store.publish_json(f"datasets/{other.digest}.json", other.as_json())
    _record(bench, "s-1", "2026-02-01", other.digest, name="s")
    _record(bench, "s-2", "2026-03-01", None, name="s")
    assert find_dataset(bench.store) == other.digest
    assert find_dataset(bench.store, name="r") == dataset.digest
    assert find_dataset(bench.store, run="r-1") == dataset.digest
    assert find_dataset(bench.store, dataset.digest[:9]) == dataset.digest
    for arguments, why in (
        ({"dataset": ""}, "2 data sets whose digest starts with ''"),
        ({"run": "r-9"}, "no run 'r-9'"),
        ({"run": "s-2"}, "no finished data set"),
        ({"name": "t"}, "no finished data set"),
    ):
        with pytest.raises(ConfigError, match=why):
            find_dataset(bench.store, **arguments)


def test_removed_samples_are_left_out(bench: Bench, dataset: Dataset) -> None:
    gone = dict.fromkeys(["k0003", "k0010"], "duplicate")
    less = replace(dataset, removed=gone)
    bench.store.publish_json(f"datasets/{less.digest}.json", less.as_json())
    shards = open_dataset(bench.store, less.digest)
    assert set(open_dataset(bench.store, dataset.digest).keys) - set(shards.keys) == set(gone)
    assert sorted(s["__key__"] for batch in ShardStream(shards, 8) for s in batch) == sorted(shards.keys)


def test_damaged_shards_of_a_data_set(bench: Bench, dataset: Dataset) -> None:
    tar, index = dataset.shards[0].tar, dataset.shards[0].index
    assert tar is not None
    assert index is not None
    data = bytearray(bench.store.read_bytes(tar.path))
    data[512] ^= 1
    bench.store.publish_bytes(tar.path, bytes(data))
    with pytest.raises(DamagedError, match=rf"{tar.path}: member .* is damaged"):
        open_dataset(bench.store).read(range(60))
    bench.store.publish_bytes(index.path, b"")
    with pytest.raises(DamagedError, match="not the index"):
        open_dataset(bench.store)
    bench.store.publish_json("format.json", {"layout": 99})
    with pytest.raises(LayoutError):
        open_dataset(bench.store)
