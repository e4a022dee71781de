"""Several labels, and numbers, from the manifest to the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as peer

from mmcore.config import RunConfig, demand_learnable
from mmcore.config.fusion import OwnFusion
from mmcore.config.metrics import METRICS, headline
from mmcore.errors import ConfigError
from mmcore.evaluation.evaluate import open_model
from mmcore.evaluation.predictions import read_row_scores
from mmcore.fusion.data import load_views
from mmcore.planning import make_plan
from mmcore.records import Dataset
from mmcore.report.build import build_report
from mmcore.shards.read import read_index
from mmcore.storage import Store
from tests.evaluation.test_floor import run

ROWS = 160
ANIMALS, PLACES = ("ant", "bee", "cat"), ("sea", "hill", "wood")


def _manifest(folder: Path, task: str) -> Path:
    """Two texts per row, each of which tells a part of what is to be learned; some rows lack one, some their label."""
    rng = np.random.default_rng(0)
    lines = ["id,label,split,speaker,first,second"]
    for row in range(ROWS):
        animals = [name for name in ANIMALS if rng.random() < 0.4]
        place = int(rng.integers(3))
        number = 2.0 * len(animals) + 0.5 * place + rng.normal(0, 0.1)
        label = f"{number:.3f}" if task == "regression" else json.dumps([*animals, PLACES[place]]).replace('"', '""')
        label = "" if row % 40 == 39 else f'"{label}"'
        first = " ".join([*animals, "and"]) if row % 9 else ""
        second = f"the {PLACES[place]} again" if row % 7 else ""
        lines.append(f"r{row:03},{label},{('train', 'train', 'val', 'test')[row % 4]},s{row // 16},{first},{second}")
    folder.mkdir(parents=True)
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


def _config(folder: Path, task: str, **changes: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "data": {
                "manifest": str(_manifest(folder / "data", task)),
                "task": task,
                "columns": {"group": "speaker"} | ({"group": None} if task == "multilabel" else {}),
                "split": {"by": "speaker", "ratios": {"train": 0.5, "val": 0.2, "test": 0.3}},
                "modalities": {n: {"kind": "text", "column": n, "inline": True} for n in ("first", "second")},
                "max_rejected": 1.0,
            },
            "features": {name: {"encoder": "tfidf", "components": 8} for name in ("first", "second")},
            "fusion": {"methods": ["concat", "weighted", {"method": "cca", "n_components": 4}]},
            "compute": {"device": "cpu", "dask": {"workers": 0}, "retries": 0},
            "output": str(folder / "output"),
        }
        | changes
    )


def _truth(store: Store, dataset: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for shard in dataset.of("test"):
        index = read_index(store, shard)
        found |= dict(zip(index["key"].to_pylist(), index["label"].to_pylist(), strict=True))
    return {key: label for key, label in found.items() if label is not None}


@pytest.fixture(scope="module", params=["multilabel", "regression"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    config = _config(tmp_path_factory.mktemp(request.param), request.param)
    demand_learnable(config)
    return config, *run(config)


def _predictions(store: Store, evaluation: str) -> pa.Table:
    with store.as_local(f"evaluations/{evaluation}/predictions.parquet") as file:
        return pq.read_table(file)


def test_every_model_is_scored_by_its_task(made: Any) -> None:
    config, dataset, _, models, board = made
    store, task = Store(config.output), config.data.task
    truth = _truth(store, dataset)
    assert {"concat", "weighted", "cca", "late", "only-first", "only-second"} <= {row["model"] for row in board["rows"]}
    assert (board["task"], board["headline"], board["metrics"]) == (task, headline(task), list(METRICS[task]))
    assert board["metric"] == ("rmse" if task == "regression" else "log_loss")
    assert all(set(model.val_scores) == set(METRICS[task]) for model in models)
    for row in board["rows"]:
        table = _predictions(store, row["evaluation"])
        assert table["key"].to_pylist() == [key for key in table["key"].to_pylist() if key in truth]
        assert len(table) == len(truth), "rows without a label are not judged"
        if task == "regression":
            numbers = np.array([truth[key] for key in table["key"].to_pylist()])
            assert row["r2"] == pytest.approx(peer.r2_score(numbers, table["predicted"].to_numpy()))
            assert row["rmse"] == pytest.approx(peer.root_mean_squared_error(numbers, table["predicted"].to_numpy()))
        else:
            names = sorted({*ANIMALS, *PLACES})
            right = np.array([[name in truth[key] for name in names] for key in table["key"].to_pylist()])
            said = np.array([[name in row for name in names] for row in table["predicted"].to_pylist()])
            assert row["sample_f1"] == pytest.approx(peer.f1_score(right, said, average="samples", zero_division=1.0))
            assert row["micro_f1"] == pytest.approx(peer.f1_score(right, said, average="micro"))
        assert row["score"] == row[headline(task)] == pytest.approx(np.mean(table["score"].to_numpy()))
        assert row["low"] <= row["score"] <= row["high"]
        assert np.isfinite([*row["missing"]["scores"], *row["noise"]["scores"], *row["shapley"].values()]).all()


def test_fusion_finds_what_neither_text_tells_alone(made: Any) -> None:
    *_, board = made
    rows = {row["model"]: row for row in board["rows"]}
    assert rows["concat"]["score"] > max(rows["only-first"]["score"], rows["only-second"]["score"])
    assert board["verdict"][0].startswith("Fusion is above the best single modality")
    for name in ("first", "second"):
        assert rows["concat"]["shuffled"][name] < rows["concat"]["score"]
        assert rows["concat"]["without"][name] < rows["concat"]["score"]
    assert rows["concat"]["unused"] == []


def test_groups_are_those_of_the_manifest(made: Any) -> None:
    config, _, _, _, board = made
    of_rows = read_row_scores(Store(config.output), board["rows"][0]["evaluation"])
    if config.data.columns.group is None:
        assert of_rows.groups is None
        assert board["interval"] == "a bootstrap over rows"
        return
    assert board["interval"] == "a bootstrap that draws whole groups of rows"
    speakers = [int(key[1:]) // 16 for key in of_rows.keys]
    assert len({*zip(speakers, of_rows.groups.tolist(), strict=True)}) == len(set(speakers)) == len(set(of_rows.groups))
    assert "groups" in board["group_note"]


def test_the_page_says_it_in_the_words_of_the_task(made: Any) -> None:
    config, *_, board = made
    record = json.loads((Path(config.output).parent / "run.json").read_text())
    page = build_report(Store(config.output), record)
    assert ("Exact match" in page) == (config.data.task == "multilabel")
    assert ("RMSE" in page) == (config.data.task == "regression")
    assert "Confusion matrix" not in page
    assert "Samples by class" not in page
    for sentence in board["verdict"]:
        assert sentence.replace("'", "&#39;") in page


def test_a_plan_knows_that_all_is_done(made: Any) -> None:
    config, *_ = made
    assert {step.action for step in make_plan(config, Store(config.output)).steps} == {"reuse"}


def test_a_reloaded_model_gives_the_same_scores(made: Any) -> None:
    config, dataset, encoders, models, board = made
    store = Store(config.output)
    model = open_model(store, models[0].digest)
    rows = load_views(store, dataset, encoders, "test")
    labelled = np.isin(rows.keys, list(_truth(store, dataset)))
    row = next(row for row in board["rows"] if row["model"] == models[0].name)
    wanted = row["r2"] if config.data.task == "regression" else row["subset_accuracy"]
    assert model.score(rows.views[labelled], rows.labels[labelled]) == pytest.approx(wanted)


def test_encoders_of_classes_are_refused(tmp_path: Path) -> None:
    config = _config(tmp_path, "regression", features={n: {"encoder": "ngram"} for n in ("first", "second")})
    with pytest.raises(ConfigError) as caught:
        demand_learnable(config)
    assert str(caught.value).count("the ngram encoder learns from classes, and data.task is regression.") == 2
    assert "tfidf" in str(caught.value)


def test_a_metric_of_another_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fusion.metric: 'accuracy' does not score regression; there are: r2, rmse"):
        _config(tmp_path, "regression", fusion={"metric": "accuracy"})


def test_settings_say_what_their_method_learns() -> None:
    """So that a run is refused before any work, without loading the method."""
    for settings in get_args(OwnFusion):
        assert settings.tasks == settings().load().tasks, settings.__name__
