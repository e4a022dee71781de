"""A deployed run that fails says what is wrong; set right, the same run is retried and completes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmcore.config import RunConfig
from mmcore.parallel import serial_pool
from mmcore.progress import Silent
from mmcore.shards.prepare import prepare
from mmcore.storage import Store
from tests.flows.deployed import Deployed, small_parameters

pytestmark = pytest.mark.timeout(600)


def damage_one_shard(parameters: dict[str, object], output: Path) -> Path:
    """Make the shards, then change one byte of the first member of one tar."""
    config = RunConfig.model_validate(parameters["config"])
    prepare(config, Store(config.output).open(), serial_pool(config.compute), Silent())
    tar = min((output / "shards").glob("*.tar"))
    data = bytearray(tar.read_bytes())
    data[512] ^= 1
    tar.write_bytes(data)
    return tar


def test_a_failed_run_is_retried_until_it_completes(deployed: Deployed, own_sample: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    parameters = small_parameters(own_sample, output)
    for part in (parameters["config"]["data"]["modalities"], parameters["config"]["features"]):
        del part["audio"]
    manifest = own_sample / "manifest.csv"
    set_aside = manifest.rename(own_sample / "elsewhere.csv")

    flow_run = deployed.start("digits", parameters)
    failed = deployed.wait(flow_run)
    assert failed["state"]["type"] == "FAILED"
    assert str(manifest) in failed["state"]["message"]
    assert "there is no such file" in failed["state"]["message"]

    set_aside.rename(manifest)
    damaged = damage_one_shard(parameters, output)
    deployed.retry(flow_run)
    failed = deployed.wait(flow_run)
    assert failed["state"]["type"] == "FAILED"
    assert damaged.name in failed["state"]["message"]
    messages = [task["state"]["message"] for task in deployed.tasks(flow_run) if task["state_type"] == "FAILED"]
    (of_the_stage,) = [message for message in messages if damaged.name in message]
    assert "sample " in of_the_stage
    assert "remove the tar and run again" in of_the_stage

    damaged.unlink()
    deployed.retry(flow_run)
    done = deployed.wait(flow_run)
    assert done["state"]["type"] == "COMPLETED", done["state"]["message"]
    assert (done["id"], done["run_count"]) == (flow_run, 3)
    (folder,) = output.glob("runs/*")
    assert json.loads((folder / "run.json").read_text())["state"] == "finished"
    assert (folder / "report" / "index.html").exists()
