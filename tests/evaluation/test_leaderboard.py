"""The table, who is compared with whom, and the verdict in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmcore.config import RunConfig
from mmcore.errors import DamagedError
from mmcore.evaluation.leaderboard import leaderboard
from mmcore.evaluation.metrics import paired_difference, wilson_interval
from mmcore.records import EvaluationEntry, ModelEntry
from mmcore.storage import Store

N = 200


def _config(metric: str = "log_loss") -> RunConfig:
    return RunConfig.model_validate(
        {
            "data": {
                "manifest": "m.csv",
                "modalities": {name: {"kind": "text", "column": name} for name in ("text", "more")},
            },
            "features": {name: {"encoder": "ngram"} for name in ("text", "more")},
            "fusion": {"metric": metric},
        }
    )


def _publish(store: Store, name: str, modalities: list[str], right: np.ndarray, keys: list[str] | None = None) -> None:
    """What an evaluation leaves behind, for a model with these rows right."""
    low, high = wilson_interval(int(right.sum()), len(right))
    one = {"n": len(right), "accuracy": float(right.mean()), "low": low, "high": high, "macro_f1": 0.5, "log_loss": 1.0}
    scores = {
        "modalities": modalities,
        "overall": one,
        "without": {m: one for m in modalities if len(modalities) > 1},
        "alone": {m: {"all": one, "present": one} for m in modalities},
    }
    files = [store.publish_json(f"evaluations/{name}/scores.json", scores)]
    table = pa.table({"key": keys or [f"k{i}" for i in range(len(right))], "correct": right})
    with store.scratch() as folder:
        pq.write_table(table, folder / "p")
        files.append(store.publish_file(folder / "p", f"evaluations/{name}/predictions.parquet"))
    store.publish_json(f"evaluations/{name}/receipt.json", {"files": [file.as_json() for file in files]})


def _board(store: Store, right: dict[str, int], val: dict[str, float], metric: str = "log_loss") -> dict[str, Any]:
    """A leaderboard of models with so many of N rows right; names say what each one is."""
    models, entries = [], []
    for name, count in right.items():
        modalities = [name.removeprefix("only-")] if name.startswith("only-") else ["text", "more"]
        _publish(store, name, modalities, np.arange(N) < count)
        method = "late" if name.startswith("only-") else name
        models.append(ModelEntry(name, method, name, {metric: val[name]}, name.startswith("only-") or name == "late"))
        entries.append(EvaluationEntry(name, name))
    return leaderboard(_config(metric), models, entries, store)


def test_validation_chooses_not_test(store: Store) -> None:
    right = {"concat": 100, "cca": 150, "late": 120, "only-text": 90, "only-more": 110}
    val = {"concat": 0.2, "cca": 0.4, "late": 0.1, "only-text": 0.5, "only-more": 0.6}
    board = _board(store, right, val)
    assert [row["model"] for row in board["rows"]] == ["late", "concat", "cca", "only-text", "only-more"]
    assert (board["chosen"], board["best_single"], board["late"]) == ("concat", "only-text", "late")
    assert [row["model"] for row in board["rows"] if row["chosen"]] == ["concat"]
    higher = _board(store, right, val, metric="accuracy")
    assert (higher["chosen"], higher["best_single"]) == ("cca", "only-more")


def test_comparisons_are_paired(store: Store) -> None:
    right = {"concat": 100, "cca": 150, "late": 120, "only-text": 90}
    board = _board(store, right, {"concat": 0.2, "cca": 0.4, "late": 0.3, "only-text": 0.5})
    pairs = [(one["model"], one["against"]) for one in board["comparisons"]]
    assert pairs == [("concat", "late"), ("concat", "only-text"), ("late", "only-text"), ("cca", "only-text")]
    wanted = paired_difference(np.arange(N) < 100, np.arange(N) < 120)
    one = board["comparisons"][0]
    assert (one["difference"], one["low"], one["high"]) == (wanted.difference, wanted.low, wanted.high)
    assert (one["only_first"], one["only_second"], one["n"]) == (0, 20, N)


@pytest.mark.parametrize(
    ("fused", "single", "begins"),
    [
        (86, 102, "Fusion is below the best single modality here: concat 0.430, text alone 0.510."),
        (100, 101, "Fusion is below the best single modality here, but chance may explain the gap: concat 0.500, text"),
        (100, 100, "Fusion is level with the best single modality here: concat 0.500, text alone 0.500."),
        (101, 100, "Fusion is above the best single modality, but chance may explain the gap: concat 0.505, text"),
        (180, 100, "Fusion is above the best single modality: concat 0.900, text alone 0.500."),
    ],
)
def test_verdict_against_the_best_single_modality(store: Store, fused: int, single: int, begins: str) -> None:
    board = _board(store, {"concat": fused, "only-text": single}, {"concat": 0.2, "only-text": 0.5})
    assert board["verdict"][0].startswith(begins)
    assert board["verdict"][1].startswith("The difference in accuracy is ")


def test_verdict_on_late_fusion_and_the_others(store: Store) -> None:
    right = {"concat": 86, "cca": 60, "late": 140, "only-text": 102}
    board = _board(store, right, {"concat": 0.2, "cca": 0.4, "late": 0.3, "only-text": 0.5})
    assert any(
        s.startswith("concat is below plain late fusion of the same features (0.700): −") for s in board["verdict"]
    )
    assert board["verdict"][-1] == (
        "Also below the best single modality (text alone, 0.510): cca 0.300 (more than chance explains)."
    )


def test_nothing_to_fuse(store: Store) -> None:
    _publish(store, "concat", ["text"], np.arange(N) < 150)
    model = ModelEntry("concat", "concat", "concat", {"log_loss": 0.3})
    board = leaderboard(_config(), [model], [EvaluationEntry("concat", "concat")], store)
    assert board["verdict"][0] == "concat reaches a test accuracy of 0.750 on 200 rows."
    assert board["verdict"][1].endswith("It reads text only: there is nothing to fuse.")
    assert board["comparisons"] == []


def test_a_single_modality_that_validation_prefers(store: Store) -> None:
    _publish(store, "best", ["text"], np.arange(N) < 150)
    _publish(store, "cca", ["text", "more"], np.arange(N) < 120)
    models = [
        ModelEntry("best", "concat", "best", {"log_loss": 0.3}),
        ModelEntry("cca", "cca", "cca", {"log_loss": 1.0}),
    ]
    board = leaderboard(_config(), models, [EvaluationEntry(m.name, m.name) for m in models], store)
    assert board["verdict"][1].endswith("It reads text only: no fusion of several did better there.")
    assert board["verdict"][2] == (
        "Below the best single modality (text alone, 0.750): cca 0.600 (more than chance explains)."
    )


def test_late_fusion_among_the_methods(store: Store) -> None:
    _publish(store, "late", ["text", "more"], np.arange(N) < 150)
    _publish(store, "only-text", ["text"], np.arange(N) < 100)
    models = [
        ModelEntry("late", "late", "late", {"log_loss": 0.3}),
        ModelEntry("only-text", "late", "only-text", {"log_loss": 0.5}, baseline=True),
    ]
    board = leaderboard(_config(), models, [EvaluationEntry(m.name, m.name) for m in models], store)
    assert (board["chosen"], board["late"]) == ("late", "late")
    assert [(one["model"], one["against"]) for one in board["comparisons"]] == [("late", "only-text")]


def test_the_baseline_is_what_fusion_is_held_against(store: Store) -> None:
    models = [
        ModelEntry("late", "late", "late", {"log_loss": 0.3}),
        ModelEntry("late-2", "late", "late-2", {"log_loss": 0.5}, baseline=True),
    ]
    for model in models:
        _publish(store, model.name, ["text", "more"], np.arange(N) < 150)
    board = leaderboard(_config(), models, [EvaluationEntry(m.name, m.name) for m in models], store)
    assert (board["chosen"], board["late"]) == ("late", "late-2")
    assert [(one["model"], one["against"]) for one in board["comparisons"]] == [("late", "late-2")]


@pytest.mark.parametrize("file", ["scores.json", "predictions.parquet"])
def test_damaged_scores_are_made_again(store: Store, file: str) -> None:
    models = [
        ModelEntry("concat", "concat", "", {"log_loss": 0.3}),
        ModelEntry("only-text", "late", "", {"log_loss": 1.0}),
    ]
    _publish(store, "concat", ["text", "more"], np.arange(N) < 150)
    _publish(store, "only-text", ["text"], np.arange(N) < 100)
    path = f"evaluations/concat/{file}"
    data = bytearray(store.read_bytes(path))
    data[len(data) // 2] ^= 1
    store.publish_bytes(path, bytes(data))
    with pytest.raises(DamagedError, match=f"concat/{file} was damaged; it will be made again"):
        leaderboard(_config(), models, [EvaluationEntry(m.name, m.name) for m in models], store)
    assert not store.exists("evaluations/concat/receipt.json")
    assert store.exists("evaluations/only-text/receipt.json")


def test_nothing_trained(store: Store) -> None:
    board = leaderboard(_config(), [], [], store)
    assert (board["rows"], board["chosen"], board["verdict"]) == ([], None, [])


def test_predictions_of_other_rows(store: Store) -> None:
    _publish(store, "concat", ["text", "more"], np.arange(N) < 150)
    _publish(store, "only-text", ["text"], np.arange(N) < 100, [f"x{i}" for i in range(N)])
    models = [
        ModelEntry("concat", "concat", "", {"log_loss": 0.3}),
        ModelEntry("only-text", "late", "", {"log_loss": 1.0}),
    ]
    with pytest.raises(DamagedError, match="not of the same rows"):
        leaderboard(_config(), models, [EvaluationEntry(m.name, m.name) for m in models], store)


def test_scores_that_are_gone(store: Store) -> None:
    with pytest.raises(DamagedError, match=r"evaluations/x/scores\.json"):
        leaderboard(_config(), [ModelEntry("m", "cca", "", {"log_loss": 1.0})], [EvaluationEntry("m", "x")], store)
