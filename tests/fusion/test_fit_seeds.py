"""Methods, settings and seeds as one list of fits: what is done once, what is left out, what stands for what."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from mmcore.config import ConcatSettings, RunConfig
from mmcore.errors import StageError
from mmcore.fusion import fit, planned
from mmcore.fusion.costs import read_costs
from mmcore.fusion.fit import (
    fit_models,
    fit_seeds,
    foresee_models,
    foreseen_standing,
    read_receipt,
    standing,
)
from mmcore.fusion.planned import plan_models
from mmcore.parallel import serial_pool
from mmcore.progress import Silent
from mmcore.records import ModelEntry
from tests.fusion.test_fit import WEIGHTED, Bench, bench  # noqa: F401 - a fixture

GRID = {"method": "cca", "grid": {"n_components": [1, 2, 3]}}
BASELINES = ["late", "majority", "missingness", "only-image", "only-audio"]


class Counted(Silent):
    """Says how many fits there were."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.total = self.reused = 0

    def start(self, total: int, *, reused: int = 0, unit: str = "shards") -> None:
        self.total, self.reused = total, reused

    def advance(self, units: float = 1, *, samples: int = 0, rejected: int = 0, note: str = "") -> None:
        self.notes += [] if " epoch " in note else [note]


def fit_all(
    bench: Bench,  # noqa: F811
    config: RunConfig,
    seeds: list[int],
    start_by: float | None = None,
) -> tuple[list[list[ModelEntry]], Counted]:
    said = Counted()
    pool = serial_pool(config.compute)
    found = fit_seeds(config, bench.dataset, bench.encoders, bench.store, pool, said, seeds=seeds, start_by=start_by)
    return found, said


def entry(name: str, setting: str, log_loss: float | None, *, baseline: bool = False) -> ModelEntry:
    scores = {} if log_loss is None else {"log_loss": log_loss, "accuracy": 1 - log_loss}
    return ModelEntry(name, "cca", f"{name}-{setting}", scores, baseline, setting=setting)


def test_validation_chooses_the_setting_that_stands() -> None:
    fits = [entry("cca", "a", 0.3), entry("cca", "b", 0.2), entry("cca", "c", 0.2), entry("late", "", 0.1)]
    assert [one.title for one in standing(fits, "log_loss")] == ["cca[b]", "late"]
    assert [one.title for one in standing(fits, "accuracy")] == ["cca[b]", "late"]
    assert [one.title for one in standing([*fits, entry("cca", "d", None)], "log_loss")] == ["late"]


def test_each_setting_is_a_fit_of_its_own(bench: Bench) -> None:  # noqa: F811
    config = bench.config([GRID, "concat"])
    models = bench.fit(config)
    titles = [f"cca[n_components={k}]" for k in (1, 2, 3)]
    assert [model.title for model in models] == [*titles, "concat", *BASELINES]
    for model, k in zip(models, (1, 2, 3), strict=False):
        assert read_receipt(bench.store, model.digest)["recipe"]["settings"]["n_components"] == k
    plain = bench.fit(bench.config([{"method": "cca", "n_components": 2}]))
    assert plain[0].digest == models[1].digest, "what a grid holds is what its settings say"
    best = min(models[:3], key=lambda model: model.val_scores["log_loss"])
    assert standing(models, "log_loss")[0] == best


def test_what_will_be_scored_is_known_once_all_settings_are_trained(bench: Bench) -> None:  # noqa: F811
    config = bench.config([GRID])
    known = [(encoder, []) for encoder in bench.encoders]

    def scored() -> list[tuple[str | None, str, str]]:
        found = foresee_models(config, bench.dataset.shards, known, bench.store)
        return [(one and one.title, step.name, step.action) for one, step in foreseen_standing(config, found)]

    assert scored()[0] == (None, "cca", "compute")
    models = bench.fit(config)
    best = standing(models, "log_loss")[0].title
    assert scored()[0] == (best, best, "reuse")
    assert [name for _, name, _ in scored()[1:]] == BASELINES
    bench.store.remove(f"models/{models[0].digest}/receipt.json")
    assert scored()[0] == (None, "cca", "compute")


