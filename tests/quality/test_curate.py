"""Planted duplicates in a real data set: found, shown per pair of splits, and left out of train where asked."""

from __future__ import annotations

import pytest

from mmcore.errors import ConfigError, DataError
from mmcore.parallel import Pool
from mmcore.planning import make_plan
from mmcore.quality.curate import curate, duplicates_line, leakage
from mmcore.records import Dataset, labels_change
from mmcore.report.card import build_card, card_section, publish_card
from mmcore.shards.read import read_dataset
from tests.shards.conftest import Bench, Tally


def _curated(bench: Bench, serial: Pool, **duplicates: object) -> Dataset:
    bench.settings["duplicates"] = {"modalities": ["word"], **duplicates}
    return curate(bench.write(), bench.store, serial, Tally())


def _plant(bench: Bench) -> None:
    """k0000, k0001 and k0005 are of train, k0003 of val, k0004 of test."""
    for key, word in {"k0000": "twin", "k0004": "twin", "k0001": "copy", "k0005": "copy"}.items():
        label, split, _, note = bench.rows[key]
        bench.rows[key] = [label, split, word, note]


def test_duplicates_are_found_and_nothing_is_removed(bench: Bench, serial: Pool) -> None:
    _plant(bench)
    dataset = _curated(bench, serial)
    found = dataset.facts["duplicates"]["modalities"]["word"]
    assert (found["clusters"], found["samples"], found["exact"]) == (2, 4, 4)
    assert found["pairs"] == {"train+test": {"clusters": 1, "samples": {"train": 1, "test": 1}}}
    assert {one["key"] for one in found["examples"][0]["samples"]} == {"k0000", "k0004"}
    assert dataset.removed == {}
    assert leakage(dataset) == {"train+test": 1}
    assert duplicates_line(dataset) == "samples with a duplicate: 4 of word · train and test share 1"
    assert read_dataset(bench.store, dataset.digest) == dataset


def test_what_test_has_is_left_out_of_train(bench: Bench, serial: Pool) -> None:
    _plant(bench)
    as_found = _curated(bench, serial)
    dataset = _curated(bench, serial, remove="across-splits")
    assert dataset.removed == {"k0000": "duplicate-across-splits"}
    changed = [a.split for a, b in zip(as_found.shards, dataset.shards, strict=True) if a != b]
    assert changed == ["train"]
    assert [one.views for one in as_found.shards] == [one.views for one in dataset.shards]
    everything = _curated(bench, serial, remove="all")
    assert everything.removed == {"k0000": "duplicate-across-splits", "k0005": "duplicate"}
    labels = [[shard.labels or "" for shard in one.shards] for one in (as_found, everything)]
    assert labels_change(*labels) == "other duplicates removed"


def test_a_second_time_nothing_is_read(bench: Bench, serial: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    _plant(bench)
    first = _curated(bench, serial, remove="across-splits")
    monkeypatch.setattr("mmcore.quality.duplicates.read_index", lambda *_: pytest.fail("an index is read"))
    assert _curated(bench, serial).facts["duplicates"]["removed"] == {}
    assert first.facts["duplicates"]["table"] == _curated(bench, serial).facts["duplicates"]["table"]


def test_a_plan_foresees_what_is_removed(bench: Bench, serial: Pool) -> None:
    _plant(bench)
    bench.settings["duplicates"] = {"modalities": ["word"], "remove": "all"}
    config = bench.write()
    before = make_plan(config, bench.store)
    assert ("duplicates", "compute") in {(step.name, step.action) for step in before.steps}
    curate(config, bench.store, serial, Tally())
    after = make_plan(config, bench.store)
    assert "duplicates" not in {step.name for step in after.steps}
    encoder = next(step for step in after.steps if step.name == "word encoder")
    assert encoder.digest is not None


def test_a_class_must_stay_in_train(bench: Bench, serial: Pool) -> None:
    for key, (label, split, _, note) in bench.rows.items():
        if label == "odd" and split in ("train", "test"):
            bench.rows[key] = [label, split, "the same", note]
    with pytest.raises(DataError, match="leaves no sample of 'odd' in train"):
        _curated(bench, serial, remove="across-splits")


def test_an_unknown_modality_is_named(bench: Bench, serial: Pool) -> None:
    with pytest.raises(ConfigError, match="no modality 'sound'"):
        _curated(bench, serial, modalities=["sound"])


def test_the_card_shows_them(bench: Bench, serial: Pool) -> None:
    _plant(bench)
    bench.rows["k0010"][2] = "<script>alert(1)</script>"
    dataset = _curated(bench, serial)
    page, card = build_card(bench.store, dataset)
    assert "train and test share 1 of word" in page
    assert "twin" in page
    assert "<script" not in page
    assert card["splits"]["train"]["samples"] == dataset.facts["splits"]["train"]["samples"]
    assert card["kept_whole"] + card["kept_partly"] + card["rejected"] == dataset.rows
    assert publish_card(bench.store, dataset) == f"quality/{dataset.digest}.card.html"
    section = card_section(bench.store, dataset, dataset.digest)
    assert section["card"] == card
    assert section["media"]


def test_the_card_compares_with_the_last_data(bench: Bench, serial: Pool) -> None:
    before = _curated(bench, serial)
    for number, row in enumerate(bench.rows.values()):
        row[2] = f"{row[2]} {'longer ' * 30}{number}"
    page, card = build_card(bench.store, _curated(bench, serial), before)
    assert "word.chars" in {one["what"] for one in card["drift_since_last"]}
    assert "Since the last run" in page
