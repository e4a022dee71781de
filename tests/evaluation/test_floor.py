"""The floor of a run: each modality by its classical encoder, beside the configured one, from shards to verdict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmcore.config import RunConfig
from mmcore.evaluation.evaluate import evaluate_models, leaderboard
from mmcore.features.extract import encode_modality
from mmcore.fusion.data import load_views
from mmcore.fusion.fit import fit_models
from mmcore.fusion.late import LateFusion
from mmcore.parallel import serial_pool
from mmcore.planning import make_plan
from mmcore.progress import Silent
from mmcore.records import Dataset, EncoderEntry, Json, ModelEntry
from mmcore.report.build import build_report
from mmcore.shards.prepare import prepare
from mmcore.storage import Store
from tests.features.conftest import write_data


def settings(folder: Path, **changes: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "data": {
                "manifest": str(folder / "data/manifest.csv"),
                "modalities": {
                    "image": {"kind": "image", "column": "image", "size": 12, "mode": "grey"},
                    "audio": {"kind": "audio", "column": "audio", "sample_rate_hz": 8000},
                    "text": {"kind": "text", "column": "text"},
                },
            },
            "shards": {"samples": 16},
            "features": {
                "image": {"encoder": "hog", "size": 8, "cell": 4, "orientations": 2},
                "audio": {"encoder": "mel-stats"},
                "text": {"encoder": "ngram", "folds": 2, "word_ngrams": 1, "char_ngrams": 0, "max_features": 1},
            },
            "fusion": {"methods": ["concat"]},
            "compute": {"device": "cpu", "dask": {"workers": 0}, "retries": 0},
            "output": str(folder / "output"),
        }
        | changes
    )


def run(config: RunConfig) -> tuple[Dataset, list[EncoderEntry], list[ModelEntry], Json]:
    """All stages but the report; its record lies beside the output."""
    store, pool, silent = Store(config.output).open(), serial_pool(config.compute), Silent()
    dataset = prepare(config, store, pool, silent)
    encoders = [encode_modality(config, dataset, view, store, pool, silent) for view in config.encoders]
    models = fit_models(config, dataset, encoders, store, pool, silent)
    evaluations = evaluate_models(config, dataset, encoders, models, store, pool, silent)
    board = leaderboard(config, models, evaluations, store)
    record = {"run_id": "run-0", "name": "run", "config": config.model_dump(mode="json"), "dataset": dataset.digest}
    record |= {"ui_url": None}
    made = {"encoders": encoders, "models": models, "evaluations": evaluations}
    record |= {name: [asdict(entry) for entry in entries] for name, entries in made.items()}
    (Path(config.output).parent / "run.json").write_text(json.dumps(record | {"leaderboard": board}))
    return dataset, encoders, models, board


def to_compute(config: RunConfig) -> set[str]:
    return {step.name for step in make_plan(config, Store(config.output)).steps if step.action == "compute"}


def names(entries: Sequence[EncoderEntry]) -> dict[str, str]:
    return {entry.view: entry.name for entry in entries}


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    write_data(tmp_path / "data", rows=80)
    return settings(tmp_path)


def test_from_shards_to_verdict(config: RunConfig) -> None:
    dataset, encoders, models, board = run(config)
    own = {"image": "hog", "audio": "mel-stats", "text": "ngram"}
    assert names(encoders) == own | {"floor-text": "tfidf"}, "where the classical one is configured it is the floor"
    assert [model.name for model in models if model.floor] == ["floor-text"]
    rows = {row["model"]: row for row in board["rows"]}
    floor = rows["floor-text"]
    assert (floor["modalities"], floor["baseline"], floor["floor"], floor["chosen"]) == (["text"], True, True, False)

    store = Store(config.output)
    train, val, test = (load_views(store, dataset, encoders[3:], split) for split in ("train", "val", "test"))
    by_hand = LateFusion(modalities=["text"]).fit(train.views, train.labels, validation=val)
    assert floor["accuracy"] == by_hand.score(test.views, test.labels)
    np.testing.assert_allclose(train.views["text"].values.shape[1], 64)

    assert floor["accuracy"] > rows["only-text"]["accuracy"], "that one was made to know next to nothing"
    (pair,) = [one for one in board["comparisons"] if one["against"] == "floor-text"]
    assert pair["model"] == "only-text"
    assert pair["difference"] == pytest.approx(rows["only-text"]["accuracy"] - floor["accuracy"])
    assert board["best_single"] != "floor-text"
    (sentence,) = [one for one in board["verdict"] if "floor" in one]
    assert sentence.startswith("The encoder of text is not above its floor, the classical one (only-text ")


def test_the_page_shows_it(config: RunConfig) -> None:
    run(config)
    record = json.loads((Path(config.output).parent / "run.json").read_text())
    page = build_report(Store(config.output), record)
    assert page.count('<span class="tag">floor</span>') == 1
    assert "A floor reads its modality by a classical encoder" in page
    pedigree = page.partition('id="pedigree"')[2]
    assert "floor-text" in pedigree
    assert "tfidf, 64 wide, trained here" in pedigree
    columns = page.partition("Accuracy without")[2].partition("</thead>")[0]
    assert "floor" not in columns, "there are columns for modalities alone"


def test_the_plan_knows_it_and_it_stands_when_the_configured_encoder_changes(config: RunConfig) -> None:
    assert {"floor-text encoder", "floor-text train 1", "floor-text"} <= to_compute(config)
    _, before, _, _ = run(config)
    assert to_compute(config) == set()
    other = settings(
        Path(config.output).parent,
        features=config.model_dump()["features"] | {"text": {"encoder": "ngram", "folds": 3}},
    )
    assert {name for name in to_compute(other) if "floor" in name} == set()
    steps = make_plan(other, Store(config.output)).steps
    plan = {step.name: step.reason for step in steps if step.stage != "evaluate"}
    assert "settings changed: folds 2 -> 3" in plan["text encoder"]
    assert plan["only-text"] == "new encoder of text"
    _, after, _, _ = run(other)
    assert before[3] == after[3]


def test_a_run_can_do_without(config: RunConfig) -> None:
    without = config.model_copy(update={"floor": False})
    assert list(without.encoders) == ["image", "audio", "text"]
    _, _, models, board = run(without)
    assert not any(model.floor for model in models)
    assert not any("floor" in sentence for sentence in board["verdict"])
    unlabelled = config.data.model_copy(update={"columns": config.data.columns.model_copy(update={"label": None})})
    assert list(config.model_copy(update={"data": unlabelled}).encoders) == ["image", "audio", "text"]
