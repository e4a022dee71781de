"""Feature vectors to fusion models."""

from __future__ import annotations

from dataclasses import asdict

from prefect import flow

from flows.extract import extract_stage
from flows.prepare import prepare_stage
from mmcore.config import RunConfig, demand_learnable
from mmcore.records import EncoderEntry, ModelEntry
from tasks.context import Run, open_run
from tasks.train import train_models


def train_stage(run: Run, dataset: str, encoders: list[EncoderEntry]) -> list[ModelEntry]:
    """The configured fusion methods and the baselines that every table has."""
    models = train_models(run, dataset, encoders)
    run.write(models=[asdict(model) for model in models])
    return models


@flow(name="train", flow_run_name="train {config.name}", persist_result=False)
def train(config: RunConfig) -> str:
    """Raw files, or whatever of the way is already done, to trained fusion models.

    Args:
        config: The run's whole configuration, as in its YAML.

    """
    demand_learnable(config)
    with open_run(config) as run:
        dataset = prepare_stage(run)
        train_stage(run, dataset, extract_stage(run, dataset))
    return run.run_id


if __name__ == "__main__":
    from flows.start import run_file

    run_file(train)