def test_a_closed_form_is_fitted_once_for_all_seeds(bench: Bench) -> None:  # noqa: F811
    config = bench.config([GRID, WEIGHTED])
    found, said = fit_all(bench, config, [0, 1, 2])
    assert (said.total, said.reused) == (3 + 3 + len(BASELINES), 0)
    assert sorted(said.notes) == sorted(
        [f"cca[n_components={k}]" for k in (1, 2, 3)] + [f"weighted (seed {s})" for s in (0, 1, 2)] + BASELINES
    )
    by_name = [{model.title: model.digest for model in models} for models in found]
    assert len({one["weighted"] for one in by_name}) == 3
    assert len({one["cca[n_components=2]"] for one in by_name}) == len({one["late"] for one in by_name}) == 1
    assert read_receipt(bench.store, by_name[2]["weighted"])["recipe"]["seed"] == 2
    assert read_receipt(bench.store, by_name[2]["late"])["recipe"]["seed"] is None
    again, said = fit_all(bench, config, [0, 1, 2])
    assert again == found
    assert (said.total, said.reused, said.notes) == (11, 11, [])
    more, said = fit_all(bench, config, [2, 3])
    assert (more[0], said.notes) == (found[2], ["weighted (seed 3)"])


def test_no_fit_begins_after_the_limit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    config = bench.config([GRID, WEIGHTED])
    none, said = fit_all(bench, config, [0, 1], start_by=time.time() - 1)
    assert [one.val_scores for models in none for one in models] == [{}] * (2 * 9)
    assert (said.total, said.notes) == (10, [])
    assert bench.store.folders("models") == []

    begun = iter([0.0] * 4 + [2.0] * 6)
    monkeypatch.setattr(fit, "time", type("Clock", (), {"time": staticmethod(lambda: next(begun))}))
    some, said = fit_all(bench, config, [0, 1], start_by=1.0)
    done = [model.title for model in some[0] if model.val_scores]
    assert done == ["cca[n_components=1]", "cca[n_components=2]", "cca[n_components=3]", "weighted"]
    assert [model.name for model in standing(some[0], "log_loss")] == ["cca", "weighted"]
    assert [model.name for model in standing(some[1], "log_loss")] == ["cca"]
    monkeypatch.undo()
    whole, said = fit_all(bench, config, [0, 1])
    assert (said.total, said.reused) == (10, 4)
    assert [model for model in whole[0] if model.title in done] == [model for model in some[0] if model.val_scores]


def test_costs_lie_beside_and_sizes_in_the_receipt(bench: Bench) -> None:  # noqa: F811
    for model in bench.fit(bench.config(["concat", WEIGHTED])):
        folder = Path(bench.store.url(f"models/{model.digest}"))
        receipt = read_receipt(bench.store, model.digest)
        arrays = safetensors.numpy.load_file(folder / "model.safetensors")
        assert receipt["parameters"] == sum(np.size(array) for array in arrays.values())
        files = [folder / Path(file["path"]).name for file in receipt["files"]]
        assert receipt["size_bytes"] == sum(file.stat().st_size for file in files)
        measured = read_costs(bench.store, f"models/{model.digest}")
        assert measured["fit_seconds"] > 0
        assert measured["peak_bytes"] >= 0
        assert measured["resumed"] is False
        assert "costs.json" not in str(receipt["files"])
        (folder / "costs.json").unlink()
        assert bench.actions(bench.config(["concat", WEIGHTED]))[model.name] == "reuse", "it is no part of the model"


def test_a_fit_that_fails_is_named_with_its_setting_and_seed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr("mmcore.fusion.weighted.WeightedFusion.fit", fails)
    config = bench.config([{**WEIGHTED, "grid": {"dim": [4, 8]}}])
    config = config.model_copy(update={"compute": config.compute.model_copy(update={"retries": 0})})
    with pytest.raises(StageError, match=r"model weighted\[dim=4\] \(seed 7\) failed: RuntimeError: no luck"):
        fit_models(
            config.model_copy(update={"fusion": config.fusion.model_copy(update={"seed": 7})}),
            bench.dataset,
            bench.encoders,
            bench.store,
            serial_pool(config.compute),
            Silent(),
        )


def test_a_plain_late_in_a_grid_is_not_the_baseline(bench: Bench) -> None:  # noqa: F811
    plans = plan_models(bench.config([{"method": "late", "grid": {"C": ["auto", 1.0]}}]))
    assert [plan.title for plan in plans if plan.method == "late"] == [
        "late[C=auto]",
        "late[C=1]",
        "late-2",
        "only-image",
        "only-audio",
    ]


def test_baselines_stand_once_beside_the_methods(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(planned, "BASELINES", (ConcatSettings,))
    plans = plan_models(bench.config(["cca"]))
    assert [(plan.name, plan.baseline) for plan in plans] == [
        ("cca", False),
        ("late", True),
        ("concat", True),
        ("only-image", True),
        ("only-audio", True),
    ]
    listed = plan_models(bench.config(["concat"]))
    assert [plan.baseline for plan in listed if plan.name == "concat"] == [True]
