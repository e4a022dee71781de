"""A comparison as CSV, and its numbers as people read them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from mmcore.records import Json

MEASURED = ("fit_seconds", "peak_bytes", "rows_per_second")
"""Columns that differ from run to run; all others follow from the data and the settings."""


def unfinished(found: Mapping[str, Any]) -> list[str]:
    """Sentences on the fits of a comparison (see `compare_seeds`) that were left out; none where all are done."""
    said = left_out(found["missing"])
    if left := found["total"] - found["done"]:
        total = found["total"]
        said.append(
            f"{left:,} of {total:,} fits not done: {found['why']}. The same command without it goes on from there."
        )
    return said


def left_out(fits: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each of these fits (`model`, `failed`) whose method the data do not suit; each is said once."""
    return list(dict.fromkeys(f"{one['model']} is left out: {one['failed']}." for one in fits if one["failed"]))


def leaderboard_csv(board: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """One line per model; the columns that were measured (`MEASURED`) come last."""
    return _csv([_model_line(row, board, found["models"][row["model"]]) for row in board["rows"]])


def fits_csv(found: Mapping[str, Any], metrics: Sequence[str]) -> str:
    """One line per seed and model."""
    return _csv([_fit_line(fit, metrics) for fit in found["fits"]])


def against(board: Mapping[str, Any], model: str, family: str) -> Mapping[str, Any] | None:
    """The difference of a model to the best `single` modality or to the `chosen` method; None where there is none."""
    other = board["best_single"] if family == "single" else board["chosen"]
    pairs = {(one["model"], one["against"]): one for one in board["comparisons"]}
    return pairs.get((model, other))


def _model_line(row: Mapping[str, Any], board: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Json]:
    line: dict[str, Json] = {
        "model": row["model"],
        "method": row["method"],
        "role": role(row, board),
        "settings": settings(row),
        "seeds": about["seeds"],
        "chosen": row["chosen"],
        "seeds_chosen": about["chosen"],
        f"val_{board['metric']}": row["val"],
    }
    for name in board["metrics"]:
        line |= {f"{name}_mean": row[name], f"{name}_sd": row["sd"][name]}
    line |= {f"{board['headline']}_low": row["low"], f"{board['headline']}_high": row["high"], "test_rows": row["n"]}
    for family in ("single", "chosen"):
        one = against(board, row["model"], family) or {}
        line |= {f"vs_{family}_{name}": one.get(name) for name in ("difference", "low", "high", "p", "p_holm")}
    return line | _cost_columns(about["costs"])


def _fit_line(fit: Mapping[str, Any], metrics: Sequence[str]) -> dict[str, Json]:
    line: dict[str, Json] = {name: fit[name] for name in ("seed", "model", "setting")}
    line |= {f"val_{name}": fit["val"][name] for name in metrics}
    line |= {f"test_{name}": fit["test"][name] for name in metrics}
    line |= {"model_digest": fit["digest"], "evaluation_digest": fit["evaluation"]}
    return line | _cost_columns(fit["costs"])


def _cost_columns(costs: Mapping[str, Any]) -> dict[str, Json]:
    return {name: costs[name] for name in ("parameters", "size_bytes", *MEASURED)}


def _csv(lines: Sequence[Mapping[str, Json]]) -> str:
    if not lines:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in line.items()} for line in lines)
    return text.getvalue()


def _cell(value: Json) -> Json:
    return f"{value:.6g}" if isinstance(value, float) else int(value) if isinstance(value, bool) else value


# In a person's words


def role(row: Mapping[str, Any], board: Mapping[str, Any]) -> str:
    """Why a row is there: `single`, `single, chosen`, `floor`, `baseline`, or nothing for a configured method."""
    if row["floor"]:
        return "floor"
    if len(row["modalities"]) == 1 and row["model"].startswith("only-") and row["baseline"]:
        return "single, chosen" if row["model"] == board["best_single"] else "single"
    return "baseline" if row["baseline"] else ""


def chosen(row: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """With how many seeds validation chose it; nothing for what is no candidate."""
    return "" if row["baseline"] else f"{about['chosen']}/{about['seeds']}"


def settings(row: Mapping[str, Any]) -> str:
    """What of its grid stood for it, most frequent first: `n_components=8 (3), n_components=16 (2)`."""
    found: Mapping[str, int] = row["settings"]
    return ", ".join(label if len(found) == 1 else f"{label} ({count})" for label, count in found.items())


def corrected(one: Mapping[str, Any] | None) -> str:
    """Holm's p of a difference, if any."""
    return "" if one is None else p_value(one["p_holm"])


def spread(mean: float, sd: float) -> str:
    return f"{_minus(f'{mean:.3f}')} ± {sd:.3f}" if sd else _minus(f"{mean:.3f}")


def interval(row: Mapping[str, float]) -> str:
    return _minus(f"{row['low']:.3f}") + "–" + _minus(f"{row['high']:.3f}")


def p_value(value: float) -> str:
    """With three decimals, above .1 with two; never 0."""
    return "<.001" if value < 0.001 else (f"{value:.3f}" if value < 0.1 else f"{value:.2f}").removeprefix("0")


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def memory(size: float | None) -> str:
    """Bytes as `12 MB`; the smallest shown is 1 MB."""
    return "–" if size is None else bytes_short(max(size, 1e6))


def bytes_short(size: float) -> str:
    """As `143 kB`, `12 MB`, `1.5 GB`."""
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{max(1.0, size / 1e3):.0f} kB"


def seconds(costs: Mapping[str, Any]) -> str:
    """Fit time as `0.4 s`, `31 s`, `12 min`, `1.5 h`; with > where an earlier run had done a part of it."""
    time_s = costs["fit_seconds"]
    if time_s is None:
        return "–"
    more = ">" if costs["resumed"] else ""
    if time_s < 90:
        return more + (f"{time_s:.1f} s" if time_s < 9.95 else f"{time_s:.0f} s")
    return more + (f"{time_s / 60:.0f} min" if time_s < 5400 else f"{time_s / 3600:.1f} h")


def amount(value: float | None) -> str:
    """Large counts with three digits: `12.3k`, `1.20M`."""
    if value is None:
        return "–"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            short = value / size
            return f"{short:.0f}{unit}" if short >= 100 else f"{short:.3g}{unit}"
    return f"{value:.0f}"
