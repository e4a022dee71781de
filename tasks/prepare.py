"""The prepare stage as a Prefect task: raw files to shards, with what was set aside as a table."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from rich.markup import escape

from mmcore.errors import DamagedError
from mmcore.modalities.base import REASONS
from mmcore.planning import runs_of
from mmcore.quality.curate import curate, duplicates_line
from mmcore.records import Dataset, count_by
from mmcore.report.card import has_card, publish_card
from mmcore.shards.read import read_dataset
from tasks.context import Run

SHOWN_REJECTS = 1_000
"""Rows of the quarantine table in the UI; the report and the data set's file have all of them."""


@task(task_run_name="prepare {run.config.name}", cache_policy=NO_CACHE, persist_result=False)
def prepare_shards(run: Run) -> str:
    """Make the shards that are not there yet; the data set's digest."""
    with run.stage("prepare", run.config.name) as progress:
        dataset = curate(run.config, run.store, run.pool, progress, run.shards)
    name = dataset.digest
    if not has_card(run.store, name):
        publish_card(run.store, dataset, _before(run, name))
    run.write(dataset=name)
    _show(run, dataset)
    facts = dataset.facts
    kept, rejected = facts["kept_whole"] + facts["kept_partly"], facts["rejected"]
    # A sample that lost one modality is kept; its line in the quarantine is not a rejected row.
    filtered = f" · {facts['filtered']:,} filtered out" if facts["filtered"] else ""
    lost = sum(bool(reject.modality) for reject in dataset.rejects)
    run.terminal.line(
        f"[bold]prepare[/]    {progress.counted()}   {kept:,} rows kept · {rejected:,} rejected{filtered} · "
        f"{lost:,} bad files set aside{progress.timed()}"
    )
    if line := duplicates_line(dataset):
        run.terminal.line(f"           {escape(line)}")
    return name


def _before(run: Run, now: str) -> Dataset | None:
    """The last other data set of a run of this name, where it is still there."""
    for record in runs_of(run.store, run.config.name):
        if record.get("dataset") not in (None, now):
            try:
                return read_dataset(run.store, record["dataset"])
            except DamagedError:
                return None
    return None


def _show(run: Run, dataset: Dataset) -> None:
    counts = count_by(reject.code for reject in dataset.rejects)
    create_table_artifact(
        key="quarantine-by-reason",
        table=[{"reason": code, "rejects": n, "meaning": REASONS.get(code, "")} for code, n in counts.items()],
        description=f"{len(dataset.rejects):,} rejects in {dataset.rows:,} rows of {run.config.name}"
        + (f"; {line}" if (line := duplicates_line(dataset)) else ""),
    )
    if dataset.rejects:
        create_table_artifact(
            key="quarantine",
            table=[
                {
                    "key": r.key,
                    "modality": r.modality or "whole row",
                    "reason": r.code,
                    "what": r.message,
                    "source": r.source,
                }
                for r in dataset.rejects[:SHOWN_REJECTS]
            ],
            description="What was set aside"
            + (
                f", the first {SHOWN_REJECTS:,} of {len(dataset.rejects):,}"
                if len(dataset.rejects) > SHOWN_REJECTS
                else ""
            ),
        )
