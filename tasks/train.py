"""The train stage as a Prefect task: feature vectors to fusion models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from prefect import task
from prefect.cache_policies import NO_CACHE

from mmcore.fusion.fit import fit_models, fit_seeds, standing
from mmcore.records import EncoderEntry, ModelEntry
from mmcore.shards.read import read_dataset
from tasks.context import Run
from tasks.progress import StageProgress


@task(task_run_name="train {run.config.name}", cache_policy=NO_CACHE, persist_result=False)
def train_models(run: Run, dataset: str, encoders: list[EncoderEntry]) -> list[ModelEntry]:
    """Fit the configured methods and the baselines that are not there yet; of each grid what validation chose."""
    with run.stage("train", run.config.name) as progress:
        fits = fit_models(run.config, read_dataset(run.store, dataset), encoders, run.store, run.pool, progress)
    run.write(tried=[asdict(model) for model in fits if model.setting])
    run.write(left_out=[{"model": model.title, "failed": model.failed} for model in fits if model.failed])
    models = standing(fits, run.config.metric)
    _say(run, progress, models, f"seed {run.config.fusion.seed}")
    return models


@task(task_run_name="train {run.config.name}", cache_policy=NO_CACHE, persist_result=False)
def train_seeds(
    run: Run, dataset: str, encoders: list[EncoderEntry], seeds: Sequence[int], start_by: float | None
) -> list[list[ModelEntry]]:
    """Fit whatever is not there yet of all methods, settings and seeds; no fit begins after `start_by`."""
    with run.stage("train", run.config.name) as progress:
        fitted = fit_seeds(
            run.config,
            read_dataset(run.store, dataset),
            encoders,
            run.store,
            run.pool,
            progress,
            seeds=seeds,
            start_by=start_by,
        )
    first = standing(fitted[0], run.config.metric)
    run.write(
        tried=[asdict(model) for models in fitted for model in models if model.setting and model.val_scores],
        models=[asdict(model) for model in first],
    )
    _say(run, progress, fitted[0], f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}")
    return fitted


def _say(run: Run, progress: StageProgress, models: Sequence[ModelEntry], which: str) -> None:
    names = ", ".join(dict.fromkeys(model.name for model in models if not model.baseline))
    run.terminal.line(f"[bold]train[/]      {progress.counted()}   {names} ({which}){progress.timed()}")
