"""What the `mmcore` command prints of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from mmcore.config.metrics import METRIC_WORDS
from mmcore.evaluation import comparison_words as words
from mmcore.evaluation.verdict import signed


def comparison_table(board: Mapping[str, Any], found: Mapping[str, Any]) -> Table:
    """One line per model, within 100 columns."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True, overflow="ellipsis", max_width=22)
    metric = METRIC_WORDS[board["headline"]]
    for column in (metric, "95% interval", "vs single", "p", "chosen", "fit", "memory", "params", "rows/s"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in board["rows"]:
        about = found["models"][row["model"]]
        against, costs = words.against(board, row["model"], "single"), about["costs"]
        table.add_row(
            _name(row, board),
            words.spread(row["score"], row["sd"][board["headline"]]),
            words.interval(row),
            signed(against["difference"]) if against else "",
            words.corrected(against),
            words.chosen(row, about),
            words.seconds(costs),
            words.memory(costs["peak_bytes"]),
            words.amount(costs["parameters"]),
            words.amount(costs["rows_per_second"]),
        )
        if row["settings"]:
            table.add_row(f"[dim]  {escape(words.settings(row))}[/]")
    return table


def caption(board: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """What the columns are."""
    seeds = len(found["seeds"])
    over = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else f"seed {found['seeds'][0]}"
    return (
        f"test split, {over}; * method, ° single modality chosen by {METRIC_WORDS[board['metric']]} on validation; "
        "p: against °, by Holm; chosen: with so many seeds; memory: at most, above what the process held before"
    )


def _name(row: Mapping[str, Any], board: Mapping[str, Any]) -> str:
    name = escape(row["model"])
    if row["chosen"]:
        return f"[bold green]{name} *[/]"
    if row["model"] == board["best_single"]:
        return f"{name} °"
    return f"[dim]{name}[/]" if row["baseline"] else name
