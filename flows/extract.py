"""Shards to feature vectors, all views side by side."""

from __future__ import annotations

from dataclasses import asdict

from prefect import flow

from flows.prepare import prepare_stage
from mmcore.config import RunConfig, demand_learnable
from mmcore.records import EncoderEntry
from tasks.context import Run, open_run
from tasks.extract import extract_features


def extract_stage(run: Run, dataset: str) -> list[EncoderEntry]:
    """One encoder per modality and one beside it as its floor, trained and applied at the same time."""
    futures = [extract_features.submit(run, dataset, view) for view in run.config.encoders]
    encoders = [future.result() for future in futures]
    run.write(encoders=[asdict(encoder) for encoder in encoders])
    return encoders


@flow(name="extract", flow_run_name="extract {config.name}", persist_result=False)
def extract(config: RunConfig) -> str:
    """Raw files or finished shards to feature vectors.

    Args:
        config: The run's whole configuration, as in its YAML.

    """
    demand_learnable(config)
    with open_run(config) as run:
        extract_stage(run, prepare_stage(run))
    return run.run_id


if __name__ == "__main__":
    from flows.start import run_file

    run_file(extract)
