"""The extract stage as a Prefect task: one modality of all shards to feature vectors."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from mmcore.features.extract import encode_modality
from mmcore.records import EncoderEntry
from mmcore.shards.read import read_dataset
from tasks.context import Run


@task(task_run_name="extract {modality}", cache_policy=NO_CACHE, persist_result=False)
def extract_features(run: Run, dataset: str, modality: str) -> EncoderEntry:
    """Train the modality's encoder if need be, then encode the shards that are not encoded yet."""
    with run.stage("extract", modality) as progress:
        entry = encode_modality(run.config, read_dataset(run.store, dataset), modality, run.store, run.pool, progress)
        rates = f"   [dim]{progress.note}[/]" if progress.note else ""
    aside = f" · {len(entry.rejects):,} could not be encoded" if entry.rejects else ""
    run.terminal.line(
        f"[bold]extract[/]    {progress.counted()}   {modality}: {entry.name}, {entry.dim} wide{aside}"
        f"{progress.timed()}{rates}"
    )
    return entry
