from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from mmcore.config import ComputeConfig
from mmcore.errors import DataError, StageError, TooManyRejectsError
from mmcore.parallel import Died, Pool, open_pool
from mmcore.progress import Silent
from mmcore.records import Dataset, Reject, count_by
from mmcore.shards import cells
from mmcore.shards import prepare as module
from mmcore.shards.budget import RejectBudget
from mmcore.shards.plan import plan_shards
from mmcore.shards.prepare import prepare
from mmcore.shards.read import read_index, read_members
from mmcore.shards.recipe import ShardJob
from mmcore.storage import Store

from . import bad_codec
from .conftest import Bench, Tally, files_of


class Deadly(Pool):
    """Makes shards here, but lets those that hold a bad word die as a worker would."""

    process_per_job = True
    workers = 1

    def __init__(self, *words: str) -> None:
        self.words = words

    def close(self) -> None:
        pass

    def map(
        self,
        function: Callable[[ShardJob], Any],
        jobs: Iterable[ShardJob],
        *,
        name: Callable[[ShardJob], str],
        on_event: Callable[..., None] | None = None,
    ) -> Iterator[tuple[ShardJob, Any]]:
        for job in jobs:
            bad = any(f'"{word}"' in job.recipe.json.decode() for word in self.words)
            yield job, Died(name(job), "its worker process died twice") if bad else function(job)


def test_the_data_set_holds_what_was_given(bench: Bench, serial: Pool, tally: Tally) -> None:
    config = bench.write()
    dataset = prepare(config, bench.store, serial, tally)
    assert (dataset.rows, dataset.rejects, dataset.classes) == (60, (), ("even", "odd"))
    assert (tally.total, tally.reused, tally.done, tally.samples) == (len(dataset.shards), 0, len(dataset.shards), 60)
    found = {}
    for shard in dataset.shards:
        keys = read_index(bench.store, shard)["key"].to_pylist()
        labels = read_index(bench.store, shard)["label"].to_pylist()
        parts = [dict(read_members(bench.store, shard, name)) for name in ("word", "note")]
        for key, label in zip(keys, labels, strict=True):
            found[key] = [label, shard.split, *(b"".join(part[key] or ()).decode() for part in parts)]
    assert found == bench.rows
    facts = dataset.facts
    notes = sum(bool(row[3]) for row in bench.rows.values())
    assert (facts["kept_whole"], facts["kept_partly"], facts["rejected"]) == (notes, 60 - notes, 0)
    assert facts["splits"]["val"]["samples"] == 12
    assert Dataset.from_json(bench.store.read_json(f"datasets/{dataset.digest}.json")) == dataset


def test_a_second_run_makes_nothing(bench: Bench, serial: Pool, tally: Tally) -> None:
    config = bench.write()
    dataset = prepare(config, bench.store, serial, Silent())
    before = files_of(bench.store)

    class Idle(Deadly):
        def map(self, function, jobs, **_):
            assert not list(jobs)
            return iter(())

    assert prepare(config, bench.store, Idle(), tally) == dataset
    assert (tally.reused, tally.done) == (tally.total, 0)
    assert files_of(bench.store) == before


def test_a_run_that_was_stopped_goes_on_and_ends_in_the_same_bytes(bench: Bench, serial: Pool) -> None:
    config = bench.write()
    prepare(config, bench.store, serial, Silent())
    whole = files_of(bench.store)
    other = Store(bench.folder / "other").open()

    class Stopped(Deadly):
        def map(self, function, jobs, **_):
            for number, job in enumerate(jobs):
                if number == 3:
                    raise KeyboardInterrupt
                yield job, function(job)

    with pytest.raises(KeyboardInterrupt):
        prepare(config, other, Stopped(), Silent())
    assert sum(name.endswith(".json") for name in other.listing("shards")) == 3
    prepare(config, other, serial, Silent())
    assert files_of(other) == whole


def test_rejects_are_counted_and_kept_apart_from_empty_cells(bench: Bench, serial: Pool, tally: Tally) -> None:
    bench.rows["k0000"][2:] = ["", " "]  # a text without content, and nothing else
    bench.rows["k0001"][2] = " "
    bench.rows["k0002"][0] = ""
    bench.settings = {"max_rejected": 0.05}
    dataset = prepare(bench.write(), bench.store, serial, tally)
    assert tally.rejected == 3
    counts = count_by(reject.code for reject in dataset.rejects)
    assert counts == dataset.facts["rejects"] == {"empty-text": 2, "missing-label": 1, "no-modality": 1}
    facts = dataset.facts
    assert (facts["kept_whole"] + facts["kept_partly"] + facts["rejected"], facts["rejected"]) == (60, 2)


