"""The shipped deployments and automations: all of them load, and their parameters are a run's configuration."""

from __future__ import annotations

import importlib
from pathlib import Path

import yaml
from prefect.events.schemas.automations import AutomationCore

from mmcore.config import RunConfig

FOLDER = Path(__file__).resolve().parent.parent / "deployments"


def test_deployments() -> None:
    deployments = yaml.safe_load((FOLDER / "prefect.yaml").read_text())["deployments"]
    flows = {"digits": "pipeline", "digits-nightly": "pipeline", "digits-comparison": "compare"}
    assert [deployment["name"] for deployment in deployments] == list(flows)
    for deployment in deployments:
        file, _, flow = deployment["entrypoint"].partition(":")
        assert (FOLDER.parent / file).exists()
        module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
        assert getattr(module, flow).name == flows[deployment["name"]]
        getattr(module, flow).validate_parameters(deployment["parameters"])
        config = RunConfig.model_validate(deployment["parameters"]["config"])
        assert [settings.method for settings in config.fusion.methods] == ["concat", "weighted", "cca", "autoencoder"]
        assert deployment["work_pool"]["name"] == "mmcore"


def test_a_silent_run_has_missed_three_heartbeats() -> None:
    (automation,) = yaml.safe_load((FOLDER / "automations.yaml").read_text())["automations"]
    trigger = AutomationCore.model_validate(automation).trigger
    for deployment in yaml.safe_load((FOLDER / "prefect.yaml").read_text())["deployments"]:
        beat_s = int(deployment["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
        assert trigger.within.total_seconds() == 3 * beat_s
