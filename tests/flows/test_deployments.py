"""Deployed on a work pool and served from one process: form, schedule, automation, and runs that complete."""

from __future__ import annotations

import copy
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.flows.conftest import BIN, SMALL, Server, mmcore
from tests.flows.deployed import Deployed, small_parameters

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deployed") / "output"


@pytest.fixture(scope="module")
def finished(deployed: Deployed, sample: Path, output: Path) -> dict[str, object]:
    """A run of the on-demand deployment that a worker has done."""
    flow_run = deployed.wait(deployed.start("digits", small_parameters(sample, output)))
    assert flow_run["state"]["type"] == "COMPLETED", flow_run["state"]["message"]
    return flow_run


class TestWhatIsDeployed:
    def test_on_demand(self, deployed: Deployed) -> None:
        found = deployed.deployment("digits")
        assert (found["work_pool_name"], found["schedules"], found["paused"]) == ("mmcore", [], False)

    def test_nightly(self, deployed: Deployed) -> None:
        found = deployed.deployment("digits-nightly")
        ((schedule),) = found["schedules"]
        assert schedule["active"]
        assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("0 2 * * *", "UTC")
        assert found["global_concurrency_limit"]["limit"] == 1
        assert found["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"

    def test_automation(self, deployed: Deployed) -> None:
        (found,) = deployed.server.post("/automations/filter")
        assert (found["name"], found["enabled"]) == ("mmcore-crash-silent-runs", True)
        assert (found["trigger"]["posture"], found["trigger"]["within"]) == ("Proactive", 90)
        assert [(action["type"], action["state"]) for action in found["actions"]] == [
            ("change-flow-run-state", "CRASHED")
        ]

    def test_comparison(self, deployed: Deployed) -> None:
        answer = deployed.server.client.get("/deployments/name/compare/digits-comparison")
        answer.raise_for_status()
        found = answer.json()
        assert (found["work_pool_name"], found["parameters"]["seeds"], found["schedules"]) == ("mmcore", 5, [])
        form = found["parameter_openapi_schema"]["properties"]
        assert set(form) == {"config", "seeds", "time_limit_s"}
        for field in form.values():
            assert field["title"]
            assert field["description"]
        assert (form["seeds"]["minimum"], form["seeds"]["maximum"]) == (1, 100)
        assert {"exclusiveMinimum": 0, "type": "number"} in form["time_limit_s"]["anyOf"]


class TestForm:
    def test_every_field_says_what_it_is(self, deployed: Deployed) -> None:
        schema = deployed.deployment("digits")["parameter_openapi_schema"]
        parts = schema["definitions"]
        assert schema["properties"]["config"]["$ref"] == "#/definitions/RunConfig"
        assert set(parts["RunConfig"]["properties"]) == {
            "name",
            "data",
            "shards",
            "features",
            "fusion",
            "floor",
            "compute",
            "output",
        }
        fields = 0
        for part in parts.values():
            assert part["type"] == "object"
            assert part["description"]
            for name, field in part["properties"].items():
                if "const" not in field:  # a part's own name, as `kind: image`
                    described = parts[field["$ref"].rsplit("/", 1)[-1]] if "$ref" in field else field
                    assert described["description"], name
                    assert described["title"], name
                    fields += 1
        assert fields > 60

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("data.max_rejected", 2),
            ("data.max_rejected", "many"),
            ("data.manifest", None),
            ("data.modalities", {}),
            ("data.modalities.image.size", 0),
            ("fusion.methods", ["concatenate"]),
            ("compute.threads", "two"),
            ("shards.samplse", 64),
        ],
    )
    def test_bad_parameters_are_refused_before_a_run_starts(
        self, deployed: Deployed, sample: Path, tmp_path: Path, path: str, value: object
    ) -> None:
        parameters = small_parameters(sample, tmp_path / "output")
        *parents, last = path.split(".")
        part = parameters["config"]
        for parent in parents:
            part = part.setdefault(parent, {})
        part[last] = value
        # Not all: the server schedules the nightly runs whenever it comes to it.
        of_it = {"deployments": {"id": {"any_": [deployed.deployment("digits")["id"]]}}}
        before = deployed.server.post("/flow_runs/count", **of_it)
        with pytest.raises(httpx.HTTPStatusError) as caught:
            deployed.start("digits", parameters)
        assert caught.value.response.status_code == 409
        assert parents[-1] in caught.value.response.json()["detail"]
        assert deployed.server.post("/flow_runs/count", **of_it) == before

    @pytest.mark.parametrize(
        ("path", "value"), [("data.max_rejected", "5%"), ("fusion.methods", ["cca", {"method": "concat"}])]
    )
    def test_what_a_yaml_may_say_is_accepted(
        self, deployed: Deployed, sample: Path, tmp_path: Path, path: str, value: object
    ) -> None:
        parameters = copy.deepcopy(small_parameters(sample, tmp_path / "output"))
        part, key = path.split(".")
        parameters["config"][part][key] = value
        deployment = deployed.deployment("digits-nightly")["id"]
        later = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2100-01-01T00:00:00Z"}}
        made = deployed.server.post(f"/deployments/{deployment}/create_flow_run", parameters=parameters, state=later)
        deployed.server.client.delete(f"/flow_runs/{made['id']}").raise_for_status()


