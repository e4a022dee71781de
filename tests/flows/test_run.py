"""The whole pipeline as a user runs it: the command, its output, its exit code, and what the server knows of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.conftest import ROOT, SMALL, Server, clean_environment, mmcore

pytestmark = pytest.mark.timeout(600)

TRACES = ("Traceback", "Warning", "WARNING", "ERROR", "httpx", "sqlite", "| INFO")


@pytest.fixture(scope="module")
def first_run(server: Server, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run on the server: where its output is, and what it printed."""
    output = tmp_path_factory.mktemp("run") / "output"
    done = mmcore("run", sample / "pipeline.yaml", f"output={output}", *SMALL, env=server.env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not any(word in done.stdout + done.stderr for word in TRACES), done.stdout + done.stderr
    assert done.stderr == ""
    return output, done.stdout


def record_of(output: Path) -> dict[str, object]:
    (run,) = [json.loads(file.read_text()) for file in output.glob("runs/*/run.json")]
    return run


def flow_run_of(run: tuple[Path, str]) -> str:
    """The id that the server knows the run by."""
    return str(record_of(run[0])["ui_url"]).rsplit("/", 1)[-1]


class TestOutput:
    def test_it_says_what_happened(self, first_run: tuple[Path, str]) -> None:
        _, printed = first_run
        for word in ("prepare", "extract", "train", "evaluate", "rejected", "accuracy", "report", "UI http"):
            assert word in printed

    def test_everything_is_where_the_design_says(self, first_run: tuple[Path, str]) -> None:
        output, _ = first_run
        for pattern in (
            "format.json",
            "shards/*.tar",
            "shards/*.parquet",
            "datasets/*.json",
            "encoders/*/receipt.json",
            "features/*/*.arrow",
            "models/*/model.safetensors",
            "evaluations/*/scores.json",
            "runs/*/plan.json",
            "runs/*/report/index.html",
        ):
            assert list(output.glob(pattern)), pattern
        leftover = [f for f in output.rglob("*") if f.suffix in (".pkl", ".pt", ".pickle", ".tmp")]
        assert leftover == []
        assert not list((output / "tmp").iterdir())

    def test_the_record_has_the_pedigree(self, first_run: tuple[Path, str]) -> None:
        output, _ = first_run
        record = record_of(output)
        assert record["state"] == "finished"
        assert (output / "datasets" / f"{record['dataset']}.json").exists()
        assert {encoder["modality"] for encoder in record["encoders"]} == {"image", "audio", "text"}
        for model in record["models"]:
            assert (output / "models" / model["digest"] / "receipt.json").exists()
        for evaluation in record["evaluations"]:
            assert (output / "evaluations" / evaluation["digest"] / "receipt.json").exists()
        assert record["versions"]["torch"]
        assert {"prepare", "extract", "train", "evaluate"} <= set(record["seconds"])

    def test_rows_add_up(self, first_run: tuple[Path, str]) -> None:
        output, _ = first_run
        dataset = json.loads((output / "datasets" / f"{record_of(output)['dataset']}.json").read_text())
        whole_rows = {reject["key"] for reject in dataset["rejects"]}
        kept = sum(shard["samples"] for shard in dataset["shards"])
        assert kept <= dataset["rows"] <= kept + len(dataset["rejects"])
        assert whole_rows


class TestServer:
    def test_the_flow_run_is_there_by_name(self, first_run: tuple[Path, str], server: Server) -> None:
        flow_run = flow_run_of(first_run)
        run = server.client.get(f"/flow_runs/{flow_run}").json()
        assert (run["name"], run["state_type"]) == ("digits", "COMPLETED")
        assert flow_run.endswith(str(record_of(first_run[0])["run_id"])[-6:])
        tasks = server.post("/task_runs/filter", task_runs={"flow_run_id": {"any_": [run["id"]]}})
        assert {t["name"] for t in tasks} == {
            "plan digits",
            "prepare digits",
            "extract image",
            "extract audio",
            "extract text",
            "extract floor-image",
            "extract floor-audio",
            "extract floor-text",
            "train digits",
            "evaluate digits",
            "report digits",
        }
        assert {t["state_type"] for t in tasks} == {"COMPLETED"}

    def test_artifacts(self, first_run: tuple[Path, str], server: Server) -> None:
        artifacts = server.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": [flow_run_of(first_run)]}})
        keys = {a["key"] for a in artifacts}
        assert {"plan", "quarantine", "quarantine-by-reason", "leaderboard", "report"} <= keys
        progress = [a for a in artifacts if a["type"] == "progress"]
        assert {a["description"].split()[0] for a in progress} == {"prepare", "extract", "train", "evaluate"}
        assert all(a["data"] == 100.0 for a in progress)
        (board,) = [a for a in artifacts if a["key"] == "leaderboard"]
        assert {"concat", "weighted", "cca", "autoencoder", "late"} <= {
            row["model"] for row in json.loads(board["data"])
        }

    def test_logs_reach_the_run(self, first_run: tuple[Path, str], server: Server) -> None:
        lines = server.post("/logs/filter", logs={"flow_run_id": {"any_": [flow_run_of(first_run)]}})
        logs = " ".join(line["message"] for line in lines)
        assert re.search(r"prepare digits: \d+/\d+ shards", logs)
        assert "to compute" in logs
        # Written by the workers, in their own processes.
        assert re.search(r"shard [0-9a-f]{8} \(train\): set aside of \d+ samples: .*truncated", logs)


class TestAgain:
    def test_nothing_is_computed_and_neither_dask_nor_torch_starts(
        self, first_run: tuple[Path, str], server: Server, sample: Path
    ) -> None:
        output, _ = first_run
        before = {f: f.stat().st_mtime_ns for f in output.rglob("*") if f.is_file() and "runs" not in f.parts}
        code = (
            "import sys\nfrom flows.cli import main\ntry:\n    main()\nfinally:\n"
            "    print('LOADED', [m for m in ('torch', 'dask', 'distributed', 'sklearn') if m in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "run", str(sample / "pipeline.yaml"), f"output={output}", *SMALL],
            capture_output=True,
            text=True,
            env=server.env,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "LOADED []" in done.stdout
        assert "Nothing to compute" in done.stdout
        after = {f: f.stat().st_mtime_ns for f in output.rglob("*") if f.is_file() and "runs" not in f.parts}
        assert after == before

    def test_plan_status_and_report(self, first_run: tuple[Path, str], server: Server, sample: Path) -> None:
        output, _ = first_run
        arguments = [sample / "pipeline.yaml", f"output={output}", *SMALL]
        plan = mmcore("plan", *arguments, env=server.env)
        assert (plan.returncode, plan.stderr) == (0, "")
        assert "Nothing to compute" in plan.stdout
        steps = json.loads(mmcore("plan", *arguments, "--json", env=server.env).stdout)["steps"]
        assert {step["action"] for step in steps} == {"reuse"}
        status = mmcore("status", *arguments, env=server.env)
        assert status.returncode == 0
        assert "finished" in status.stdout
        report = mmcore("report", *arguments, env=server.env)
        assert Path(report.stdout.strip()).read_text().lower().startswith("<!doctype html>")


def test_without_a_server_it_is_quiet_too(sample: Path, tmp_path: Path) -> None:
    """Prefect starts a temporary server; nothing of its noise reaches the user."""
    env = clean_environment(tmp_path / "home")
    arguments = [sample / "pipeline.yaml", f"output={tmp_path / 'output'}", *SMALL, "fusion.methods=[concat]"]
    done = mmcore("run", *arguments, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert not any(word in done.stdout for word in TRACES), done.stdout
    assert "report" in done.stdout


@pytest.mark.parametrize("name", ["pipeline", "prepare", "extract", "train", "evaluate", "compare"])
def test_each_flow_starts_as_a_module(name: str, server: Server, sample: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"flows.{name}", str(sample / "no-such.yaml")],
        capture_output=True,
        text=True,
        env=server.env,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 2
    assert "there is no such file" in done.stderr
