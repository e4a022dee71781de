"""After a change of the input or of a setting exactly that is computed again which follows from it, as the plan said.

Runs are the stages' functions in this process. Which outputs a run computed is read off the disk: the receipts that
were written, and each must have brought its own files and nothing else.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmcore.config import RunConfig, load
from mmcore.evaluation.evaluate import evaluate_models
from mmcore.features.extract import encode_modality
from mmcore.fusion.fit import fit_models
from mmcore.parallel import serial_pool
from mmcore.planning import Plan, make_plan
from mmcore.progress import Silent
from mmcore.quality.curate import curate
from mmcore.records import Json
from mmcore.report.card import has_card, publish_card
from mmcore.storage import Store
from tests.flows.conftest import clean_environment, mmcore

SETTINGS = [
    "features.image.epochs=1",
    "features.audio.epochs=1",
    "features.text.folds=2",
    "fusion.methods=[concat]",
    "shards.samples=32",
    "compute.dask.workers=0",
    "compute.device=cpu",
    "floor=false",
]
NEVER = [f"features.{name}.refit=never" for name in ("image", "audio", "text")]
MODELS = ("concat", "late", "majority", "missingness", "only-image", "only-audio", "only-text")
SEVERAL = ("concat", "late", "majority", "missingness")
"""Those that read all modalities."""

Outputs = frozenset[tuple[str, str]]
"""Stage and name of outputs, as a plan's steps call them."""
Row = dict[str, str]


@dataclass
class Ran:
    """What a run had announced, and what it did."""

    plan: Plan
    announced: Outputs
    computed: Outputs
    new: frozenset[str]
    """Files below the root that were not there, or not with these bytes."""

    def reasons(self, stage: str) -> set[str]:
        """Why outputs of that stage are computed, by the plan."""
        return {step.reason for step in self.plan.steps if step.stage == stage and step.action == "compute"}


