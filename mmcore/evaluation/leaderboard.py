"""All models of a run side by side: the table, who beats whom, and the verdict in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mmcore.config import RunConfig
from mmcore.errors import DamagedError
from mmcore.evaluation.whole import read_whole
from mmcore.fusion.fit import choose_best
from mmcore.records import EvaluationEntry, Json, ModelEntry
from mmcore.storage import Store

if TYPE_CHECKING:
    from mmcore.evaluation.metrics import Array

LOWER_IS_BETTER = frozenset({"log_loss"})
METRIC_WORDS = {"log_loss": "log loss", "accuracy": "accuracy", "macro_f1": "macro F1"}

Row = dict[str, Any]


def leaderboard(
    config: RunConfig, models: Sequence[ModelEntry], evaluations: Sequence[EvaluationEntry], store: Store
) -> dict[str, Json]:
    """The models by their validation score, best first, with comparisons and a verdict; reads scores only.

    `rows` hold what a table shows; `chosen` is the fusion model that validation chose (`fusion.metric`), `best_single`
    and `late` the baselines that it is held against; `comparisons` are differences of accuracy on the same test rows
    with paired bootstrap 95% intervals; `verdict` are sentences, the first of which says it all.
    Raises DamagedError where scores that a run names are missing or damaged; the next run makes those again.
    """
    metric = config.fusion.metric
    scored = {entry.model: entry.digest for entry in evaluations}
    rows = [_row(model, _scores(store, scored[model.name]), scored[model.name], metric) for model in models]
    rows.sort(key=lambda row: (row["val"] if metric in LOWER_IS_BETTER else -row["val"], row["model"]))
    best = choose_best(models, metric).name if any(not model.baseline for model in models) else None
    chosen = next((row for row in rows if row["model"] == best), None)
    best_single = next((row for row in rows if len(row["modalities"]) == 1 and not row["floor"]), None)
    late = _plain_late(rows)
    for row in rows:
        row["chosen"] = row is chosen
    pairs = _pairs(rows, chosen, best_single, late)
    right = {name: _right(store, scored[name]) for pair in pairs for name in pair}
    comparisons = [_compare(right, first, second) for first, second in pairs]
    board = {
        "metric": metric,
        "chosen": chosen and chosen["model"],
        "best_single": best_single and best_single["model"],
        "late": late and late["model"],
        "rows": rows,
        "comparisons": comparisons,
    }
    return {**board, "verdict": _verdict(board, chosen, best_single, late)}


def _plain_late(rows: Sequence[Row]) -> Row | None:
    """Late fusion to compare with: the baseline, or the configured one that made it needless."""
    fused = [row for row in rows if row["method"] == "late" and len(row["modalities"]) > 1]
    return min(fused, key=lambda row: (not row["baseline"], -len(row["modalities"])), default=None)


def _row(model: ModelEntry, scores: Json, name: str, metric: str) -> Row:
    overall, modalities = scores["overall"], scores["modalities"]
    return {
        "model": model.name,
        "method": model.method,
        "baseline": model.baseline,
        "floor": model.floor,
        "chosen": False,
        "val": model.val_scores[metric],
        "accuracy": overall["accuracy"],
        "low": overall["low"],
        "high": overall["high"],
        "macro_f1": overall["macro_f1"],
        "log_loss": overall["log_loss"],
        "n": overall["n"],
        "modalities": modalities,
        "without": {name: one["accuracy"] for name, one in scores["without"].items()},
        "alone": {name: one["present"] and one["present"]["accuracy"] for name, one in scores["alone"].items()},
        "evaluation": name,
    }


def _pairs(rows: Sequence[Row], chosen: Row | None, single: Row | None, late: Row | None) -> list[tuple[str, str]]:
    """Who is compared: the chosen model with late fusion, everything fused with the best single modality, and encoders
    with their floors.
    """
    pairs = []
    if chosen and late and chosen is not late:
        pairs.append((chosen["model"], late["model"]))
    if single:
        pairs += [(row["model"], single["model"]) for row in rows if len(row["modalities"]) > 1]
    return pairs + [(own["model"], floor["model"]) for own, floor in _with_floors(rows)]


def _with_floors(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """The classifier of each modality beside the one that reads its classical encoder."""
    own = {row["modalities"][0]: row for row in rows if row["model"].startswith("only-") and row["baseline"]}
    return [(own[row["modalities"][0]], row) for row in rows if row["floor"]]


def _scores(store: Store, name: str) -> Json:
    return json.loads(read_whole(store, f"evaluations/{name}", "scores.json"))


def _right(store: Store, name: str) -> tuple[list[str], Array]:
    """The keys of the test rows, and which of them the model has right."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = read_whole(store, f"evaluations/{name}", "predictions.parquet")
    table = pq.read_table(pa.BufferReader(data), columns=["key", "correct"])
    return table.column("key").to_pylist(), table.column("correct").to_numpy()


