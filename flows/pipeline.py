"""From raw files to a report: prepare, extract, train, evaluate, in one flow run.

The stages are called as tasks rather than as subflows, because each subflow run waits up to a second for its
heartbeat thread to end: a run with nothing to do would mostly wait.
"""

# Without postponed annotations: a served flow is pickled for its process, where the name of a type would mean nothing.
from prefect import flow

from flows.evaluate import evaluate_stage
from flows.extract import extract_stage
from flows.prepare import prepare_stage
from flows.train import train_stage
from mmcore.config import RunConfig, demand_learnable
from tasks.context import open_run
from tasks.evaluate import write_report


@flow(name="pipeline", flow_run_name="{config.name}", persist_result=False)
def pipeline(config: RunConfig) -> str:
    """Raw files to shards, features, fusion models, scores and a report.

    What an earlier run finished is reused; a run that was killed goes on where it stopped.

    Args:
        config: The run's whole configuration, as in its YAML.

    """
    demand_learnable(config)
    with open_run(config) as run:
        dataset = prepare_stage(run)
        encoders = extract_stage(run, dataset)
        models = train_stage(run, dataset, encoders)
        evaluate_stage(run, dataset, encoders, models)
        write_report(run)
    return run.run_id


if __name__ == "__main__":
    from flows.start import run_file

    run_file(pipeline)
