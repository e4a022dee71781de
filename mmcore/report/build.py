"""One run as one self-contained HTML page: no script it needs, no request it makes, everything escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmcore import __version__
from mmcore.config.metrics import METRIC_WORDS
from mmcore.evaluation import comparison_words
from mmcore.evaluation.verdict import REFERENCES
from mmcore.fusion.costs import MEMORY
from mmcore.modalities.base import REASONS
from mmcore.records import SPLITS, Json, count_by
from mmcore.report import charts
from mmcore.report.card import card_section
from mmcore.report.gather import Findings, gather, loss_curves
from mmcore.report.pedigree import flattened, pedigree
from mmcore.report.rendering import environment
from mmcore.storage import Store

SHOWN_REJECTS = 200
"""Rows of the table of rejects; the rest are counted, and all are in the data set's file."""

OTHER_REASON = "A reason of another version of mmcore."
INTERVAL_WIDTH = 132
SHOWN_MISSING = (0.0, 0.3, 0.5, 0.7)
"""Shares of missing modalities in the table beside the drawing."""
SHOWN_NOISE = (0.5, 1.0, 2.0)
MISLEADING_GAP = 0.05
"""From this gap on between rows an encoder learned from and others, the page says what to do."""


def build_report(store: Store, run: Mapping[str, Any]) -> str:
    """The HTML page of the run whose record (`runs/<id>/run.json`) is `run`.

    What a run did not reach, or the store no longer has, is said on the page; the page is whole without it.
    """
    found = gather(store, run)
    stages = _stages(run)
    context = {
        "run": run,
        "title": str(run.get("name", "run")),
        "gone": found.gone,
        "comparison": _comparison(found),
        "told": comparison_words,
        "memory": MEMORY,
        "board": _board(found),
        "chosen": _chosen(found),
        "uses": _uses(found),
        "robustness": _robustness(found),
        "encoders": _encoders(found),
        "curves": _curves(found),
        "retrieval": _retrieval(found),
        "data": _data(found),
        "quarantine": _quarantine(found),
        "card": card_section(store, found.dataset, str(run["dataset"])) if found.dataset else None,
        "pedigree": pedigree(store, found),
        "stages": stages,
        "totals": _totals(stages),
        "settings": flattened(run.get("config") or {}),
        "words": METRIC_WORDS,
        "misleading_gap": MISLEADING_GAP,
        "version": __version__,
        "charts": charts,
    }
    return environment().get_template("page.html.j2").render(context)


# Sections


def _board(found: Findings) -> Json:
    board = found.board
    rows = list(board.get("rows") or [])
    if not rows:
        return None
    read = {name for row in rows for name in row["modalities"]}
    comparisons = list(board["comparisons"])
    floors = [scores["most_common_class"] for scores in found.scores.values() if "most_common_class" in scores]
    ends = [one[end] for one in comparisons for end in ("low", "high", "difference")]
    return {
        **board,
        "modalities": [name for name in found.modalities if name in read],
        "has_floors": any(row["floor"] for row in rows),
        "complete_only": any(row["handles_missing"] == "complete-only" for row in rows),
        "filled": any(row["handles_missing"] != "native" for row in rows),
        "axis": charts.share_axis([row["low"] for row in rows], INTERVAL_WIDTH),
        "floor": floors[0] if floors else None,
        "difference_axis": charts.difference_axis(ends, INTERVAL_WIDTH),
        "top": next((row for row in rows if row["chosen"]), None),
        "against_single": next(
            (c for c in comparisons if c["model"] == board["chosen"] and c["against"] == board["best_single"]), None
        ),
    }


def _comparison(found: Findings) -> Json:
    comparison, rows = found.run.get("comparison"), found.board.get("rows")
    if not comparison or not rows:
        return None
    resumed = any(one["costs"]["resumed"] for one in comparison["models"].values())
    return {**comparison, "board": found.board, "rows": rows, "resumed": resumed}


def _chosen(found: Findings) -> Json:
    """The chosen model's score by what rows have and, of classes, its mistakes and calibration."""
    if found.chosen is None:
        return None
    scores = found.scores[found.chosen]
    patterns, classes = scores["patterns"], scores["classes"]
    confusion = scores.get("confusion")
    return {
        "name": found.chosen,
        "n": scores["n"],
        "task": scores["task"],
        "classes": len(classes),
        "matrix": confusion and charts.draw_matrix(confusion, classes),
        "confused": confusion and charts.most_confused(confusion, classes),
        "patterns": patterns,
        "pattern_axis": charts.share_axis([one["low"] for one in patterns], INTERVAL_WIDTH),
        "modalities": found.modalities,
        "nothing_present": scores["nothing_present"],
        "calibration": scores.get("calibration"),
    }


def _uses(found: Findings) -> Json:
    """Per model that fuses several modalities what each of them gives it; None where there is none."""
    rows = [row for row in found.board.get("rows") or [] if len(row["modalities"]) > 1 and _reads_features(row)]
    if not rows:
        return None
    read = {name for row in rows for name in row["modalities"]}
    shares = [value for row in rows for value in row["shapley"].values()]
    return {
        "rows": rows,
        "modalities": [name for name in found.modalities if name in read],
        "axis": charts.bar_axis(shares, INTERVAL_WIDTH),
        "probed": [scores["uses"]["n"] for scores in found.scores.values()],
        "exact": all(scores["uses"]["shapley"]["exact"] for scores in found.scores.values()),
    }