def test_too_many_rejects_stop_the_run_with_reasons(bench: Bench, serial: Pool) -> None:
    for key in ("k0000", "k0001", "k0002", "k0005"):
        bench.rows[key][2] = "\u200b"
    config = bench.write()
    (bench.folder / "data" / "word" / "k0000.txt").unlink()
    with pytest.raises(TooManyRejectsError) as caught:
        prepare(config, bench.store, serial, Silent())
    text = str(caught.value)
    assert "of 60 rows" in text
    assert "data.max_rejected allows 5.0%" in text
    assert "missing-file 1" in text
    assert "word of 'k0000' (word/k0000.txt): missing-file" in text
    bench.settings = {"max_rejected": "10%"}
    rejects = prepare(bench.write(), bench.store, serial, Silent()).rejects
    assert count_by(reject.code for reject in rejects) == {"empty-text": 4, "no-modality": 1}


@pytest.mark.parametrize(("code", "lasting"), [("time-limit", True), ("codec-died", True), ("io-error", False)])
def test_the_budget_says_how_to_try_again(code: str, lasting: bool) -> None:
    reject = Reject("k", "image", code, "no end", "i/k.png", circumstantial=True)
    with pytest.raises(TooManyRejectsError) as caught:
        RejectBudget(10, 0.05).add([reject], 1)
    assert (f"as {code} is tried again once its file below exclusions/" in str(caught.value)) == lasting


def test_too_many_rows_without_a_key_stop_it_before_anything_is_made(bench: Bench) -> None:
    for n in range(4):
        bench.rows[f"k0{n}/"] = ["even", "train", "", "note"]
    with pytest.raises(TooManyRejectsError, match=r"4 of 64 rows \(6.2%\).*bad-key 4"):
        prepare(bench.write(), bench.store, Deadly(), Silent())
    assert bench.store.listing("shards") == {}


def test_a_label_whose_train_rows_are_all_unfit(bench: Bench, serial: Pool) -> None:
    bench.rows["k0000"] = ["rare", "train", " ", ""]
    bench.rows["k0003"] = ["rare", "val", "fine", ""]
    with pytest.raises(DataError, match="val has a label that no row of train has: 'rare'"):
        prepare(bench.write(), bench.store, serial, Silent())


