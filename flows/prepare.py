"""Raw files to WebDataset shards."""

from __future__ import annotations

from prefect import flow

from mmcore.config import RunConfig
from tasks.context import Run, open_run
from tasks.plan import plan_run
from tasks.prepare import prepare_shards


def prepare_stage(run: Run) -> str:
    """Say what is to be done, then do the first part of it; the data set's digest."""
    plan_run(run)
    return prepare_shards(run)


@flow(name="prepare", flow_run_name="prepare {config.name}", persist_result=False)
def prepare(config: RunConfig) -> str:
    """Raw files to shards: decoded, checked, normalised, packed.

    Args:
        config: The run's whole configuration, as in its YAML.

    """
    with open_run(config) as run:
        prepare_stage(run)
    return run.run_id


if __name__ == "__main__":
    from flows.start import run_file

    run_file(prepare)