def _robustness(found: Findings) -> Json:
    """The curves over missing modalities and over noise: a drawing of all models each, and the numbers."""
    board = found.board
    rows = [row for row in board.get("rows") or [] if not row["floor"] and _reads_features(row)]
    roles = {board.get("best_single"): "single", board.get("late"): "late", board.get("chosen"): "chosen"}
    drawn = {
        kind: charts.draw_lines(
            [
                (row["model"], roles.get(row["model"], "other"), row[kind]["at"], row[kind]["scores"])
                for row in rows
                if row[kind]
            ]
        )
        for kind in ("missing", "noise")
    }
    if not any(drawn.values()):
        return None
    return {"rows": rows, "drawn": drawn, "roles": roles, "shown": {"missing": SHOWN_MISSING, "noise": SHOWN_NOISE}}


def _reads_features(row: Mapping[str, Any]) -> bool:
    return row["method"] not in REFERENCES


def _encoders(found: Findings) -> list[Json]:
    """Of each encoder that learned from labels: how often it is right on rows it learned from, and on others.

    The gap is what fusion would be misled by, had it learned from scores of rows that the encoder knows.
    """
    drawn = []
    for entry in found.encoders:
        receipt = entry["receipt"] or {}
        splits: Mapping[str, Any] = receipt.get("scores") or {}
        train, held_out, val = (
            (splits.get(split) or {}).get("accuracy") for split in ("train", "train_held_out", "val")
        )
        if train is not None and val is not None:
            other = val if held_out is None else held_out
            one = {"modality": entry["modality"], "name": entry["name"], "gap": train - other}
            drawn.append({**one, "train": train, "held_out": held_out, "val": val})
    return drawn


def _curves(found: Findings) -> list[charts.Curves]:
    drawn = []
    for entry in found.encoders:
        for where, train, val in loss_curves(entry["receipt"]):
            title = f"{entry['modality']} {where}".strip()
            drawn.append(charts.draw_curves(title, f"encoder {entry['name']}", train, val))
    for entry in found.models:
        for where, train, val in loss_curves(entry["receipt"]):
            note = "fusion model" + (f", {where}" if where else "")
            drawn.append(charts.draw_curves(entry["name"], note, train, val))
    return [one for one in drawn if one is not None]


def _retrieval(found: Findings) -> list[Json]:
    """Per model with a shared space its pairs, the chosen model first, then by mean average precision."""
    tables = []
    for name, scores in found.scores.items():
        pairs = (scores["retrieval"] or {}).get("pairs") or []
        scored = [pair["class"]["mean_average_precision"] for pair in pairs if pair["class"]] or [
            pair["instance"]["recall"]["1"] for pair in pairs if pair.get("instance")
        ]
        if scored:
            tables.append({"model": name, "mean": sum(scored) / len(scored), **scores["retrieval"]})
    return sorted(tables, key=lambda one: (one["model"] != found.chosen, -one["mean"], one["model"]))


def _data(found: Findings) -> Json:
    if found.dataset is None:
        return None
    facts, dataset = found.dataset.facts, found.dataset
    splits = {name: facts["splits"][name] for name in SPLITS if facts["splits"].get(name, {}).get("samples")}
    classes = sorted({label for one in splits.values() for label in one["classes"]})
    return {
        "rows": dataset.rows,
        "whole": facts["kept_whole"],
        "partly": facts["kept_partly"],
        "rejected": facts["rejected"],
        "splits": splits,
        "modalities": found.modalities,
        "classes": classes,
        "named": "labels" if dataset.task == "multilabel" else "classes",
        "shards": len(dataset.shards),
    }


def _quarantine(found: Findings) -> Json:
    if found.dataset is None:
        return None
    rejects = found.rejects
    counts = count_by(reject.code for reject in rejects)
    return {
        "total": len(rejects),
        "reasons": [
            (code, n, REASONS.get(code, "A reason of another version of mmcore.")) for code, n in counts.items()
        ],
        "shown": rejects[:SHOWN_REJECTS],
        "more": max(0, len(rejects) - SHOWN_REJECTS),
        "circumstantial": sum(reject.circumstantial for reject in rejects),
    }


def _stages(run: Mapping[str, Any]) -> list[Json]:
    seconds: Mapping[str, float] = run.get("seconds") or {}
    counts: Mapping[str, Mapping[str, int]] = run.get("counts") or {}
    longest = max(seconds.values(), default=0) or 1
    names: Sequence[str] = list(dict.fromkeys([*seconds, *counts]))
    return [
        {
            "name": name,
            "seconds": seconds.get(name),
            "share": (seconds.get(name) or 0) / longest,
            "computed": counts.get(name, {}).get("computed"),
            "reused": counts.get(name, {}).get("reused"),
        }
        for name in names
    ]


def _totals(stages: Sequence[Json]) -> dict[str, float]:
    return {name: sum(stage[name] or 0 for stage in stages) for name in ("seconds", "computed", "reused")}
