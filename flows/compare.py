"""Several fusion methods and seeds over the same features, in one table."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.extract import extract_stage
from flows.prepare import prepare_stage
from mmcore.config import RunConfig, demand_learnable
from mmcore.records import EvaluationEntry, ModelEntry
from tasks.context import open_run
from tasks.evaluate import compare_seeds, evaluate, write_report
from tasks.train import train_models


@flow(name="compare", flow_run_name="compare {config.name}", persist_result=False)
def compare(config: RunConfig, seeds: Annotated[int, Field(ge=1, le=100)] = 5) -> str:
    """Every configured fusion method, trained with several seeds on one set of features.

    Args:
        config: The run's whole configuration, as in its YAML.
        seeds: How many seeds each method is trained with, counted up from `fusion.seed`.

    """
    demand_learnable(config)
    with open_run(config) as run:
        dataset = prepare_stage(run)
        encoders = extract_stage(run, dataset)
        trained: list[list[ModelEntry]] = []
        scored: list[list[EvaluationEntry]] = []
        for seed in range(config.fusion.seed, config.fusion.seed + seeds):
            fusion = config.fusion.model_copy(update={"seed": seed})
            one = run.varied(config.model_copy(update={"fusion": fusion}))
            trained.append(train_models(one, dataset, encoders))
            scored.append(evaluate(one, dataset, encoders, trained[-1]))
        run.write(models=[asdict(model) for model in trained[0]], evaluations=[asdict(one) for one in scored[0]])
        compare_seeds(run, trained, scored)
        write_report(run)
    return run.run_id


if __name__ == "__main__":
    from flows.start import run_file

    run_file(compare)
