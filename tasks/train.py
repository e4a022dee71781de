"""The train stage as a Prefect task: feature vectors to fusion models."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from mmcore.fusion.fit import fit_models
from mmcore.records import EncoderEntry, ModelEntry
from mmcore.shards.read import read_dataset
from tasks.context import Run


@task(task_run_name="train {run.config.name}", cache_policy=NO_CACHE, persist_result=False)
def train_models(run: Run, dataset: str, encoders: list[EncoderEntry]) -> list[ModelEntry]:
    """Fit the configured methods and the baselines that are not there yet."""
    with run.stage("train", run.config.name) as progress:
        models = fit_models(run.config, read_dataset(run.store, dataset), encoders, run.store, run.pool, progress)
    names = ", ".join(model.name for model in models if not model.baseline)
    run.terminal.line(
        f"[bold]train[/]      {progress.counted()}   {names} (seed {run.config.fusion.seed}){progress.timed()}"
    )
    return models
