"""The table, who is compared with whom, and the verdict in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmcore.config import RunConfig
from mmcore.errors import DamagedError
from mmcore.evaluation.intervals import holm, paired_difference, wilson_interval
from mmcore.evaluation.leaderboard import leaderboard
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


def _publish(
    store: Store,
    name: str,
    modalities: list[str],
    right: np.ndarray,
    keys: list[str] | None = None,
    *,
    groups: list[str] | None = None,
    unused: tuple[str, ...] = (),
) -> None:
    """What an evaluation leaves behind, for a model with these rows right."""
    low, high = wilson_interval(int(right.sum()), len(right))
    one = {"n": len(right), "accuracy": float(right.mean()), "macro_f1": 0.5, "log_loss": 1.0}
    lost = {m: {"score": 0.4, "loss": {"low": -0.1 if m in unused else 0.1}} for m in modalities}
    curve = {"at": [0.0, 0.5], "scores": [float(right.mean()), 0.3], "area": 0.2}
    scores = {
        "modalities": modalities,
        "handles_missing": "native",
        "contains_training_rows": False,
        "overall": {**one, "score": float(right.mean()), "low": low, "high": high},
        "without": {m: one for m in modalities if len(modalities) > 1},
        "alone": {m: {"all": one, "present": one} for m in modalities},
        "uses": {
            "shuffled": lost,
            "shapley": {"values": dict.fromkeys(modalities, 0.1)},
            "missing": curve,
            "noise": curve,
        },
    }
    files = [store.publish_json(f"evaluations/{name}/scores.json", scores)]
    table = pa.table({"key": keys or [f"k{i}" for i in range(len(right))], "score": right.astype(float)})
    if groups is not None:
        table = table.append_column("group", pa.array(groups))
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
    single = [("concat", "only-text"), ("late", "only-text"), ("cca", "only-text")]
    assert pairs == [*single, ("late", "concat"), ("cca", "concat")]
    wanted = paired_difference(np.arange(N) < 120, np.arange(N) < 100)
    one = board["comparisons"][3]
    assert (one["family"], one["difference"], one["low"], one["high"], one["p"]) == (
        "chosen",
        wanted.difference,
        wanted.low,
        wanted.high,
        wanted.p,
    )
    assert (one["only_first"], one["only_second"], one["n"]) == (20, 0, N)
    for family in ("single", "chosen"):
        members = [one for one in board["comparisons"] if one["family"] == family]
        assert [one["p_holm"] for one in members] == holm([one["p"] for one in members])


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
    assert board["verdict"][-1] == ("Fusion harms, by more than chance explains, in: cca 0.300 (text alone, 0.510).")


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
    assert board["verdict"][2] == ("Fusion harms, by more than chance explains, in: cca 0.600 (text alone, 0.750).")


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
    assert [(one["model"], one["against"]) for one in board["comparisons"]] == [("late-2", "late")]


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
    with pytest.raises(DamagedError, match=r"evaluations/x/predictions\.parquet"):
        leaderboard(_config(), [ModelEntry("m", "cca", "", {"log_loss": 1.0})], [EvaluationEntry("m", "x")], store)


def _entry(name: str, val: float, *, seed: int = 0, method: str | None = None, baseline: bool = False) -> ModelEntry:
    return ModelEntry(name, method or name, f"{name}-{seed}", {"log_loss": val}, baseline)


def test_several_seeds_are_one_table(store: Store) -> None:
    rng = np.random.default_rng(0)
    right = {f"cca-{seed}": rng.random(N) < 0.6 + 0.1 * seed for seed in range(3)}
    right["late"] = rng.random(N) < 0.7
    right["only-text"] = rng.random(N) < 0.65
    for name, rows in right.items():
        _publish(store, name, ["text"] if name == "only-text" else ["text", "more"], rows)
    # Methods without chance have one evaluation for all seeds.
    tables = [
        (
            [
                _entry("late", 0.3, method="late"),
                _entry("cca", 0.4 - 0.1 * seed),
                _entry("only-text", 0.5, baseline=True),
            ],
            [
                EvaluationEntry("late", "late"),
                EvaluationEntry("cca", f"cca-{seed}"),
                EvaluationEntry("only-text", "only-text"),
            ],
        )
        for seed in range(3)
    ]
    board = leaderboard(_config(), *tables[0], store, tables[1:])
    rows = {row["model"]: row for row in board["rows"]}
    of_seeds = [float(right[f"cca-{seed}"].mean()) for seed in range(3)]
    assert board["seeds"] == rows["cca"]["seeds"] == 3
    assert rows["cca"]["accuracy"] == pytest.approx(np.mean(of_seeds))
    assert rows["cca"]["sd"]["accuracy"] == pytest.approx(np.std(of_seeds, ddof=1))
    assert rows["late"]["sd"]["accuracy"] == 0
    assert rows["cca"]["val"] == pytest.approx(0.3)
    assert (rows["cca"]["low"], rows["cca"]["high"]) == pytest.approx(wilson_interval(np.mean(of_seeds) * N, N))
    assert board["chosen"] == "late", "the first of equals by the mean over seeds"
    every = np.stack([right[f"cca-{seed}"] for seed in range(3)], axis=1)
    wanted = paired_difference(every, right["only-text"])
    one = next(one for one in board["comparisons"] if (one["model"], one["against"]) == ("cca", "only-text"))
    assert (one["difference"], one["p"], one["only_first"]) == (wanted.difference, wanted.p, wanted.only_first)
    assert "the mean of 3 seeds" in " ".join(board["verdict"])


def test_groups_are_drawn_whole_where_there_are_some(store: Store) -> None:
    names = [f"speaker {i // 20}" for i in range(N)]
    right = np.arange(N) % 40 < 30
    for name, modalities in (("concat", ["text", "more"]), ("only-text", ["text"])):
        _publish(store, name, modalities, right if name == "concat" else np.arange(N) % 40 < 20, groups=names)
    models = [_entry("concat", 0.3), _entry("only-text", 0.5, baseline=True)]
    board = leaderboard(_config(), models, [EvaluationEntry(m.name, m.name) for m in models], store)
    assert board["interval"] == "a bootstrap that draws whole groups of rows"
    assert board["group_note"] == "The test rows come from only 10 groups: such intervals are too narrow."
    row = board["rows"][0]
    low, high = wilson_interval(int(right.sum()), N)
    assert row["high"] - row["low"] > 1.5 * (high - low), "each speaker is right throughout, or half the time"
    groups = np.repeat(np.arange(10), 20)
    assert board["comparisons"][0]["p"] == paired_difference(right, np.arange(N) % 40 < 20, groups).p


def test_a_modality_that_shows_no_use_is_named(store: Store) -> None:
    _publish(store, "concat", ["text", "more"], np.arange(N) < 150, unused=("more",))
    _publish(store, "only-text", ["text"], np.arange(N) < 140, unused=("text",))
    models = [_entry("concat", 0.3), _entry("only-text", 0.5, baseline=True)]
    board = leaderboard(_config(), models, [EvaluationEntry(m.name, m.name) for m in models], store)
    assert board["rows"][0]["unused"] == ["more"]
    assert board["verdict"][-1] == (
        "No sign that more is used, for shuffling it across rows costs nothing beyond chance: concat."
    )


def test_what_is_missing_may_tell_of_labels(store: Store) -> None:
    right = {"concat": 180, "majority": 20, "missingness": 80, "only-text": 120}
    for name, count in right.items():
        _publish(
            store, name, ["text"] if name == "only-text" else ["text", "more"], np.arange(N) < count, unused=("text",)
        )
    models = [
        _entry("concat", 0.3),
        *(_entry(name, 2.0, baseline=True) for name in ("majority", "missingness")),
        _entry("only-text", 0.5, baseline=True),
    ]
    board = leaderboard(_config(), models, [EvaluationEntry(m.name, m.name) for m in models], store)
    assert board["verdict"][-1] == (
        "What is missing tells something of the labels: missingness alone reaches 0.400, majority 0.100."
    )
    pairs = [(one["family"], one["model"], one["against"]) for one in board["comparisons"]]
    assert pairs == [("single", "concat", "only-text"), ("missingness", "missingness", "majority")]
    assert "majority" not in board["verdict"][3], "nobody expects it to use anything"


def test_long_lists_of_models_are_cut(store: Store) -> None:
    right = {f"m{i}": 40 + i for i in range(12)} | {"concat": 150, "only-text": 120}
    board = _board(store, right, {name: 0.1 if name == "concat" else 0.5 for name in right})
    harms = next(sentence for sentence in board["verdict"] if sentence.startswith("Fusion harms"))
    assert harms.endswith("and 4 more (text alone, 0.600).")
