"""The table over methods and seeds: who was chosen, what is compared with what, what is said of what is missing."""

from __future__ import annotations

import csv
import io
import statistics
from typing import Any

import numpy as np
import pytest

from mmcore.config import RunConfig
from mmcore.evaluation import comparison_words as words
from mmcore.evaluation.comparison import compare_seeds
from mmcore.evaluation.intervals import paired_difference, wilson_interval
from mmcore.records import EvaluationEntry, ModelEntry
from mmcore.storage import Store
from tests.evaluation.test_leaderboard import _publish

N = 200
MANIFEST = {"manifest": "m.csv", "modalities": {name: {"kind": "text", "column": name} for name in ("text", "more")}}


def config(metric: str = "log_loss") -> RunConfig:
    features = {name: {"encoder": "ngram"} for name in ("text", "more")}
    return RunConfig.model_validate({"data": MANIFEST, "features": features, "fusion": {"metric": metric}})


def right(count: int, seed: int = 0) -> np.ndarray:
    """So many of N rows right, which ones by the seed."""
    return np.random.default_rng(seed).permutation(N) < count


class Table:
    """Models and evaluations of several seeds, as the stages leave them in the store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.fitted: dict[int, list[ModelEntry]] = {}
        self.scored: dict[int, list[EvaluationEntry]] = {}

    def add(  # noqa: PLR0917
        self, seed: int, name: str, val: float | None, rows: np.ndarray, setting: str = "", digest: str = ""
    ) -> None:
        """A model of one seed with this validation log loss (None where it is not trained) and these rows right."""
        baseline = name.startswith(("only-", "floor-", "late"))
        digest = digest or f"{name}-{setting}-{seed}"
        scores = {} if val is None else {"log_loss": val, "accuracy": 1 - val, "macro_f1": 0.5}
        method = "late" if baseline else name
        entry = ModelEntry(name, method, digest, scores, baseline, name.startswith("floor-"), setting)
        self.fitted.setdefault(seed, []).append(entry)
        if val is None:
            return
        self.scored.setdefault(seed, []).append(EvaluationEntry(name, digest))
        modalities = [name.partition("-")[2]] if name.startswith(("only-", "floor-")) else ["text", "more"]
        self.publish(digest, modalities, rows, None if digest.startswith("closed") else seed)

    def publish(self, digest: str, modalities: list[str], rows: np.ndarray, seed: int | None) -> None:
        receipt = {"recipe": {"seed": seed}, "parameters": 1234, "size_bytes": 5000}
        self.store.publish_json(f"models/{digest}/receipt.json", receipt)
        costs = {"fit_seconds": 1.0 + (seed or 0), "peak_bytes": 10_000_000 * (1 + (seed or 0)), "resumed": False}
        self.store.publish_json(f"models/{digest}/costs.json", costs)
        _publish(self.store, digest, modalities, rows)
        predicting = {"predicted_rows": 4000, "predict_seconds": 0.5}
        self.store.publish_json(f"evaluations/{digest}/costs.json", predicting)

    def compare(self, metric: str = "log_loss") -> tuple[dict[str, Any], dict[str, Any]]:
        seeds = sorted(self.fitted)
        scored = [self.scored.get(seed, []) for seed in seeds]
        return compare_seeds(config(metric), seeds, [self.fitted[seed] for seed in seeds], scored, self.store)


@pytest.fixture
def table(store: Store) -> Table:
    """Two methods over three seeds; only-text and late draw no random numbers."""
    made = Table(store)
    for seed in range(3):
        made.add(seed, "gated", 0.3, right(170 + seed, seed))
        made.add(seed, "cca", 0.4 if seed else 0.2, right(120, 10 + seed))
        made.add(seed, "late", 0.35, right(165, 20), digest="closed-late")
        made.add(seed, "only-text", 0.5, right(150, 30), digest="closed-text")
        made.add(seed, "only-more", 0.6, right(160, 31), digest="closed-more")
        made.add(seed, "floor-text", 0.1, right(100, 32), digest="closed-floor")
    return made


def row(board: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = (row for row in board["rows"] if row["model"] == name)
    return one


def test_mean_and_standard_deviation_over_seeds(table: Table) -> None:
    board, found = table.compare()
    gated = row(board, "gated")
    accuracies = [(170 + seed) / N for seed in range(3)]
    assert gated["score"] == pytest.approx(statistics.fmean(accuracies))
    assert gated["sd"]["accuracy"] == pytest.approx(statistics.stdev(accuracies))
    assert (gated["low"], gated["high"]) == pytest.approx(wilson_interval(171, N))
    assert (found["total"], found["done"], found["missing"]) == (2 * 3 + 4, 10, [])
    assert len(found["fits"]) == 3 * 6


def test_what_draws_nothing_counts_for_every_seed(table: Table) -> None:
    board, found = table.compare()
    late, gated = found["models"]["late"], found["models"]["gated"]
    assert (late["seeds"], late["seeded"], row(board, "late")["sd"]["accuracy"]) == (3, False, 0.0)
    assert (gated["seeds"], gated["seeded"]) == (3, True)
    assert late["costs"]["fit_seconds"] == 1.0
    assert gated["costs"] == {
        "fit_seconds": 2.0,
        "resumed": False,
        "peak_bytes": 30_000_000,
        "parameters": 1234,
        "size_bytes": 5000,
        "rows_per_second": 8000.0,
    }


def test_how_often_validation_chose_a_method(table: Table) -> None:
    board, found = table.compare()
    assert (board["chosen"], board["best_single"]) == ("gated", "only-text")
    assert {name: one["chosen"] for name, one in found["models"].items() if one["chosen"]} == {"gated": 2, "cca": 1}


def test_differences_are_paired_over_the_seeds(table: Table) -> None:
    board, _ = table.compare()
    gated = np.stack([right(170 + seed, seed) for seed in range(3)], axis=1)
    wanted = paired_difference(gated, np.stack([right(150, 30)] * 3, axis=1))
    one = words.against(board, "gated", "single")
    assert (one["difference"], one["low"], one["high"], one["p"]) == pytest.approx(
        (wanted.difference, wanted.low, wanted.high, wanted.p)
    )
    assert words.against(board, "only-text", "single") is None
    assert words.against(board, "cca", "chosen")["difference"] == pytest.approx((120 - 171) / N)


def test_the_setting_that_stands_may_differ_by_seed(table: Table) -> None:
    for seed, best in enumerate("aab"):
        for setting in "ab":
            stands = setting == best
            digest = f"pls-{setting}-{seed}"
            scores = {"log_loss": 0.7 if stands else 0.8, "accuracy": 0.5, "macro_f1": 0.5}
            table.fitted[seed].append(ModelEntry("pls", "pls", digest, scores, setting=setting))
            if stands:
                table.scored[seed].append(EvaluationEntry("pls", digest))
                table.publish(digest, ["text", "more"], right(140, 50), seed)
    board, found = table.compare()
    assert row(board, "pls")["settings"] == {"a": 2, "b": 1}
    assert row(board, "pls")["score"] == pytest.approx(0.7)
    assert words.settings(row(board, "pls")) == "a (2), b (1)"
    assert [fit["setting"] for fit in found["fits"] if fit["model"] == "pls"] == ["a", "a", "b"]


def test_what_is_not_done_is_said(store: Store) -> None:
    table = Table(store)
    for seed in range(2):
        table.add(seed, "gated", 0.3 if seed == 0 else None, right(170, seed))
        table.add(seed, "only-text", 0.5, right(150, 30), digest="closed-text")
    board, found = table.compare()
    assert (found["total"], found["done"]) == (3, 2)
    assert found["missing"] == [{"seed": 1, "model": "gated", "failed": ""}]
    assert found["models"]["gated"]["seeds"] == 1
    assert board["verdict"][-1] == "1 of 3 fits not done: time limit. The same command without it goes on from there."


def test_nothing_is_done(store: Store) -> None:
    table = Table(store)
    table.add(0, "gated", None, right(1))
    board, found = table.compare()
    assert (board["rows"], board["chosen"], found["models"]) == ([], None, {})
    assert board["verdict"] == ["1 of 1 fits not done: time limit. The same command without it goes on from there."]
    assert words.leaderboard_csv(board, found) == words.fits_csv(found, board["metrics"]) == ""


def test_as_csv(table: Table) -> None:
    board, found = table.compare()
    lines = {line["model"]: line for line in csv.DictReader(io.StringIO(words.leaderboard_csv(board, found)))}
    assert list(lines) == [one["model"] for one in board["rows"]]
    gated = lines["gated"]
    assert (gated["accuracy_mean"], gated["parameters"], gated["fit_seconds"]) == ("0.855", "1234", "2")
    assert (gated["chosen"], gated["seeds_chosen"]) == ("1", "2")
    assert float(gated["vs_single_difference"]) == pytest.approx(0.105)
    assert list(gated)[-3:] == list(words.MEASURED), "what differs from run to run comes last"
    assert {name: line["role"] for name, line in lines.items()} == {
        "gated": "",
        "cca": "",
        "late": "baseline",
        "only-more": "single",
        "only-text": "single, chosen",
        "floor-text": "floor",
    }
    fits = list(csv.DictReader(io.StringIO(words.fits_csv(found, board["metrics"]))))
    assert sorted((fit["model"], fit["seed"]) for fit in fits) == sorted(
        (name, str(s)) for name in lines for s in range(3)
    )
    assert [fit["test_accuracy"] for fit in fits if fit["model"] == "gated"] == ["0.85", "0.855", "0.86"]


@pytest.mark.parametrize(
    ("value", "short"), [(None, "–"), (7, "7"), (1310, "1.31k"), (123_456, "123k"), (2_500_000, "2.5M"), (9e9, "9G")]
)
def test_amounts(value: float | None, short: str) -> None:
    assert words.amount(value) == short


@pytest.mark.parametrize(
    ("time_s", "resumed", "short"),
    [
        (None, False, "–"),
        (0.04, False, "0.0 s"),
        (9.96, False, "10 s"),
        (89, True, ">89 s"),
        (720, False, "12 min"),
        (5400, False, "1.5 h"),
    ],
)
def test_fit_times(time_s: float | None, resumed: bool, short: str) -> None:
    assert words.seconds({"fit_seconds": time_s, "resumed": resumed}) == short


@pytest.mark.parametrize(
    ("size", "short"), [(None, "–"), (3.0, "1 MB"), (12_400_000, "12 MB"), (999e6, "999 MB"), (1.54e9, "1.5 GB")]
)
def test_memory(size: float | None, short: str) -> None:
    assert words.memory(size) == short


def test_sizes() -> None:
    assert [words.bytes_short(size) for size in (10, 143_091, 2_000_000)] == ["1 kB", "143 kB", "2 MB"]


@pytest.mark.parametrize(("p", "short"), [(0.0001, "<.001"), (0.0123, ".012"), (0.25, ".25"), (1.0, "1.00")])
def test_p_values(p: float, short: str) -> None:
    assert words.p_value(p) == short


def test_what_the_data_do_not_suit_is_said_once() -> None:
    fits = [{"seed": seed, "model": "cca", "failed": "no direction in common"} for seed in range(2)]
    found = {"missing": [*fits, {"seed": 0, "model": "late", "failed": ""}], "total": 3, "done": 2, "why": "time limit"}
    said = words.unfinished(found)
    assert said[0] == "cca is left out: no direction in common."
    assert said[1].startswith("1 of 3 fits not done: time limit.")
    assert len(said) == 2
