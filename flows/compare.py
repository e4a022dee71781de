"""Fusion methods, their settings and seeds over the same features, in one table."""

# Without postponed annotations: a served flow is pickled for its process, where the name of a type would mean nothing.
import time
from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.extract import extract_stage
from flows.prepare import prepare_stage
from mmcore.config import RunConfig, demand_learnable
from tasks.compare import evaluate_seeds, tabulate
from tasks.context import open_run
from tasks.evaluate import write_report
from tasks.train import train_seeds


@flow(name="compare", flow_run_name="compare {config.name}", persist_result=False)
def compare(
    config: RunConfig,
    seeds: Annotated[int, Field(ge=1, le=100)] = 5,
    time_limit_s: Annotated[float | None, Field(gt=0)] = None,
) -> str:
    """Every configured fusion method with several seeds on one set of features: one table, one report.

    Args:
        config: The run's whole configuration, as in its YAML.
        seeds: How many seeds each method is trained with, counted up from `fusion.seed`. A method that draws no random
            numbers is trained once and counts for every seed.
        time_limit_s: No fit begins later than so many seconds after the start of the run. What is finished is tabled;
            the same comparison without the limit goes on from there.

    """
    demand_learnable(config)
    start_by = None if time_limit_s is None else time.time() + time_limit_s
    numbers = range(config.fusion.seed, config.fusion.seed + seeds)
    with open_run(config) as run:
        dataset = prepare_stage(run)
        encoders = extract_stage(run, dataset)
        fitted = train_seeds(run, dataset, encoders, numbers, start_by)
        scored = evaluate_seeds(run, dataset, encoders, fitted)
        tabulate(run, numbers, fitted, scored)
        write_report(run)
    return run.run_id


if __name__ == "__main__":
    from flows.start import run_file

    run_file(compare)
