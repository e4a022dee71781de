"""Fusion models to scores."""

from __future__ import annotations

from dataclasses import asdict

from prefect import flow

from flows.extract import extract_stage
from flows.prepare import prepare_stage
from flows.train import train_stage
from mmcore.config import RunConfig, demand_learnable
from mmcore.records import EncoderEntry, ModelEntry
from tasks.context import Run, open_run
from tasks.evaluate import evaluate as evaluate_task


def evaluate_stage(run: Run, dataset: str, encoders: list[EncoderEntry], models: list[ModelEntry]) -> None:
    """Scores on the test split and the leaderboard."""
    evaluations = evaluate_task(run, dataset, encoders, models)
    run.write(evaluations=[asdict(evaluation) for evaluation in evaluations])


@flow(name="evaluate", flow_run_name="evaluate {config.name}", persist_result=False)
def evaluate(config: RunConfig) -> str:
    """Raw files, or whatever of the way is already done, to scores on the test split.

    Args:
        config: The run's whole configuration, as in its YAML.

    """
    demand_learnable(config)
    with open_run(config) as run:
        dataset = prepare_stage(run)
        encoders = extract_stage(run, dataset)
        evaluate_stage(run, dataset, encoders, train_stage(run, dataset, encoders))
    return run.run_id


if __name__ == "__main__":
    from flows.start import run_file

    run_file(evaluate)