class TestRun:
    def test_output(self, finished: dict[str, object], output: Path) -> None:
        (folder,) = output.glob("runs/*")
        record = json.loads((folder / "run.json").read_text())
        assert record["state"] == "finished"
        assert str(finished["id"]).endswith(record["run_id"][-6:])
        assert str(finished["id"]) in record["ui_url"]
        assert (folder / "report" / "index.html").read_text().lower().startswith("<!doctype html>")
        for model in record["models"]:
            assert (output / "models" / model["digest"] / "model.safetensors").exists()

    def test_artifacts(self, finished: dict[str, object], deployed: Deployed) -> None:
        found = deployed.server.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": [finished["id"]]}})
        assert {a["key"] for a in found} >= {"plan", "quarantine", "quarantine-by-reason", "leaderboard", "report"}
        progress = [a for a in found if a["type"] == "progress"]
        assert {a["description"].split()[0] for a in progress} == {"prepare", "extract", "train", "evaluate"}
        assert {a["data"] for a in progress} == {100.0}

    def test_task_runs(self, finished: dict[str, object], deployed: Deployed) -> None:
        tasks = deployed.tasks(str(finished["id"]))
        assert {"plan digits", "prepare digits", "extract image", "train digits", "report digits"} <= {
            task["name"] for task in tasks
        }
        assert {task["state_type"] for task in tasks} == {"COMPLETED"}


class TestServe:
    @pytest.fixture
    def serving(self, server: Server, sample: Path, output: Path) -> Iterator[subprocess.Popen[str]]:
        arguments = [sample / "pipeline.yaml", f"output={output}", *SMALL, "fusion.methods=[concat]"]
        process = subprocess.Popen(
            [
                BIN / "mmcore",
                "serve",
                *arguments,
                "--cron",
                "0 2 * * *",
                "--timezone",
                "Europe/Lisbon",
                "--name",
                "own",
            ],
            env={**server.env, "PREFECT_RUNNER_POLL_FREQUENCY": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def test_a_served_run_completes(
        self, serving: subprocess.Popen[str], deployed: Deployed, finished: dict[str, object]
    ) -> None:
        deadline = time.monotonic() + 60
        while deployed.server.client.get("/deployments/name/pipeline/own").status_code == 404:
            assert serving.poll() is None, serving.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        (schedule,) = deployed.deployment("own")["schedules"]
        assert schedule["active"]
        assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("0 2 * * *", "Europe/Lisbon")
        flow_run = deployed.wait(deployed.start("own", {}))
        assert flow_run["state"]["type"] == "COMPLETED", flow_run["state"]["message"]
        # The run is complete before its process has ended, and an interrupt then would reach it in its last words.
        deadline = time.monotonic() + 60
        while psutil.Process(serving.pid).children() and time.monotonic() < deadline:
            time.sleep(0.2)
        serving.send_signal(signal.SIGINT)
        printed, errors = serving.communicate(timeout=60)
        assert serving.returncode in (0, 130), printed + errors
        assert "Traceback" not in printed + errors

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--cron", "0 99 * *"], ["--cron", "0 99 * *", "Five fields"]),
            (["--cron", "every night"], ["--cron", "every night", "Five fields"]),
            (["--cron", "0 2 * * *", "--timezone", "Lisbon"], ["--timezone", "Lisbon", "Europe/Lisbon"]),
        ],
    )
    def test_a_bad_schedule(self, server: Server, sample: Path, options: list[str], words: list[str]) -> None:
        refused(mmcore("serve", sample / "pipeline.yaml", *options, env=server.env), words)

    def test_no_server(self, server: Server, sample: Path, tmp_path: Path) -> None:
        env = {**server.env, "PREFECT_HOME": str(tmp_path)}
        del env["PREFECT_API_URL"]
        done = mmcore("serve", sample / "pipeline.yaml", "--cron", "0 2 * * *", env=env)
        refused(done, ["PREFECT_API_URL", "prefect server start"])


def refused(done: subprocess.CompletedProcess[str], words: list[str]) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 2
    for word in words:
        assert word in done.stderr
