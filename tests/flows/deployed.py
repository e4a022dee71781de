"""The repository's deployments on a server, with a worker that runs them."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import yaml

from tests.flows.conftest import BIN, Server

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def small_parameters(sample: Path, output: Path) -> dict[str, object]:
    """The sample's own YAML as parameters of a deployed run that takes seconds."""
    config = yaml.safe_load((sample / "pipeline.yaml").read_text())
    config["data"]["manifest"] = str(sample / "manifest.csv")
    config["output"] = str(output)
    config["features"]["image"]["epochs"] = config["features"]["audio"]["epochs"] = 3
    config["fusion"] = {"methods": ["concat"]}
    config["compute"] = {"dask": {"workers": 2}}
    return {"config": config}


class Deployed:
    """What `deployments/prefect.yaml` says, done by the commands that it names."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.log = folder / "worker.log"
        server.prefect("work-pool", "create", "mmcore", "--type", "process")
        server.prefect("deploy", "--all", "--prefect-file", "deployments/prefect.yaml")
        server.prefect("automation", "create", "--from-file", "deployments/automations.yaml")
        with self.log.open("w") as log:
            self.worker = subprocess.Popen(
                [BIN / "prefect", "worker", "start", "--pool", "mmcore"],
                env={**server.env, "PREFECT_WORKER_QUERY_SECONDS": "1"},
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def deployment(self, name: str) -> dict[str, object]:
        """The deployment `pipeline/NAME`."""
        answer = self.server.client.get(f"/deployments/name/pipeline/{name}")
        answer.raise_for_status()
        return answer.json()

    def start(self, name: str, parameters: dict[str, object]) -> str:
        """The id of a new flow run."""
        path = f"/deployments/{self.deployment(name)['id']}/create_flow_run"
        return str(self.server.post(path, parameters=parameters, state={"type": "SCHEDULED"})["id"])

    def retry(self, flow_run: str) -> None:
        """What the Retry button of Prefect's UI sends."""
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
        answer = self.server.post(f"/flow_runs/{flow_run}/set_state", state=state, force=True)
        assert answer["status"] == "ACCEPT"

    def wait(self, flow_run: str, limit_s: float = 300) -> dict[str, object]:
        """The flow run once it has come to its end."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            assert self.worker.poll() is None, self.log.read_text()
            found = self.server.client.get(f"/flow_runs/{flow_run}").json()
            if found["state"]["type"] in FINAL:
                return found
            time.sleep(0.2)
        raise TimeoutError(self.log.read_text())

    def tasks(self, flow_run: str) -> list[dict[str, object]]:
        return self.server.post("/task_runs/filter", task_runs={"flow_run_id": {"any_": [flow_run]}})

    def close(self) -> None:
        self.worker.terminate()
        try:
            self.worker.wait(20)
        except subprocess.TimeoutExpired:
            self.worker.kill()
            self.worker.wait()
