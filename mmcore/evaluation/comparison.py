"""What several seeds add to a leaderboard: who was chosen how often, at which cost, and what is missing."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmcore.config import RunConfig
from mmcore.evaluation.comparison_words import unfinished
from mmcore.evaluation.leaderboard import leaderboard
from mmcore.fusion.costs import read_costs
from mmcore.fusion.fit import choose_best, read_receipt, standing
from mmcore.records import EvaluationEntry, Json, ModelEntry
from mmcore.storage import Store

TIME_LIMIT = "time limit"


@dataclass(frozen=True)
class Cell:
    """The model that stands for a method with one seed, and its scores."""

    seed: int
    model: ModelEntry
    evaluation: str


def compare_seeds(
    config: RunConfig,
    seeds: Sequence[int],
    fitted: Sequence[Sequence[ModelEntry]],
    scored: Sequence[Sequence[EvaluationEntry]],
    store: Store,
) -> tuple[dict[str, Json], dict[str, Json]]:
    """The leaderboard over `seeds`, and what goes with it; of each seed all fits (as `fit_seeds` gives them) and the
    scores of those that stand for their methods.

    Beside the leaderboard: `models` has for each, by name, with how many seeds validation chose it, whether it is
    `seeded`, and its `costs`; `fits` has one entry per seed and model; `missing` names the fits that were left out of
    `total`. Raises as `leaderboard`.
    """
    stand = [standing(models, config.metric) for models in fitted]
    (first, *others) = zip(stand, scored, strict=True)
    board = leaderboard(config, *first, store, others)
    by_model: dict[str, list[Cell]] = {}
    chosen: list[str] = []
    for seed, models, entries in zip(seeds, stand, scored, strict=True):
        digests = {entry.model: entry.digest for entry in entries}
        for model in models:
            by_model.setdefault(model.name, []).append(Cell(seed, model, digests[model.name]))
        if any(not model.baseline for model in models):
            chosen.append(choose_best(models, config.metric).name)
    every = {model.digest: model for models in fitted for model in models}
    left_out = [
        {"seed": seed, "model": model.title, "failed": model.failed}
        for seed, models in zip(seeds, fitted, strict=True)
        for model in models
        if not model.val_scores
    ]
    found: dict[str, Json] = {
        "seeds": list(seeds),
        "models": {name: _about(cells, chosen.count(name), store) for name, cells in by_model.items()},
        "fits": [_fit(cell, store) for cells in by_model.values() for cell in cells],
        "total": len(every),
        "done": sum(bool(model.val_scores or model.failed) for model in every.values()),
        "missing": left_out,
        "why": TIME_LIMIT if any(not one["failed"] for one in left_out) else "",
    }
    return {**board, "verdict": [*board["verdict"], *unfinished(found)]}, found


def _about(cells: Sequence[Cell], chosen: int, store: Store) -> dict[str, Json]:
    receipts = {cell.model.digest: read_receipt(store, cell.model.digest) for cell in cells}
    return {
        "seeds": len(cells),
        "seeded": any(receipt["recipe"]["seed"] is not None for receipt in receipts.values()),
        "chosen": chosen,
        "costs": _costs(cells, receipts, store),
    }


def _costs(cells: Sequence[Cell], receipts: Mapping[str, Any], store: Store) -> dict[str, Json]:
    """Means over the fits, but the highest of memory, parameters and size; None where it is not known."""
    measured = [read_costs(store, f"models/{name}") for name in receipts]
    predicting = [read_costs(store, f"evaluations/{name}") for name in dict.fromkeys(cell.evaluation for cell in cells)]
    return {
        "fit_seconds": _mean([one["fit_seconds"] for one in measured if "fit_seconds" in one]),
        "resumed": any(one.get("resumed") for one in measured),
        "peak_bytes": max((one["peak_bytes"] for one in measured if "peak_bytes" in one), default=None),
        "parameters": max(receipt["parameters"] for receipt in receipts.values()),
        "size_bytes": max(receipt["size_bytes"] for receipt in receipts.values()),
        "rows_per_second": _mean(
            [one["predicted_rows"] / one["predict_seconds"] for one in predicting if one.get("predict_seconds")]
        ),
    }


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _fit(cell: Cell, store: Store) -> dict[str, Json]:
    scores = store.read_json(f"evaluations/{cell.evaluation}/scores.json")
    return {
        "seed": cell.seed,
        "model": cell.model.name,
        "setting": cell.model.setting,
        "val": dict(cell.model.val_scores),
        "test": scores["overall"],
        "costs": _costs([cell], {cell.model.digest: read_receipt(store, cell.model.digest)}, store),
        "digest": cell.model.digest,
        "evaluation": cell.evaluation,
    }