@pytest.fixture
def bad_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are made with a codec that dies and hangs on certain words."""
    monkeypatch.setattr(module, "make_shard", bad_codec.make_shard)


@pytest.mark.usefixtures("bad_words")
def test_samples_that_kill_or_hang_are_set_aside_and_remembered(bench: Bench, tally: Tally) -> None:
    bench.rows["k0006"][3] = "hang"
    bench.rows["k0007"][3] = "crash"
    bench.rows["k0035"][3] = "memory"
    bench.settings = {"max_rejected": 0.05}
    config = bench.write()
    config = config.model_copy(update={"compute": ComputeConfig(dask={"workers": 0}, sample_timeout_s=0.5)})
    dataset = prepare(config, bench.store, Deadly("hang", "crash"), tally)
    found = {reject.key: (reject.code, reject.circumstantial, reject.message) for reject in dataset.rejects}
    assert found == {
        "k0006": ("time-limit", True, "no end after compute.sample_timeout_s (0.5 s)"),
        "k0007": ("codec-died", True, "the process died while decoding it (killed by SIGSEGV)"),
        "k0035": ("codec-died", True, "decoding ran out of memory"),
    }
    assert dataset.facts["rejected"] == 0
    assert any("k0006" in line for line in tally.lines)
    assert len(bench.store.listing("exclusions")) == 3
    # Another run knows them from the start.
    again = Tally()
    assert prepare(config, bench.store, Deadly(), again) == dataset
    assert again.done == 0
    # An edited text gets another chance.
    bench.rows["k0006"][3] = "calm"
    assert len(prepare(bench.write(), bench.store, Deadly(), Silent()).rejects) == 2


def test_files_that_could_not_be_read_are_tried_again_by_the_next_run(
    bench: Bench, serial: Pool, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = bench.write()
    real = cells.read_source

    def locked(root: str, ref: str, *args: Any) -> Any:
        if "k0006" in ref:
            raise PermissionError(13, "Permission denied")
        return real(root, ref, *args)

    with monkeypatch.context() as patch:
        patch.setattr(cells, "read_source", locked)
        dataset = prepare(config, bench.store, serial, tally)
    (reject,) = dataset.rejects
    assert (reject.key, reject.code, reject.circumstantial) == ("k0006", "io-error", True)
    assert any("set aside for this run: Permission denied" in line for line in tally.lines)
    assert bench.store.listing("exclusions") == {}
    again = Tally()
    assert prepare(config, bench.store, serial, again).rejects == ()
    assert again.done == 1


def test_a_shard_that_dies_elsewhere_fails_with_its_name(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "make_shard", _exit)
    with pytest.raises(StageError, match=r"shard 1 \(train\): its process died, and not while decoding"):
        prepare(bench.write(), bench.store, Deadly("word/k0000.txt"), Silent())


def _exit(_: ShardJob) -> None:
    os._exit(3)


@pytest.mark.usefixtures("bad_words")
def test_a_dask_worker_that_dies_costs_one_sample(bench: Bench, tally: Tally) -> None:
    bench.rows["k0006"][3] = "hang"
    bench.rows["k0007"][3] = "crash"
    config = bench.write()
    compute = ComputeConfig(dask={"workers": 2}, sample_timeout_s=0.5)
    config = config.model_copy(update={"compute": compute})
    with open_pool(compute) as pool:
        dataset = prepare(config, bench.store, pool, tally)
    assert {reject.key: reject.code for reject in dataset.rejects} == {"k0006": "time-limit", "k0007": "codec-died"}
    assert tally.done == tally.total == len(dataset.shards)
    assert sum(shard.samples for shard in dataset.shards) == 60


def test_where_the_data_lie_does_not_matter(bench: Bench, serial: Pool) -> None:
    config = bench.write()
    dataset = prepare(config, bench.store, serial, Silent())
    published = files_of(bench.store)
    assert not any(str(bench.folder).encode() in data for data in published.values())
    assert dataset.digest in {Path(name).stem for name in bench.store.listing("datasets")}


def test_partitions_in_other_folders(bench: Bench, serial: Pool) -> None:
    bench.write()
    data, other = bench.folder / "data", bench.folder / "zz"
    header, *lines = (data / "manifest.csv").read_text().splitlines()
    (other / "word").mkdir(parents=True)
    (data / "manifest.csv").write_text("\n".join([header, *lines[:30]]) + "\n")
    for line in lines[30:]:
        key = line.split(",")[0]
        (data / "word" / f"{key}.txt").rename(other / "word" / f"{key}.txt")
    (other / "manifest.csv").write_text("\n".join([header, *lines[30:]]) + "\n")
    bench.settings = {"manifest": [str(data / "manifest.csv"), str(other / "manifest.csv")]}
    config = bench.write().model_copy()
    (data / "manifest.csv").write_text("\n".join([header, *lines[:30]]) + "\n")
    dataset = prepare(config, bench.store, serial, Silent())
    assert (dataset.rows, dataset.rejects) == (60, ())
    assert max(len(roots) for roots in plan_shards(config, bench.store).roots) == 2


def test_real_data_of_three_modalities(digits_dir: Path, store: Store) -> None:
    modalities = {
        "image": {"kind": "image", "column": "image", "size": 28, "mode": "grey"},
        "audio": {"kind": "audio", "column": "audio", "sample_rate_hz": 8000},
        "text": {"kind": "text", "column": "text"},
    }
    bench_config = {
        "data": {"manifest": str(digits_dir / "manifest.csv"), "modalities": modalities, "limit": 200},
        "features": {"image": {"encoder": "cnn"}, "audio": {"encoder": "logmel-cnn"}, "text": {"encoder": "ngram"}},
        "shards": {"samples": 32},
    }
    config = module.RunConfig.model_validate(bench_config)
    with open_pool(ComputeConfig(dask={"workers": 0})) as pool:
        dataset = prepare(config, store, pool, Silent())
    assert (dataset.rows, dataset.rejects) == (200, ())
    for shard in dataset.shards:
        for name in modalities:
            members = [data for _, data in read_members(store, shard, name) if data]
            assert len(members) == shard.present[name]


def test_data_and_output_on_a_bucket(bench: Bench, serial: Pool) -> None:
    local = prepare(bench.write(), bench.store, serial, Silent())
    system = fsspec.filesystem("memory")
    for file in sorted((bench.folder / "data").rglob("*.*")):
        system.pipe(f"/prepare-data/{file.relative_to(bench.folder / 'data')}", file.read_bytes())
    bench.settings = {"manifest": "memory://prepare-data/manifest.csv"}
    config = bench.write()
    store = Store("memory://prepare-output").open()
    remote = prepare(config, store, serial, Silent())
    assert [shard.tar for shard in remote.shards] == [shard.tar for shard in local.shards]
    assert [shard.views for shard in remote.shards] == [shard.views for shard in local.shards]
    tally = Tally()
    assert prepare(config, store, serial, tally) == remote
    assert (tally.reused, tally.done) == (len(remote.shards), 0)


def test_where_no_sample_is_left_it_says_why(bench: Bench, serial: Pool) -> None:
    bench.settings["max_rejected"] = 1.0
    bench.settings["modalities"] = {"note": {"kind": "text", "column": "note", "inline": True}}
    config = bench.write().model_copy(update={"features": {}})
    nothing = config.model_copy(
        update={"data": config.data.model_copy(update={"filters": ["note.chars > 900"]})},
    )
    with pytest.raises(
        DataError, match=r"no sample is left \(set aside: .*filtered \d+.*\): .*note.chars > 900"
    ) as caught:
        prepare(nothing, bench.store, serial, Silent())
    assert "{" not in str(caught.value)