def _compare(right: dict[str, tuple[list[str], Array]], first: str, second: str) -> dict[str, Json]:
    from mmcore.evaluation.metrics import paired_difference

    if right[first][0] != right[second][0]:
        raise DamagedError(f"evaluations: the predictions of {first} and {second} are not of the same rows; run again.")
    return {"model": first, "against": second, **asdict(paired_difference(right[first][1], right[second][1]))}


# The verdict


def _verdict(board: Mapping[str, Any], chosen: Row | None, single: Row | None, late: Row | None) -> list[str]:
    if chosen is None:
        return []
    against = {(one["model"], one["against"]): one for one in board["comparisons"]}
    by = f"chosen by validation {METRIC_WORDS[board['metric']]}"
    own = f"a test accuracy of {chosen['accuracy']:.3f} on {chosen['n']:,} rows"
    interval = f"95% interval {chosen['low']:.3f} to {chosen['high']:.3f}"
    sentences = [f"{chosen['model']} reaches {own}.", f"It was {by}; {interval}."]
    if len(chosen["modalities"]) == 1:
        more = any(len(row["modalities"]) > 1 for row in board["rows"])
        nothing = "no fusion of several did better there" if more else "there is nothing to fuse"
        sentences[1] = f"It was {by}; {interval}. It reads {chosen['modalities'][0]} only: {nothing}."
    elif single:
        one = against[chosen["model"], single["model"]]
        sentences = [
            _against_single(chosen, single, one),
            f"The difference in accuracy is {_gap(one)}.",
            f"{chosen['model']} was {by}; it has {own}, {interval}.",
        ]
    if late and late is not chosen:
        sentences.append(_against_late(chosen, late, against[chosen["model"], late["model"]]))
    if single:
        sentences += _others_below(board["rows"], chosen, single, against)
    return [*sentences, *_below_floors(board["rows"], against)]


def _against_single(chosen: Row, single: Row, one: Json) -> str:
    pair = f"{chosen['model']} {chosen['accuracy']:.3f}, {single['modalities'][0]} alone {single['accuracy']:.3f}"
    if one["difference"] == 0:
        return f"Fusion is level with the best single modality here: {pair}."
    sure = one["low"] > 0 or one["high"] < 0
    doubt = "" if sure else ", but chance may explain the gap"
    if one["difference"] < 0:
        return f"Fusion is below the best single modality here{doubt}: {pair}."
    return f"Fusion is above the best single modality{doubt}: {pair}."


def _against_late(chosen: Row, late: Row, one: Json) -> str:
    if one["low"] > 0:
        word = "is above"
    elif one["high"] < 0:
        word = "is below"
    else:
        word = "cannot be told from"
    return f"{chosen['model']} {word} plain late fusion of the same features ({late['accuracy']:.3f}): {_gap(one)}."


def _others_below(rows: Sequence[Row], chosen: Row, single: Row, against: dict[tuple[str, str], Json]) -> list[str]:
    """The fused models other than the chosen one that the best single modality beats."""
    below = [
        f"{row['model']} {row['accuracy']:.3f}" + (" (more than chance explains)" if one["high"] < 0 else "")
        for row in rows
        if row is not chosen
        and (one := against.get((row["model"], single["model"]))) is not None
        and one["difference"] < 0
    ]
    if not below:
        return []
    also = "Also below" if chosen["accuracy"] < single["accuracy"] else "Below"
    name = f"{single['modalities'][0]} alone, {single['accuracy']:.3f}"
    return [f"{also} the best single modality ({name}): {', '.join(below)}."]


def _below_floors(rows: Sequence[Row], against: dict[tuple[str, str], Json]) -> list[str]:
    """The encoders that are not worth their training: the classical one does as well or better."""
    return [
        f"The encoder of {floor['modalities'][0]} is not above its floor, the classical one ({own['model']} "
        f"{own['accuracy']:.3f}, {floor['model']} {floor['accuracy']:.3f}): {_gap(one)}."
        for own, floor in _with_floors(rows)
        if (one := against[own["model"], floor["model"]])["difference"] <= 0
    ]


def _gap(one: Json) -> str:
    text = f"{one['difference']:+.3f}, 95% interval {one['low']:+.3f} to {one['high']:+.3f}"
    return text.replace("-", "\N{MINUS SIGN}")
