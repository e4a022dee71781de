"""All models of a run side by side: the table, and who beats whom; of one seed or the mean of several."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from mmcore.config import RunConfig
from mmcore.config.metrics import LOWER_IS_BETTER, METRICS, headline
from mmcore.errors import DamagedError
from mmcore.evaluation.intervals import Array, group_note, holm, paired_difference
from mmcore.evaluation.judge import interval_of, interval_words
from mmcore.evaluation.predictions import RowScores, read_row_scores
from mmcore.evaluation.verdict import REFERENCES, verdict
from mmcore.evaluation.whole import read_whole
from mmcore.fusion.fit import choose_best
from mmcore.records import EvaluationEntry, Json, ModelEntry, count_by
from mmcore.storage import Store

Row = dict[str, Any]
Scored = tuple[Sequence[ModelEntry], Sequence[EvaluationEntry]]
"""The models of one seed and their scores."""


def leaderboard(
    config: RunConfig,
    models: Sequence[ModelEntry],
    evaluations: Sequence[EvaluationEntry],
    store: Store,
    others: Sequence[Scored] = (),
) -> dict[str, Json]:
    """The models by their validation score, best first, with comparisons and a verdict; reads scores only.

    `others` are the same models of further seeds, in any order; every number is then a mean over the seeds.
    `rows` hold what a table shows, each metric by its name, `score` being the headline one (`config.metrics`) with its
    95% interval, and `sd` each one's standard deviation over the seeds; `settings` counts which of a grid stood.
    `chosen` is the fusion model that validation chose (`config.metric`), `best_single` the single modality that
    validation prefers, `late` plain late fusion. `comparisons` are paired differences of headline scores on the same
    test rows, by `family`: fused models against the best `single` modality and against the `chosen` model, encoders
    against their `floor`, `missingness` against the majority class, and the chosen model against late fusion where a
    `share` of the modalities is `missing`; `p_holm` is corrected within the family. `verdict` are sentences, the first
    of which says it all.
    Raises DamagedError where scores that a run names are missing or damaged; the next run makes those again.
    """
    task, metric = config.data.task, config.metric
    entries: dict[str, list[tuple[ModelEntry, str]]] = {}
    for some, scored in ((models, evaluations), *others):
        digests = {entry.model: entry.digest for entry in scored}
        for model in some:
            entries.setdefault(model.name, []).append((model, digests[model.name]))
    by_row = _RowsOf(store, {name: [digest for _, digest in of_seeds] for name, of_seeds in entries.items()})
    rows = [_row(task, metric, store, of_seeds, by_row.of(name)) for name, of_seeds in entries.items()]
    averaged = [
        replace(of_seeds[0][0], val_scores={metric: row["val"]})
        for of_seeds, row in zip(entries.values(), rows, strict=True)
    ]
    best = choose_best(averaged, metric).name if any(not model.baseline for model in averaged) else None
    rows.sort(key=lambda row: (row["val"] if metric in LOWER_IS_BETTER else -row["val"], row["model"]))
    chosen = next((row for row in rows if row["model"] == best), None)
    for row in rows:
        row["chosen"] = row is chosen
    single = next(
        (row for row in rows if len(row["modalities"]) == 1 and not _reference(row) and not row["floor"]), None
    )
    late = _plain_late(rows)
    board: dict[str, Json] = {
        "task": task,
        "headline": headline(task),
        "metrics": list(METRICS[task]),
        "metric": metric,
        "seeds": 1 + len(others),
        "chosen": chosen and chosen["model"],
        "best_single": single and single["model"],
        "late": late and late["model"],
        "interval": interval_words(task, grouped=by_row.groups is not None),
        "group_note": group_note(by_row.groups),
        "rows": rows,
        "comparisons": _comparisons(_pairs(rows, chosen, single), by_row)
        + (_with_missing(chosen["model"], late["model"], by_row) if chosen and late and chosen is not late else []),
    }
    return {**board, "verdict": verdict(board)}


def _row(task: str, metric: str, store: Store, of_seeds: Sequence[tuple[ModelEntry, str]], of_rows: RowScores) -> Row:
    model, by = of_seeds[0][0], headline(task)
    scores = [_scores(store, name) for _, name in of_seeds]
    mean = _mean([{part: one[part] for part in ("overall", "alone", "without", "uses")} for one in scores])
    overall, uses = mean["overall"], mean["uses"]
    low, high = interval_of(of_rows.scores, task, of_rows.groups)
    return {
        "model": model.name,
        "method": model.method,
        "baseline": model.baseline,
        "floor": model.floor,
        "chosen": False,
        "settings": count_by(one.setting for one, _ in of_seeds if one.setting),
        "val": statistics.fmean(one.val_scores[metric] for one, _ in of_seeds),
        "score": overall["score"],
        "low": low,
        "high": high,
        **{name: overall[name] for name in METRICS[task]},
        "seeds": len(of_seeds),
        "sd": {name: _sd([one["overall"][name] for one in scores]) for name in METRICS[task]},
        "n": scores[0]["overall"]["n"],
        **{fact: scores[0][fact] for fact in ("modalities", "handles_missing", "contains_training_rows")},
        "without": {name: one[by] for name, one in mean["without"].items()},
        "alone": {name: one["present"] and one["present"][by] for name, one in mean["alone"].items()},
        "shuffled": {name: one and one["score"] for name, one in uses["shuffled"].items()},
        "unused": [name for name, one in uses["shuffled"].items() if one and not _used(name, scores)],
        "shapley": uses["shapley"]["values"],
        "missing": uses["missing"],
        "noise": uses["noise"],
        "evaluation": of_seeds[0][1],
    }


def _mean(values: Sequence[Json]) -> Json:
    """The mean of each number of equally built JSON values; what is no number is that of the first."""
    first = values[0]
    if isinstance(first, dict):
        return {key: _mean([value[key] for value in values]) for key in first}
    if isinstance(first, list):
        return [_mean(some) for some in zip(*values, strict=True)]
    # The mean of equal numbers is not always that number, to the last bit, and places on an axis are looked up.
    same = all(value == first for value in values)
    return first if same or isinstance(first, bool | str) or first is None else statistics.fmean(values)


def _used(name: str, scores: Sequence[Json]) -> bool:
    """Whether, with some seed, shuffling the modality costs more than chance explains."""
    return any(one["uses"]["shuffled"][name]["loss"]["low"] > 0 for one in scores)


def _sd(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _reference(row: Row) -> bool:
    return row["method"] in REFERENCES


def _plain_late(rows: Sequence[Row]) -> Row | None:
    """Late fusion to compare with: the baseline, or the configured one that made it needless."""
    fused = [row for row in rows if row["method"] == "late" and len(row["modalities"]) > 1]
    return min(fused, key=lambda row: (not row["baseline"], -len(row["modalities"])), default=None)


# Who is compared with whom


def _pairs(rows: Sequence[Row], chosen: Row | None, single: Row | None) -> list[tuple[str, str, str]]:
    """Family, model, and what it is held against; no two models twice."""
    fused = [row["model"] for row in rows if len(row["modalities"]) > 1 and not _reference(row)]
    pairs = [("single", name, single["model"]) for name in fused] if single else []
    if chosen:
        against = {name for _, name, other in pairs if other == chosen["model"]} | {chosen["model"]}
        pairs += [("chosen", name, chosen["model"]) for name in fused if name not in against]
    pairs += [("floor", own["model"], floor["model"]) for own, floor in with_floors(rows)]
    of = {row["method"]: row["model"] for row in rows if _reference(row)}
    return [*pairs, *([("missingness", of["missingness"], of["majority"])] if len(of) == len(REFERENCES) else [])]


def with_floors(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """The classifier of each modality beside the one that reads its classical encoder."""
    own = {row["modalities"][0]: row for row in rows if row["model"].startswith("only-") and row["baseline"]}
    return [(own[row["modalities"][0]], row) for row in rows if row["floor"]]


def _comparisons(pairs: Sequence[tuple[str, str, str]], by_row: _RowsOf) -> list[dict[str, Json]]:
    found: list[dict[str, Json]] = []
    for family, first, second in pairs:
        mine, other = by_row.of(first), by_row.of(second)
        if mine.keys != other.keys:
            what = f"the predictions of {first} and {second} are not of the same rows"
            raise DamagedError(f"evaluations: {what}; run again.")
        difference = paired_difference(mine.scores, other.scores, mine.groups)
        found.append({"family": family, "model": first, "against": second, **asdict(difference)})
    for family in {one["family"] for one in found}:
        _correct([one for one in found if one["family"] == family])
    return found


def _with_missing(chosen: str, late: str, by_row: _RowsOf) -> list[dict[str, Json]]:
    """The chosen model against plain late fusion where `share` of the further modalities are missing."""
    mine, other = by_row.of(chosen), by_row.of(late)
    found = []
    for share in sorted(mine.missing.keys() & other.missing.keys()):
        probed = np.isfinite(mine.missing[share])
        groups = None if mine.groups is None else mine.groups[probed]
        difference = paired_difference(mine.missing[share][probed], other.missing[share][probed], groups)
        found.append({"family": "missing", "share": share, "model": chosen, "against": late, **asdict(difference)})
    _correct(found)
    return found


def _correct(family: Sequence[dict[str, Json]]) -> None:
    for one, p in zip(family, holm([one["p"] for one in family]), strict=True):
        one["p_holm"] = p


class _RowsOf:
    """Each model's scores by row, the mean over its seeds."""

    def __init__(self, store: Store, evaluations: Mapping[str, Sequence[str]]) -> None:
        self._store, self._evaluations = store, evaluations
        self._read: dict[str, RowScores] = {}

    def of(self, model: str) -> RowScores:
        if model not in self._read:
            # A method without chance has one evaluation for all seeds.
            read = {name: read_row_scores(self._store, name) for name in dict.fromkeys(self._evaluations[model])}
            seeds = [read[name] for name in self._evaluations[model]]
            if any(one.keys != seeds[0].keys for one in seeds):
                what = f"the predictions of {model} are not of the same rows by each seed"
                raise DamagedError(f"evaluations: {what}; run again.")
            missing = {share: np.mean([one.missing[share] for one in seeds], axis=0) for share in seeds[0].missing}
            self._read[model] = replace(
                seeds[0], scores=np.mean([one.scores for one in seeds], axis=0), missing=missing
            )
        return self._read[model]

    @property
    def groups(self) -> Array | None:
        return next(iter(self._read.values())).groups if self._read else None


def _scores(store: Store, name: str) -> Json:
    return json.loads(read_whole(store, f"evaluations/{name}", "scores.json"))
