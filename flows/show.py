"""What the `mmcore` command prints: plans, states of runs, leaderboards."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from rich.markup import escape
from rich.table import Table

from flows.comparison_show import caption, comparison_table
from mmcore.config import RunConfig
from mmcore.config.metrics import METRIC_WORDS
from mmcore.errors import ConfigError, Problem
from mmcore.evaluation.comparison_words import settings
from mmcore.planning import Plan, make_plan, runs_of
from mmcore.records import Json, titled
from mmcore.storage import Store
from tasks.terminal import Terminal, line_console

console = line_console()

LATEST_RUNS = 5


@contextmanager
def working() -> Iterator[None]:
    """Show that the manifest and the receipts are being read; nothing where stderr is not a terminal."""
    terminal = Terminal()
    terminal.wait("reading the manifest and what is there already")
    try:
        yield
    finally:
        terminal.wait_no_more()


def show_plan(plan: Plan) -> None:
    """A table of what would be computed and reused, by stage and reason, and the price."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, justify in (("stage", "left"), ("compute", "right"), ("reuse", "right"), ("why", "left")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in plan.summary():
        table.add_row(row["stage"], f"{row['compute']:,}", f"{row['reuse']:,}", escape(row["why"]))
    console.print(table)
    console.print(plan.price())


def show_status(config: RunConfig) -> None:
    """How much of the work is done, and the latest runs of this name."""
    store = Store(config.output)
    with working():
        plan = make_plan(config, store)
    done = sum(step.action == "reuse" for step in plan.steps)
    console.print(
        f"[bold]{escape(config.name)}[/] · {escape(config.output)} · {done:,} of {len(plan.steps):,} outputs are there"
    )
    show_plan(plan)
    records = runs_of(store, config.name)
    if not records:
        console.print("no runs yet")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("run", "state", "started", "finished", "report"):
        table.add_column(column)
    for record in records[:LATEST_RUNS]:
        report = f"runs/{record['run_id']}/report/index.html"
        table.add_row(
            escape(record["run_id"]),
            _state(record),
            record["started"],
            record["finished"] or "",
            store.url(report) if store.exists(report) else "",
        )
    console.print(table)


def show_result(store: Store, run_id: str, terminal: Terminal) -> None:
    """The leaderboard and where the report is."""
    record = store.read_json(f"runs/{run_id}/run.json")
    if found := record.get("comparison"):
        if not terminal.quiet:
            terminal.console.print(comparison_table(record["leaderboard"], found))
            terminal.line(f"[dim]{escape(caption(record['leaderboard'], found))}[/]")
        for sentence in record["leaderboard"]["verdict"]:
            terminal.line(escape(sentence))
    elif record["leaderboard"]:
        if not terminal.quiet:
            terminal.console.print(_leaderboard(record))
        for sentence in record["leaderboard"]["verdict"]:
            terminal.line(escape(sentence))
    computed = sum(count["computed"] for count in record["counts"].values())
    if not computed:
        terminal.line("Nothing to compute: every output was there already.")
    report = f"runs/{run_id}/report/index.html"
    there = store.exists(report)
    where = store.url(report) if there else store.url(f"runs/{run_id}")
    terminal.line(
        f"[bold]{'report' if there else 'record'}[/]     {escape(where)}"
        + (f"   UI {record['ui_url']}" if record["ui_url"] else "")
    )


def latest_record(store: Store, name: str, run_id: str | None) -> dict[str, Json]:
    """The record of run `run_id`, or of the latest run of this name that got as far as a leaderboard.

    Raises ConfigError where there is none.
    """
    if run_id is not None:
        if not store.exists(f"runs/{run_id}/run.json"):
            known = ", ".join(record["run_id"] for record in runs_of(store, name)[:LATEST_RUNS]) or "none"
            raise ConfigError(Problem("--run", f"no run {run_id!r} below {store.root}.", f"There are: {known}."))
        found: dict[str, Json] = store.read_json(f"runs/{run_id}/run.json")
        return found
    for record in runs_of(store, name):
        if record["leaderboard"]:
            return record
    raise ConfigError(Problem("output", f"no finished run of {name!r} below {store.root}.", "Start one: mmcore run."))


def _state(record: dict[str, Json]) -> str:
    """A run that says `running` on this machine, but whose process is gone, was killed."""
    if record["state"] != "running" or record["host"]["name"] != socket.gethostname():
        return str(record["state"])
    try:
        os.kill(record["host"]["pid"], 0)
    except ProcessLookupError:
        return "killed"
    except PermissionError:
        pass
    return "running"


def _leaderboard(record: dict[str, Json]) -> Table:
    modalities = [encoder["modality"] for encoder in record["encoders"] if not encoder.get("floor")]
    board = record["leaderboard"]
    metric, headline, *others = (METRIC_WORDS[name] for name in (board["metric"], *board["metrics"]))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    without_one = [f"without {name}" for name in modalities] if len(modalities) > 1 else []
    for column in (f"val {metric}", headline, "95% interval", *others, *without_one):
        table.add_column(column, justify="right", no_wrap=column in (headline, "95% interval"))
    for row in board["rows"]:
        without = row["without"]
        name = escape(titled(row["model"], settings(row)))
        table.add_row(
            f"[bold green]{name} *[/]" if row["chosen"] else f"[dim]{name}[/]" if row["baseline"] else name,
            f"{row['val']:.3f}",
            f"{row['score']:.3f}",
            f"{row['low']:.3f} – {row['high']:.3f}",
            *(f"{row[name]:.3f}" for name in board["metrics"][1:]),
            *(f"{without[m]:.3f}" if without.get(m) is not None else "" for m in modalities if without_one),
        )
    table.caption = f"* chosen among the fusion methods by {metric} on the validation split; the rest is the test split"
    table.caption_justify = "left"
    return table
