"""The same methods trained with several seeds: how much of a difference is luck."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from mmcore.records import Json

METRICS = ("accuracy", "macro_f1", "log_loss")


def across_seeds(boards: Sequence[Json]) -> list[dict[str, Json]]:
    """One row per model of the leaderboards `boards` (one per seed), best mean accuracy first.

    Each has `model`, `baseline`, `seeds`, per metric the `mean` and the standard deviation `sd` (n − 1; 0 for one
    seed) over the seeds, and how often validation `chosen` it.
    """
    found: dict[str, list[Json]] = {}
    for board in boards:
        for row in board["rows"]:
            found.setdefault(row["model"], []).append(row)
    rows = [
        {
            "model": model,
            "baseline": of_model[0]["baseline"],
            "seeds": len(of_model),
            "chosen": sum(bool(row["chosen"]) for row in of_model),
            **{metric: _spread([float(row[metric]) for row in of_model]) for metric in METRICS},
        }
        for model, of_model in found.items()
    ]
    return sorted(rows, key=lambda row: (-row["accuracy"]["mean"], row["model"]))


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else 0.0}
