"""Ctrl-C ends a run within seconds, with one line and exit code 130; the same command then goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import BIN, ROOT, SMALL, Server, mmcore

SETTINGS = [
    "shards.samples=8",
    "features.image.epochs=10",
    "features.audio.epochs=10",
    "compute.dask.workers=2",
    "fusion.methods=[concat]",
]
"""Some shards and some epochs, so that there is a middle to interrupt."""

MOMENTS = {"prepare": "shards/*.json", "extract": "encoders/*/*"}
"""What is there for the first time in the middle of a stage."""

LIMIT_S = 120.0


def records(output: Path) -> list[dict[str, Any]]:
    """The records of all runs."""
    return [json.loads(file.read_text()) for file in output.glob("runs/*/run.json")]


@pytest.mark.timeout(300)
def test_an_interrupted_run_ends_soon_and_goes_on(own_sample: Path, server: Server) -> None:
    """Twice: while shards are made, and while encoders are trained."""
    output = own_sample / "output"
    command = [BIN / "mmcore", "run", own_sample / "pipeline.yaml", *SETTINGS]
    known: set[str] = set()
    for stage, pattern in MOMENTS.items():
        # A group of its own, as a terminal gives it: Ctrl-C reaches all processes of the group.
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=server.env,
            start_new_session=True,
        )
        try:
            wait_for(lambda pattern=pattern: any(output.glob(pattern)), process)
            os.killpg(process.pid, signal.SIGINT)
            asked = time.monotonic()
            _, errors = process.communicate(timeout=60)
            took_s = time.monotonic() - asked
        finally:
            process.kill()
        (record,) = (record for record in records(output) if record["run_id"] not in known)
        known.add(record["run_id"])
        assert bool(record["dataset"]) == (stage == "extract")
        assert not record["encoders"], "it was past the moment"
        assert process.returncode == 130, errors
        assert took_s < 10
        assert errors.strip() == "Interrupted. What is finished is kept: the same command goes on."
        assert record["state"] == "interrupted"
        assert record["finished"]
    asked = time.monotonic()
    again = mmcore(*command[1:], env=server.env)
    took_s = time.monotonic() - asked
    assert (again.returncode, again.stderr) == (0, ""), again.stdout + again.stderr
    (last,) = (record for record in records(output) if record["run_id"] not in known)
    assert last["state"] == "finished"
    assert last["counts"]["prepare"]["computed"] == 0
    # Modalities are extracted side by side, and their time counts once.
    assert 0 < sum(last["seconds"].values()) < took_s
    assert not list(output.glob("*/*/checkpoint*"))


def wait_for(moment: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not moment():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the moment did not come"
        time.sleep(0.01)


def test_one_stage_as_a_module(own_sample: Path, server: Server) -> None:
    """`python -m flows.prepare FILE` makes the shards, and nothing after them."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.prepare", str(own_sample / "pipeline.yaml"), *SMALL],
        capture_output=True,
        text=True,
        env=server.env,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # Started so, Prefect's own lines are shown too.
    assert not any(word in done.stderr for word in ("Traceback", "WARNING", "Warning", "ERROR")), done.stderr
    output = own_sample / "output"
    (record,) = records(output)
    assert record["state"] == "finished"
    assert (output / "datasets" / f"{record['dataset']}.json").exists()
    assert {folder.name for folder in output.iterdir() if folder.is_dir()} == {
        "shards",
        "datasets",
        "quality",
        "quarantine",
        "runs",
        "tmp",
    }
    assert "prepare" in done.stdout
    assert "extract" not in done.stdout
