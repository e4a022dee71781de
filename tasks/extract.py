"""The extract stage as a Prefect task: one view of all shards to feature vectors."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from mmcore.features.extract import encode_modality
from mmcore.records import EncoderEntry
from mmcore.shards.read import read_dataset
from tasks.context import Run


@task(task_run_name="extract {view}", cache_policy=NO_CACHE, persist_result=False)
def extract_features(run: Run, dataset: str, view: str) -> EncoderEntry:
    """Train or open the view's encoder if need be, then encode the shards that are not encoded yet."""
    with run.stage("extract", view) as progress:
        entry = encode_modality(run.config, read_dataset(run.store, dataset), view, run.store, run.pool, progress)
        rates = f"   [dim]{progress.note}[/]" if progress.note else ""
    aside = f" · {len(entry.rejects):,} could not be encoded" if entry.rejects else ""
    run.terminal.line(
        f"[bold]extract[/]    {progress.counted()}   {view}: {entry.name}, {entry.dim} wide{aside}"
        f"{progress.timed()}{rates}"
    )
    return entry
