"""A plan adds up, and says in words what a run will cost."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from mmcore.config import RunConfig
from mmcore.errors import InputError
from mmcore.planning import ASSUMED_SECONDS, STAGES, Plan, check_inputs, make_plan, stage_lines
from mmcore.records import Json, Reject, Step
from mmcore.shards.plan import ShardPlan
from mmcore.storage import Store

LABELS = ("cat", "dog")


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """Sixty rows of text in the manifest itself; no output yet."""
    folder = tmp_path / "data"
    folder.mkdir()
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", "split", "text"])
        for n in range(60):
            split = "train" if n < 40 else "val" if n < 50 else "test"
            writer.writerow([f"k{n:02}", LABELS[n % 2], split, f"a {LABELS[n % 2]} and {n}"])
    return made(folder / "rows.csv", tmp_path / "output")


def made(manifest: Path, output: Path, **more: Json) -> RunConfig:
    text = {"kind": "text", "column": "text", "inline": True}
    return RunConfig.model_validate(
        {
            "name": "pets",
            "data": {"manifest": str(manifest), "modalities": {"text": text}},
            "shards": {"samples": 10},
            "features": {"text": {"encoder": "ngram"}},
            "floor": False,
            "fusion": {"methods": ["concat"]},
            "output": str(output),
            **more,
        }
    )


def plan_of(*steps: Step, **more: Json) -> Plan:
    shards = ShardPlan((), (), (), 0, (), {}, "keep", [], "classes", True, "rows.csv")
    values = {"rows": 100, "rejects": (), "seconds": 1.0, "measured": True, "disk_bytes": 0, "free_bytes": None}
    return Plan(steps=steps, shards=shards, **{**values, **more})


def record(store: Store, run_id: str, **more: Json) -> None:
    """What an earlier run of `pets` left: so many seconds and samples per stage."""
    value = {
        "name": "pets",
        "started": "2026-01-01T00:00:00+00:00",
        "state": "finished",
        "seconds": {"prepare": 6.0, "extract": 12.0, "train": 4.0, "evaluate": 1.0},
        "counts": {
            "prepare": {"computed": 6, "reused": 0, "samples": 60},
            "extract": {"computed": 7, "reused": 0, "samples": 60},
            "train": {"computed": 2, "reused": 0, "samples": 0},
            "evaluate": {"computed": 2, "reused": 0, "samples": 20},
        },
    }
    store.publish_json(f"runs/{run_id}/run.json", {**value, **more})


COMPUTE = Step("prepare", "train 1", "compute", "new", "a", 10)


class TestSummary:
    def test_each_step_is_counted_once(self, config: RunConfig) -> None:
        plan = make_plan(config, Store(config.output))
        rows = plan.summary()
        for stage in STAGES:
            for action in ("compute", "reuse"):
                counted = sum(row[action] for row in rows if row["stage"] == stage)
                assert counted == sum((s.stage, s.action) == (stage, action) for s in plan.steps)
        assert sum(row["compute"] + row["reuse"] for row in rows) == len(plan.steps)

    def test_one_row_per_stage_and_reason(self) -> None:
        plan = plan_of(
            Step("train", "late", "compute", "not trained yet"),
            COMPUTE,
            Step("prepare", "train 2", "reuse", "finished", "b"),
            Step("prepare", "train 3", "compute", "text changed", "c"),
            Step("prepare", "train 4", "compute", "text changed", "d"),
        )
        assert plan.summary() == [
            {"stage": "prepare", "compute": 2, "reuse": 0, "why": "text changed"},
            {"stage": "prepare", "compute": 1, "reuse": 0, "why": "new"},
            {"stage": "prepare", "compute": 0, "reuse": 1, "why": "finished"},
            {"stage": "train", "compute": 1, "reuse": 0, "why": "not trained yet"},
        ]

    def test_lines_for_a_log(self) -> None:
        plan = plan_of(COMPUTE, Step("evaluate", "late", "reuse", "scored before", "e"))
        assert stage_lines(plan) == [
            "prepare: 1 to compute, 0 reused (new)",
            "evaluate: 0 to compute, 1 reused (scored before)",
            plan.price(),
        ]

    def test_as_json(self) -> None:
        reject = Reject("k1", "", "missing-label", "no label")
        value = plan_of(COMPUTE, rejects=(reject,), seconds=1.26).as_json()
        assert value["seconds"] == 1.3
        assert value["rejects"][0]["code"] == "missing-label"
        assert value["steps"][0] == {
            "stage": "prepare",
            "name": "train 1",
            "action": "compute",
            "reason": "new",
            "digest": "a",
            "samples": 10,
        }


class TestPrice:
    @pytest.mark.parametrize(
        ("seconds", "words"),
        [
            (0.0, "about 1 s "),
            (0.4, "about 1 s "),
            (89.4, "about 89 s "),
            (90.0, "about 2 min "),
            (5_399.0, "about 90 min "),
            (5_400.0, "about 1.5 h "),
            (360_000.0, "about 100.0 h "),
        ],
    )
    def test_durations(self, seconds: float, words: str) -> None:
        assert words in plan_of(COMPUTE, seconds=seconds).price()

    @pytest.mark.parametrize(
        ("size", "words"),
        [
            (0, "and 0 B of disk."),
            (999, "and 999 B of disk."),
            (1_000, "and 1 kB of disk."),
            (1_000_000, "and 1.0 MB of disk."),
            (2_340_000_000, "and 2.3 GB of disk."),
            (5_000_000_000_000_000, "and 5000.0 TB of disk."),
        ],
    )
    def test_sizes(self, size: int, words: str) -> None:
        assert words in plan_of(COMPUTE, disk_bytes=size).price()

    def test_in_words(self) -> None:
        reuse = Step("prepare", "train 2", "reuse", "finished", "b")
        plan = plan_of(COMPUTE, reuse, seconds=30.0, disk_bytes=2_000, free_bytes=3_000_000)
        assert plan.price() == (
            "1 of 2 outputs to compute: about 30 s (as the last run here) and 2 kB of disk, 3.0 MB are free."
        )
        assert "(a guess: no run here has been timed yet)" in plan_of(COMPUTE, measured=False).price()
        assert plan_of(reuse).price() == "Nothing to compute: every output is there."

    def test_rows_set_aside(self) -> None:
        reject = Reject("k1", "", "missing-label", "no label")
        assert plan_of(COMPUTE, rejects=(reject,)).price().startswith("1 of 100 rows will be set aside. 1 of 1 outputs")


class TestSeconds:
    def test_without_a_run_they_are_assumed(self, config: RunConfig) -> None:
        plan = make_plan(config, Store(config.output))
        expected = 0.0
        for step in plan.steps:
            units = step.samples if step.stage in ("prepare", "extract") else 1
            units = 0 if step.name == "text encoder" else units
            expected += ASSUMED_SECONDS[step.stage] * units
        assert plan.seconds == pytest.approx(expected)
        assert not plan.measured

    def test_an_earlier_run_tells(self, config: RunConfig) -> None:
        store = Store(config.output).open()
        record(store, "pets-1")
        plan = make_plan(config, store)
        assert plan.measured
        # The same work as then: prepare .1 s a row; extract .2 s a vector, with the training before it;
        # train 2 s a model; evaluate .5 s a model. There are concat, two baselines and the single modality.
        assert plan.seconds == pytest.approx(60 * 0.1 + 60 * 0.2 + 4 * 2.0 + 4 * 0.5)

    def test_the_latest_run_tells(self, config: RunConfig) -> None:
        store = Store(config.output).open()
        record(store, "pets-1", started="2026-01-02T00:00:00+00:00")
        slow = {"prepare": 600.0, "extract": 1200.0, "train": 400.0, "evaluate": 100.0}
        record(store, "pets-2", started="2026-01-01T00:00:00+00:00", seconds=slow)
        assert make_plan(config, store).seconds == pytest.approx(28.0)

    def test_a_run_that_computed_nothing_tells_nothing(self, config: RunConfig) -> None:
        store = Store(config.output).open()
        none = {stage: {"computed": 0, "reused": 9, "samples": 0} for stage in STAGES}
        record(store, "pets-1", counts=none)
        assert not make_plan(config, store).measured

    def test_nor_does_one_of_another_name_or_a_damaged_record(self, config: RunConfig) -> None:
        store = Store(config.output).open()
        record(store, "other-1", name="other")
        store.publish_bytes("runs/pets-1/run.json", b"{")
        (Path(store.root) / "runs" / "pets-2").mkdir()
        assert not make_plan(config, store).measured


class TestDisk:
    def test_grows_with_what_is_to_compute(self, config: RunConfig) -> None:
        plan = make_plan(config, Store(config.output))
        assert plan.disk_bytes > 60 * len(LABELS) * 4
        assert plan.free_bytes is not None
        assert plan.free_bytes > 0

    def test_a_bucket_has_no_end(self, config: RunConfig) -> None:
        plan = make_plan(config, Store("memory://bucket/output"))
        assert plan.free_bytes is None
        assert "are free" not in plan.price()


class TestWritesNothing:
    def test_where_there_is_no_root(self, config: RunConfig) -> None:
        make_plan(config, Store(config.output))
        check_inputs(config)
        assert not os.path.exists(config.output)

    def test_where_there_is_one(self, config: RunConfig) -> None:
        store = Store(config.output).open()
        record(store, "pets-1")
        root = Path(config.output)
        before = {path: path.stat().st_mtime_ns for path in [root, *root.rglob("*")]}
        make_plan(config, store)
        check_inputs(config)
        assert {path: path.stat().st_mtime_ns for path in [root, *root.rglob("*")]} == before


class TestCheck:
    def test_a_sentence(self, config: RunConfig) -> None:
        assert check_inputs(config) == "pets: 60 rows, 2 classes (train 40, val 10, test 10); all settings fit."

    def test_files_that_are_not_there_are_counted(self, tmp_path: Path) -> None:
        rows = [f"k{n},{'ab'[n % 2]},{('train', 'val', 'test')[n // 2 % 3]},{n}.txt" for n in range(12)]
        (tmp_path / "rows.csv").write_text("\n".join(["id,label,split,note", *rows]) + "\n")
        for n in range(12):
            (tmp_path / f"{n}.txt").write_text(f"the note {n}")
        data = {"manifest": str(tmp_path / "rows.csv"), "modalities": {"note": {"kind": "text", "column": "note"}}}
        config = RunConfig.model_validate({"data": data, "output": str(tmp_path / "output")})
        assert check_inputs(config).endswith("all settings fit.")
        (tmp_path / "6.txt").unlink()
        assert check_inputs(config).endswith("1 of 12 files cannot be found: note of 'k6' (6.txt).")

    def test_rows_set_aside_are_counted_by_reason(self, config: RunConfig) -> None:
        with open(str(config.data.manifest), "a") as file:
            file.write("k60,,train,no label\nk61,,train,nor here\nk00,cat,train,again\n")
        said = check_inputs(config)
        # All rows of a key that occurs twice are set aside.
        assert said.startswith("pets: 63 rows, 2 classes (train 39, val 10, test 10); all settings fit. ")
        assert said.endswith("4 rows will be set aside: duplicate-key 2, missing-label 2.")

    def test_faults(self, config: RunConfig, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"none\.csv"):
            check_inputs(made(tmp_path / "none.csv", tmp_path / "output"))
        (tmp_path / "one.csv").write_text("id,label,split,text\n1,cat,train,a\n2,cat,val,b\n3,cat,test,c\n")
        with pytest.raises(InputError, match="cat"):
            check_inputs(made(tmp_path / "one.csv", tmp_path / "output"))
