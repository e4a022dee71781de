"""The evaluate stage on real shards, features (whose vectors are made here) and models."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mmcore.config import RunConfig
from mmcore.errors import DamagedError
from mmcore.evaluation.evaluate import evaluate_models, foresee_evaluations, leaderboard, open_model
from mmcore.features.store import Made, Table, write_view
from mmcore.fusion.data import load_views
from mmcore.fusion.fit import fit_models, foresee_models
from mmcore.parallel import serial_pool
from mmcore.progress import Silent
from mmcore.records import Dataset, EncoderEntry, EvaluationEntry, ModelEntry, Step
from mmcore.shards.prepare import prepare
from mmcore.shards.read import read_index
from mmcore.storage import Store

DIMS = {"image": 5, "audio": 4}
PROBA = ["proba a", "proba b", "proba c"]
MISSING = ["score at 30% missing", "score at 50% missing", "score at 70% missing"]


class Counted(Silent):
    """Remembers what was reused and what was done."""

    def __init__(self) -> None:
        self.total = self.reused = self.done = 0

    def start(self, total: int, *, reused: int = 0, unit: str = "shards") -> None:
        self.total, self.reused = total, reused

    def advance(self, units: float = 1, **_: Any) -> None:
        self.done += units


@dataclass
class Bench:
    """A data set of two modalities with features and trained models in a store."""

    store: Store
    config: RunConfig
    dataset: Dataset
    encoders: tuple[EncoderEntry, ...]
    models: list[ModelEntry]

    def train(self) -> list[ModelEntry]:
        pool = serial_pool(self.config.compute)
        return fit_models(self.config, self.dataset, self.encoders, self.store, pool, Silent())

    def evaluate(self, progress: Silent | None = None, config: RunConfig | None = None) -> list[EvaluationEntry]:
        pool = serial_pool(self.config.compute)
        return evaluate_models(
            config or self.config, self.dataset, self.encoders, self.models, self.store, pool, progress or Silent()
        )

    def foresee(self) -> list[tuple[EvaluationEntry | None, Step]]:
        known = [(encoder, []) for encoder in self.encoders]
        models = foresee_models(self.config, self.dataset.shards, known, self.store)
        return foresee_evaluations(self.config, self.dataset.shards, known, models, self.store)

    def scores(self, entry: EvaluationEntry) -> Any:
        return self.store.read_json(f"evaluations/{entry.digest}/scores.json")


def _config(folder: Path) -> RunConfig:
    return RunConfig.model_validate(
        {
            "data": {
                "manifest": str(folder / "manifest.csv"),
                "modalities": {name: {"kind": "text", "column": name, "inline": True} for name in DIMS},
            },
            "shards": {"samples": 40},
            "features": {name: {"encoder": "ngram"} for name in DIMS},
            "floor": False,
            "fusion": {"methods": ["concat", {"method": "cca", "n_components": 3}]},
            "compute": {"dask": {"workers": 0}, "device": "cpu"},
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("evaluate")
    splits = ["train", "train", "val", "test"]
    rows = [f"k{n:04d},{'abc'[n % 3]},{splits[n % 4]},x,{'y' if n % 7 else ''}" for n in range(320)]
    (folder / "manifest.csv").write_text("\n".join(["id,label,split,image,audio", *rows]) + "\n")
    store, config = Store(folder / "output").open(), _config(folder)
    pool = serial_pool(config.compute)
    dataset = prepare(config, store, pool, Silent())
    encoders = tuple(EncoderEntry(name, f"{name}-encoder", "ngram", dim, True) for name, dim in DIMS.items())
    for encoder in encoders:
        store.publish_json(f"encoders/{encoder.digest}/receipt.json", {"weights": "first"})
        centres = np.random.default_rng(encoder.dim).normal(size=(3, encoder.dim))
        for number, shard in enumerate(dataset.shards):
            index = read_index(store, shard)
            labels, keys = index["label"].to_pylist(), index["key"].to_pylist()
            noise = np.random.default_rng(number).normal(size=(len(keys), encoder.dim))
            values = centres[["abc".index(label) for label in labels]] + noise
            present = index[f"{encoder.modality}.present"].to_numpy()
            write_view(
                store, encoder.digest, shard.views[encoder.modality], Table(keys, values, present), Made("first")
            )
    models = fit_models(config, dataset, encoders, store, pool, Silent())
    return Bench(store, config, dataset, encoders, models)


@pytest.fixture
def bench(trained: Bench) -> Bench:
    trained.store.remove("evaluations")
    return trained


def _bytes(store: Store) -> dict[str, bytes]:
    root = Path(store.url("evaluations"))
    files = [file for file in sorted(root.rglob("*")) if file.is_file() and file.name != "costs.json"]
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


def test_scores_and_predictions_agree(bench: Bench) -> None:
    entries = bench.evaluate()
    assert [entry.model for entry in entries] == [
        "concat",
        "cca",
        "late",
        "majority",
        "missingness",
        "only-image",
        "only-audio",
    ]
    rows = load_views(bench.store, bench.dataset, bench.encoders, "test")
    for model, entry in zip(bench.models, entries, strict=True):
        with bench.store.as_local(f"evaluations/{entry.digest}/predictions.parquet") as file:
            table = pq.read_table(file)
        assert table.column_names == ["key", "label", "predicted", "correct", "score", *MISSING, *PROBA]
        assert table["key"].to_pylist() == rows.keys.tolist()
        assert table["label"].to_pylist() == rows.labels.tolist()
        overall = bench.scores(entry)["overall"]
        assert np.mean(table["correct"].to_numpy()) == pytest.approx(overall["accuracy"])
        assert np.mean(table["score"].to_numpy()) == pytest.approx(overall["score"])
        curve = bench.scores(entry)["uses"]["missing"]
        for share, column in zip((0.3, 0.5, 0.7), MISSING, strict=True):
            assert np.mean(table[column].to_numpy()) == pytest.approx(curve["scores"][curve["at"].index(share)])
        costs = bench.store.read_json(f"evaluations/{entry.digest}/costs.json")
        assert costs["predict_seconds"] > 0
        assert costs["predicted_rows"] > len(rows)
        fitted = open_model(bench.store, model.digest)
        assert table["predicted"].to_pylist() == fitted.predict(rows.views).tolist()
        assert overall["accuracy"] == pytest.approx(fitted.score(rows.views, rows.labels))
        proba = np.stack([table[f"proba {name}"].to_numpy() for name in "abc"], axis=1)
        np.testing.assert_allclose(proba, fitted.predict_proba(rows.views), atol=1e-6)


def test_nothing_is_done_twice_and_bytes_are_equal(bench: Bench) -> None:
    progress = Counted()
    entries = bench.evaluate(progress)
    assert (progress.total, progress.reused, progress.done) == (7, 0, 7)
    first = _bytes(bench.store)
    assert bench.evaluate(again := Counted()) == entries
    assert (again.total, again.reused, again.done) == (7, 7, 0)
    bench.store.remove(f"evaluations/{entries[1].digest}/receipt.json")
    bench.store.remove(f"evaluations/{entries[2].digest}/scores.json")
    bench.evaluate(partly := Counted())
    assert (partly.reused, partly.done) == (5, 2)
    assert _bytes(bench.store) == first


def test_foreseen_as_it_comes(bench: Bench) -> None:
    before = bench.foresee()
    assert {step.action for _, step in before} == {"compute"}
    assert [entry for entry, _ in before] == bench.evaluate()
    after = bench.foresee()
    assert {step.action for _, step in after} == {"reuse"}
    assert all(step.samples == len(load_views(bench.store, bench.dataset, bench.encoders, "test")) for _, step in after)


def test_what_comes_first_is_named(bench: Bench) -> None:
    bench.evaluate()
    shards = bench.dataset.shards
    known = [(encoder, []) for encoder in bench.encoders]
    models = foresee_models(bench.config, shards, known, bench.store)

    def reasons(shards: Any, encoders: Any, models: Any) -> set[str]:
        found = foresee_evaluations(bench.config, shards, encoders, models, bench.store)
        assert all(entry is None and step.action == "compute" for entry, step in found)
        return {step.reason for _, step in found}

    unmade = [replace(shard, labels=None) for shard in shards]
    assert reasons(unmade, known, models) == {"the test shards are made first"}
    anew = [(encoder, [Step("extract", "x", "compute", "new")]) for encoder in bench.encoders]
    assert reasons(shards, anew, models) == {"an encoder is trained first"}
    untrained = [(entry, replace(step, action="compute")) for entry, step in models]
    assert reasons(shards, known, untrained) == {"its model is trained first"}


def test_other_weights_other_scores(bench: Bench) -> None:
    entries = bench.evaluate()
    path = f"models/{bench.models[0].digest}/receipt.json"
    receipt = bench.store.read_json(path)
    bench.store.publish_json(path, {**receipt, "note": "other weights"})
    changed = bench.evaluate()
    bench.store.publish_json(path, receipt)
    assert [a == b for a, b in zip(entries, changed, strict=True)] == [False] + [True] * 6


@pytest.mark.parametrize("file", ["model.json", "model.safetensors"])
def test_a_damaged_model_is_made_again_by_the_next_run(bench: Bench, file: str) -> None:
    before = bench.evaluate()
    bench.store.remove("evaluations")
    path = f"models/{bench.models[0].digest}/{file}"
    good = bench.store.read_bytes(path)
    bench.store.publish_bytes(path, good[:-1] + bytes([good[-1] ^ 1]))
    assert bench.train() == bench.models, "a size says nothing of the bytes"
    with pytest.raises(DamagedError, match=f"{file} was damaged; it will be made again: run the same command again"):
        bench.evaluate()
    assert bench.train() == bench.models
    assert bench.store.read_bytes(path) == good
    assert bench.evaluate() == before


def test_a_model_without_its_receipt_is_not_trusted(bench: Bench) -> None:
    path = f"models/{bench.models[0].digest}/receipt.json"
    bench.store.remove(path)
    with pytest.raises(DamagedError, match="made again"):
        open_model(bench.store, bench.models[0].digest)
    bench.train()
    open_model(bench.store, bench.models[0].digest)


def test_retrieval_by_instance_follows_the_pairing(bench: Bench) -> None:
    cca = bench.evaluate()[1]
    assert "instance" in bench.scores(cca)["retrieval"]["pairs"][0]
    data = bench.config.data.model_copy(update={"pairing": "class"})
    other = bench.evaluate(config=bench.config.model_copy(update={"data": data}))[1]
    assert other != cca
    assert "instance" not in bench.scores(other)["retrieval"]["pairs"][0]


def test_the_chosen_model_is_held_against_late_fusion_with_modalities_missing(bench: Bench) -> None:
    entries = bench.evaluate()
    board = leaderboard(bench.config, bench.models, entries, bench.store)
    of_row = {row["model"]: row["missing"]["scores"] for row in board["rows"]}
    found = [one for one in board["comparisons"] if one["family"] == "missing"]
    assert [(one["share"], one["against"]) for one in found] == [(0.3, "late"), (0.5, "late"), (0.7, "late")]
    for one, place in zip(found, (3, 5, 7), strict=True):
        assert one["difference"] == pytest.approx(of_row[board["chosen"]][place] - of_row["late"][place])
        assert one["low"] <= one["difference"] <= one["high"]
    assert any(sentence.startswith("With further modalities missing its difference") for sentence in board["verdict"])


def test_leaderboard_of_real_models(bench: Bench) -> None:
    board = leaderboard(bench.config, bench.models, bench.evaluate(), bench.store)
    assert board["chosen"] in {"concat", "cca"}
    assert board["late"] == "late"
    assert board["best_single"] in {"only-image", "only-audio"}
    assert [row["val"] for row in board["rows"]] == sorted(row["val"] for row in board["rows"])


def test_a_rerun_with_nothing_to_do_loads_no_heavy_library(bench: Bench) -> None:
    bench.evaluate()
    code = f"""
import pickle, sys
config, dataset, encoders, models, store = pickle.loads({_pickled(bench)!r})
from mmcore.evaluation.evaluate import evaluate_models, leaderboard
from mmcore.parallel import serial_pool
from mmcore.progress import Silent
entries = evaluate_models(config, dataset, encoders, models, store, serial_pool(config.compute), Silent())
leaderboard(config, models, entries, store)
print([m for m in ("torch", "sklearn", "scipy", "dask", "safetensors") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _pickled(bench: Bench) -> bytes:
    import pickle

    return pickle.dumps((bench.config, bench.dataset, bench.encoders, bench.models, bench.store))