@dataclass
class Bench:
    """A data set that a test may change, with the output of a finished run."""

    folder: Path

    @property
    def store(self) -> Store:
        return Store(self.folder / "output")

    def config(self, *more: str) -> RunConfig:
        return load(self.folder / "pipeline.yaml", [*SETTINGS, *more])

    def plan(self, *more: str) -> Plan:
        return make_plan(self.config(*more), self.store)

    def run(self, *more: str) -> Ran:
        """Plan, run, and look at what was written; a plan made afterwards finds nothing to compute."""
        config, before = self.config(*more), self._files()
        plan = make_plan(config, self.store)
        assert self._files() == before
        run_stages(config, self.store)
        after = self._files()
        assert set(before) <= set(after)
        written = {path for path, state in after.items() if before.get(path) != state}
        computed, brought = self._outputs(make_plan(config, self.store), written)
        datasets = {path for path in written if path.startswith("datasets/")}
        assert len(datasets) <= 1
        assert written == brought | datasets
        new = frozenset(path for path in written if path not in before or before[path][0] != after[path][0])
        return Ran(plan, outputs_to_compute(plan), computed, new)

    def shard_of(self, key: str) -> str:
        """The name of the shard with this row, in plans."""
        numbers: dict[str, int] = {}
        for recipe in self.plan().shards.recipes:
            numbers[recipe.split] = numbers.get(recipe.split, 0) + 1
            if key in recipe.body["keys"]:
                return f"{recipe.split} {numbers[recipe.split]}"
        raise KeyError(key)

    def receipt_of(self, key: str) -> dict[str, Json]:
        """The receipt of the finished shard with this row."""
        (recipe,) = [recipe for recipe in self.plan().shards.recipes if key in recipe.body["keys"]]
        receipt: dict[str, Json] = self.store.read_json(recipe.receipt)
        return receipt

    def rows(self) -> list[Row]:
        with (self.folder / "manifest.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def edit(self, change: Callable[[list[Row]], list[Row]]) -> None:
        """Write the manifest anew."""
        rows = change(self.rows())
        with (self.folder / "manifest.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def relabel(self, key: str, label: str) -> None:
        self.edit(lambda rows: [{**row, "label": label} if row["id"] == key else row for row in rows])

    def whole_row(self, split: str) -> Row:
        """A row of that split that has all modalities, none of them rejected."""
        (dataset,) = (self.folder / "output" / "datasets").iterdir()
        rejected = {reject["key"] for reject in json.loads(dataset.read_text())["rejects"]}
        return next(
            row
            for row in self.rows()
            if row["split"] == split
            and row["id"] not in rejected
            and all(row[name] for name in ("image", "audio", "text"))
        )

    def added(self, count: int, split: str) -> None:
        """So many more rows: rows of test once more, under other keys."""
        whole = [row for row in self.rows() if row["split"] == "test" and row["image"] and row["audio"] and row["text"]]
        more = [{**whole[n % len(whole)], "id": f"more{n:03}", "split": split} for n in range(count)]
        self.edit(lambda rows: [*rows, *more])

    def _files(self) -> dict[str, tuple[str, int, int]]:
        """Per file below the root its hash, and what tells one writing of equal bytes from another.

        Without what describes whole data sets: plans do not name it, for it is made anew with each. Nor costs, which
        are measured and lie beside what is named.
        """
        found = {}
        for file in (self.folder / "output").rglob("*"):
            if file.is_file() and "quality" not in file.parts and file.name != "costs.json":
                state = file.stat()
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                found[str(file.relative_to(self.folder / "output"))] = (content, state.st_ino, state.st_mtime_ns)
        return found

    def _outputs(self, plan: Plan, written: set[str]) -> tuple[Outputs, set[str]]:
        """The outputs whose receipts were written, and all the files that those receipts name."""
        assert outputs_to_compute(plan) == set()
        encoders = {step.name.split()[0]: step.digest for step in plan.steps if step.name.endswith(" encoder")}
        computed, files = set(), {"format.json"} & written
        for step in plan.steps:
            modality = step.name.split()[0]
            receipt = {
                "prepare": f"shards/{step.digest}.json",
                "extract": f"encoders/{step.digest}/receipt.json"
                if step.name.endswith(" encoder")
                else f"features/{encoders.get(modality)}/{step.digest}.json",
                "train": f"models/{step.digest}/receipt.json",
                "evaluate": f"evaluations/{step.digest}/receipt.json",
            }[step.stage]
            if receipt in written:
                computed.add((step.stage, step.name))
                files |= {receipt, *paths_in(self.store.read_json(receipt))}
        return frozenset(computed), files


def run_stages(config: RunConfig, store: Store) -> None:
    """The pipeline without Prefect."""
    pool, progress = serial_pool(config.compute), Silent()
    store.open()
    dataset = curate(config, store, pool, progress)
    if not has_card(store, dataset.digest):
        publish_card(store, dataset)
    encoders = [encode_modality(config, dataset, name, store, pool, progress) for name in config.encoders]
    models = fit_models(config, dataset, encoders, store, pool, progress)
    evaluate_models(config, dataset, encoders, models, store, pool, progress)


def paths_in(receipt: dict[str, Json]) -> list[str]:
    """The files that a receipt names, whatever it is of."""
    named = [
        part
        for file in receipt.get("files", ())
        for part in ((file["tar"], file["index"]) if "tar" in file else (file,))
    ]
    named += [receipt["file"]] if "file" in receipt else []
    named += receipt.get("quarantine", {}).values()
    named += receipt.get("keys", {}).values()  # of an encoder: the keys that it learned from
    return [file["path"] for file in named]


def outputs_to_compute(plan: Plan) -> Outputs:
    return frozenset((step.stage, step.name) for step in plan.steps if step.action == "compute")


def steps(plan: Plan, stage: str, *starts: str) -> Outputs:
    """The outputs of a stage whose names start so."""
    return frozenset((s.stage, s.name) for s in plan.steps if s.stage == stage and s.name.startswith(starts or ("",)))


def named(stage: str, names: Iterable[str]) -> Outputs:
    return frozenset((stage, name) for name in names)


@pytest.fixture(scope="module")
def finished(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The sample and a first run of it; do not change it."""
    bench = Bench(Path(shutil.copytree(sample, tmp_path_factory.mktemp("finished") / "digits")))
    first = bench.run()
    assert first.computed == first.announced == {(step.stage, step.name) for step in first.plan.steps}
    assert len([name for stage, name in first.computed if stage == "prepare"]) >= 5
    return bench


@pytest.fixture
def bench(finished: Bench, tmp_path: Path) -> Bench:
    """A copy of it; times are kept, so that fingerprints are."""
    return Bench(Path(shutil.copytree(finished.folder, tmp_path / "digits")))


class TestLabel:
    def test_of_train_where_encoders_learned_from_it(self, bench: Bench) -> None:
        row = bench.whole_row("train")
        shard, old = bench.shard_of(row["id"]), bench.receipt_of(row["id"])
        bench.relabel(row["id"], "one" if row["label"] != "one" else "two")
        ran = bench.run()
        assert ran.computed == ran.announced
        assert ran.computed == (
            {("prepare", shard)} | steps(ran.plan, "extract") | named("train", MODELS) | named("evaluate", MODELS)
        )
        assert ran.reasons("prepare") == {"labels changed"}
        self.same_tar_other_index(bench, row["id"], old, ran)

    def test_of_train_where_encoders_are_kept(self, bench: Bench) -> None:
        row = bench.whole_row("train")
        shard, old = bench.shard_of(row["id"]), bench.receipt_of(row["id"])
        bench.relabel(row["id"], "one" if row["label"] != "one" else "two")
        ran = bench.run(*NEVER)
        assert ran.computed == ran.announced
        assert ran.computed == {("prepare", shard)} | named("train", MODELS) | named("evaluate", MODELS)
        kept = {s.reason for s in ran.plan.steps if s.name.endswith(" encoder")}
        assert kept == {"kept (refit: never)"}
        self.same_tar_other_index(bench, row["id"], old, ran)
        assert {path.split("/")[0] for path in ran.new} == {"shards", "datasets", "models", "evaluations"}

    def test_of_test_and_back(self, bench: Bench) -> None:
        row = bench.whole_row("test")
        shard, old = bench.shard_of(row["id"]), bench.receipt_of(row["id"])
        bench.relabel(row["id"], "one" if row["label"] != "one" else "two")
        ran = bench.run()
        assert ran.computed == ran.announced
        assert ran.computed == {("prepare", shard)} | named("evaluate", MODELS)
        self.same_tar_other_index(bench, row["id"], old, ran)
        assert {path.split("/")[0] for path in ran.new} == {"shards", "datasets", "evaluations"}
        # What was made of the old label is still there.
        bench.relabel(row["id"], row["label"])
        assert bench.run().computed == set()

    @staticmethod
    def same_tar_other_index(bench: Bench, key: str, old: dict[str, Json], ran: Ran) -> None:
        new = bench.receipt_of(key)
        assert new["files"][0]["tar"] == old["files"][0]["tar"]
        assert new["files"][0]["views"] == old["files"][0]["views"]
        assert new["files"][0]["index"]["path"] != old["files"][0]["index"]["path"]
        of_shards = {path for path in ran.new if path.startswith("shards/")}
        assert of_shards == {new["files"][0]["index"]["path"], f"shards/{new['recipe']}.json"}


class TestText:
    def edit(self, bench: Bench, split: str) -> tuple[str, str, dict[str, Json]]:
        """A row's key, its shard's name, and the shard's receipt before its text was edited."""
        row = bench.whole_row(split)
        found = row["id"], bench.shard_of(row["id"]), bench.receipt_of(row["id"])
        (bench.folder / row["text"]).write_text("quite another text, of seven words\n")
        return found

    def only_text_changed(self, bench: Bench, key: str, old: dict[str, Json]) -> None:
        new = bench.receipt_of(key)
        assert new["files"][0]["tar"]["path"] != old["files"][0]["tar"]["path"]
        changed = {
            name
            for name in old["files"][0]["views"]
            if old["files"][0]["views"][name] != new["files"][0]["views"][name]
        }
        assert changed == {"text"}
        assert new["files"][0]["labels"] == old["files"][0]["labels"]

    def test_of_train_where_the_encoder_learned_from_it(self, bench: Bench) -> None:
        key, shard, old = self.edit(bench, "train")
        ran = bench.run()
        assert ran.computed == ran.announced
        assert ran.computed == (
            {("prepare", shard)}
            | steps(ran.plan, "extract", "text")
            | named("train", (*SEVERAL, "only-text"))
            | named("evaluate", MODELS)
        )
        assert ran.reasons("prepare") == {"text changed"}
        assert ran.reasons("extract") == {
            "follows from shards that are not made yet",
            "follows from a shard that is not made yet",
            "the text encoder is trained first",
        }
        assert ran.reasons("train") == {"the features of text change"}
        self.only_text_changed(bench, key, old)

    def test_of_train_where_encoders_are_kept(self, bench: Bench) -> None:
        key, shard, old = self.edit(bench, "train")
        ran = bench.run(*NEVER)
        assert ran.computed == ran.announced
        assert ran.computed == (
            {("prepare", shard), ("extract", f"text {shard}")}
            | named("train", (*SEVERAL, "only-text"))
            | named("evaluate", (*SEVERAL, "only-text"))
        )
        self.only_text_changed(bench, key, old)

    def test_of_test(self, bench: Bench) -> None:
        key, shard, old = self.edit(bench, "test")
        ran = bench.run()
        assert ran.computed == ran.announced
        assert ran.computed == {("prepare", shard), ("extract", f"text {shard}")} | named("evaluate", MODELS)
        self.only_text_changed(bench, key, old)
        assert {path.split("/")[0] for path in ran.new} == {"shards", "datasets", "features", "evaluations"}

    def test_touched_but_equal(self, bench: Bench) -> None:
        """Only reading the file tells, so the plan announces more; the run ends it at the shard."""
        row = bench.whole_row("train")
        shard, old = bench.shard_of(row["id"]), bench.receipt_of(row["id"])
        os.utime(bench.folder / row["text"])
        ran = bench.run()
        assert ran.computed == {("prepare", shard)} < ran.announced
        new = bench.receipt_of(row["id"])
        assert new["files"] == old["files"]
        # The data set names its shards' recipes.
        assert {path.split("/")[0] for path in ran.new} == {"shards", "datasets"}
        assert [path for path in ran.new if path.startswith("shards/")] == [f"shards/{new['recipe']}.json"]


class TestRows:
    def test_one_added_to_train(self, bench: Bench) -> None:
        bench.added(1, "train")
        ran = bench.run()
        assert ran.computed == ran.announced
        prepared = {name for stage, name in ran.computed if stage == "prepare"}
        assert bench.shard_of("more000") in prepared
        # At most the shard that takes it, or the two that it becomes.
        assert len(prepared) <= 2
        assert {name.split()[0] for name in prepared} == {"train"}
        assert ran.reasons("prepare") <= {"rows added or removed", "new"}
        assert ran.computed == (
            named("prepare", prepared) | steps(ran.plan, "extract") | named("train", MODELS) | named("evaluate", MODELS)
        )

    def test_one_removed_from_test(self, bench: Bench) -> None:
        row = bench.whole_row("test")
        bench.edit(lambda rows: [other for other in rows if other["id"] != row["id"]])
        ran = bench.run()
        assert ran.computed == ran.announced
        prepared = {name for stage, name in ran.computed if stage == "prepare"}
        assert 1 <= len(prepared) <= 2
        views = {f"{name} {shard}" for name in ("image", "audio", "text") for shard in prepared}
        assert ran.computed == named("prepare", prepared) | named("extract", views) | named("evaluate", MODELS)
        assert {name.split()[0] for name in prepared} == {"test"}


class TestSettings:
    def test_of_one_modality(self, bench: Bench) -> None:
        """All tars hold its members; the views of the other modalities stay what they are."""
        ran = bench.run("data.modalities.image.size=20")
        assert ran.computed == ran.announced
        assert ran.computed == (
            steps(ran.plan, "prepare")
            | steps(ran.plan, "extract", "image")
            | named("train", (*SEVERAL, "only-image"))
            | named("evaluate", MODELS)
        )
        assert ran.reasons("prepare") == {"settings of image changed"}

    def test_another_fusion_method(self, bench: Bench) -> None:
        ran = bench.run("fusion.methods=[concat,cca]")
        assert ran.computed == ran.announced == {("train", "cca"), ("evaluate", "cca")}

    def test_the_seed_of_fusion(self, bench: Bench) -> None:
        assert bench.run("fusion.seed=1").computed == frozenset(), "none of these draws random numbers"
        methods = "fusion.methods=[concat,{method: weighted, epochs: 1}]"
        bench.run(methods)
        ran = bench.run(methods, "fusion.seed=1")
        assert ran.computed == ran.announced == {("train", "weighted"), ("evaluate", "weighted")}
        assert ran.reasons("train") == {"seed changed"}

    def test_the_seed_of_an_encoder(self, bench: Bench) -> None:
        ran = bench.run("features.text.seed=1")
        assert ran.computed == ran.announced
        assert ran.computed == (
            steps(ran.plan, "extract", "text") | named("train", (*SEVERAL, "only-text")) | named("evaluate", MODELS)
        )
        assert "settings changed: seed 0 -> 1" in ran.reasons("extract")

    @pytest.mark.parametrize(
        "setting",
        [
            "compute.dask.workers=2",
            "compute.retries=0",
            "compute.sample_timeout_s=5",
            "data.max_rejected=50%",
            "features.image.refit=never",
            "features.text.refit=10%",
            "fusion.metric=accuracy",
            "name=other",
        ],
    )
    def test_that_decide_no_bytes(self, setting: str, finished: Bench) -> None:
        assert outputs_to_compute(finished.plan(setting)) == set()


class TestFloor:
    """Each modality by its classical encoder, beside everything else."""

    FLOORS = ("floor-image", "floor-audio", "floor-text")

    def test_it_is_all_that_comes_with_it_and_labels_do_not_matter_to_its_vectors(self, bench: Bench) -> None:
        ran = bench.run("floor=true")
        assert ran.computed == ran.announced
        floors = named("train", self.FLOORS) | named("evaluate", self.FLOORS)
        assert ran.computed == steps(ran.plan, "extract", "floor-") | floors
        row = bench.whole_row("train")
        shard = bench.shard_of(row["id"])
        bench.relabel(row["id"], "one" if row["label"] != "one" else "two")
        ran = bench.run("floor=true", *NEVER)
        assert ran.computed == ran.announced
        models = (*MODELS, *self.FLOORS)
        assert ran.computed == {("prepare", shard)} | named("train", models) | named("evaluate", models)


class TestRefitByShare:
    SHARES = tuple(f"features.{name}.refit=10%" for name in ("image", "audio", "text"))

    def grow(self, bench: Bench, share: float) -> Ran:
        rows = sum(row["split"] == "train" for row in bench.rows())
        bench.added(round(rows * share), "train")
        return bench.run(*self.SHARES)

    def test_five_percent_more_rows(self, bench: Bench) -> None:
        ran = self.grow(bench, 0.05)
        assert ran.computed == ran.announced
        shards = {name for stage, name in ran.computed if stage == "prepare"}
        views = {f"{name} {shard}" for name in ("image", "audio", "text") for shard in shards}
        assert ran.computed == (
            named("prepare", shards) | named("extract", views) | named("train", MODELS) | named("evaluate", MODELS)
        )
        reasons = [step.reason for step in ran.plan.steps if step.name.endswith(" encoder")]
        assert len(reasons) == 3
        for reason in reasons:
            assert reason.startswith("kept: +9 of 1")
            assert reason.endswith("training samples (refit: 10%)")

    def test_twenty_percent_more_rows(self, bench: Bench) -> None:
        ran = self.grow(bench, 0.2)
        assert ran.computed == ran.announced
        encoders = {(s.stage, s.name) for s in ran.plan.steps if s.stage == "extract"}
        assert encoders <= ran.computed


def test_what_is_lost_is_made_again(bench: Bench) -> None:
    """A tar, a view and a model cut short: these, and nothing after them, for they end in the same bytes."""
    steps_ = {(step.stage, step.name): step.digest for step in bench.plan().steps}
    receipt = bench.store.read_json(f"shards/{steps_['prepare', 'val 1']}.json")
    (view,) = (bench.folder / "output").glob(f"features/*/{steps_['extract', 'text test 1']}.arrow")
    model = bench.folder / "output" / "models" / str(steps_["train", "only-image"]) / "model.safetensors"
    files = [bench.folder / "output" / receipt["files"][0]["tar"]["path"], view, model]
    bytes_ = [file.read_bytes() for file in files]
    for file, data in zip(files, bytes_, strict=True):
        file.write_bytes(data[:-1])
    ran = bench.run()
    assert ran.computed == {("prepare", "val 1"), ("extract", "text test 1"), ("train", "only-image")}
    assert ran.computed <= ran.announced
    assert [file.read_bytes() for file in files] == bytes_


class TestTheCommands:
    """`plan`, `check` and `status` look, and leave no trace."""

    def commands(self, bench: Bench, output: Path, home: Path) -> dict[str, str]:
        said = {}
        for command in ("plan", "check", "status"):
            arguments = [bench.folder / "pipeline.yaml", *SETTINGS, f"output={output}"]
            done = mmcore(command, *arguments, env=clean_environment(home))
            assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
            said[command] = done.stdout
        return said

    def test_where_there_is_no_output_yet(self, finished: Bench, tmp_path: Path) -> None:
        output = tmp_path / "deep" / "output"
        said = self.commands(finished, output, tmp_path / "home")
        assert not (tmp_path / "deep").exists()
        assert re.search(r"(\d+) of \1 outputs to compute: about \d+ (s|min) \(a guess", said["plan"])
        assert re.search(r"and [\d.]+ (k|M)B of disk, [\d.]+ [MGT]B are free\.", said["plan"])
        assert "300 rows, 10 classes" in said["check"]
        assert "no runs yet" in said["status"]

    def test_before_an_edit_is_run(self, bench: Bench, tmp_path: Path) -> None:
        row = bench.whole_row("test")
        (bench.folder / row["text"]).write_text("quite another text\n")
        before = state_of(bench.folder)
        said = self.commands(bench, bench.folder / "output", tmp_path / "home")
        assert state_of(bench.folder) == before
        lines = [" ".join(line.split()) for line in said["plan"].splitlines()]
        assert "prepare 1 0 text changed" in lines
        assert "extract 1 0 follows from a shard that is not made yet" in lines
        assert "evaluate 7 0 the test shards are made first" in lines
        assert "train 0 7 finished" in lines
        assert re.search(r"^9 of \d+ outputs to compute: about \d+ s", lines[-1])


def state_of(folder: Path) -> dict[Path, tuple[int, int]]:
    """Which files and folders there are, and when each was changed."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in [folder, *folder.rglob("*")]}
