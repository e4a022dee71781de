"""`mmcore compare` as a user runs it: its table, and that it goes on where it was killed, interrupted or limited."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from mmcore.evaluation.comparison_words import MEASURED
from tests.flows.conftest import BIN, SMALL, Server, mmcore
from tests.flows.test_chaos import files_of
from tests.flows.test_run import TRACES

pytestmark = pytest.mark.timeout(900)

METHODS = [
    "concat",
    "{method: weighted, epochs: 30, patience: 30}",
    "{method: cca, grid: {n_components: [2, 4], shrinkage: [0.1, 0.9]}}",
]
SETTINGS = [*SMALL, f"fusion.methods=[{', '.join(METHODS)}]", "fusion.metric=accuracy", "compute.dask.workers=2"]
SEEDS = 3
CLOSED = 3 + 4 + 1 + 3 + 3
"""Fits that no seed changes: concat and the two baselines, four settings of cca, late, each modality, each floor."""
FITS = CLOSED + SEEDS
SCORED = FITS - 3
"""Of the four settings of cca one stands for it."""
LIMIT_S = 300.0


@pytest.fixture(scope="module")
def features(server: Server, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output with shards and features and nothing after them."""
    output = tmp_path_factory.mktemp("features") / "output"
    done = mmcore(
        "run", sample / "pipeline.yaml", f"output={output}", *SETTINGS, "fusion.methods=[concat]", env=server.env
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for made in ("models", "evaluations", "runs"):
        shutil.rmtree(output / made)
    return output


@pytest.fixture(scope="module")
def whole(features: Path, server: Server, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A comparison that nobody disturbed: its output, and what it printed."""
    output = Path(shutil.copytree(features, tmp_path_factory.mktemp("whole") / "output"))
    return output, finish(output, sample, server)


def command(output: Path, sample: Path, *more: str) -> list[str | Path]:
    return ["compare", sample / "pipeline.yaml", f"output={output}", *SETTINGS, "--seeds", str(SEEDS), *more]


def finish(output: Path, sample: Path, server: Server, *more: str) -> str:
    """Run it to its end, which must be a good and quiet one."""
    done = mmcore(*command(output, sample, *more), env={**server.env, "COLUMNS": "100"})
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert not any(word in done.stdout for word in TRACES), done.stdout
    return done.stdout


def latest(output: Path) -> tuple[dict[str, Any], Path]:
    """The record of the last run, and its folder."""
    file = max(output.glob("runs/*/run.json"), key=lambda file: json.loads(file.read_text())["started"])
    return json.loads(file.read_text()), file.parent


def table(output: Path) -> str:
    """The last run's leaderboard without the columns that differ from run to run."""
    text = (latest(output)[1] / "leaderboard.csv").read_text()
    lines = [line.rsplit(",", len(MEASURED))[0] for line in text.splitlines()]
    assert text.splitlines()[0].split(",")[-len(MEASURED) :] == list(MEASURED)
    return "\n".join(lines)


def trained(output: Path) -> int:
    return len(list(output.glob("models/*/receipt.json")))


@contextmanager
def started(output: Path, sample: Path, server: Server) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [BIN / "mmcore", *command(output, sample)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=server.env,
        # A group of its own, as a terminal gives it: Ctrl-C reaches all processes of the group.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(moment: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not moment():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the moment did not come"
        time.sleep(0.005)


def killed(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the main process; the workers must notice and go by themselves."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive, "processes of a killed run stay"


class TestTable:
    def test_it_fits_the_terminal_and_says_what_was_chosen(self, whole: tuple[Path, str]) -> None:
        output, printed = whole
        lines = printed.splitlines()
        (head,) = (number for number, line in enumerate(lines) if "vs single" in line)
        board = latest(output)[0]["leaderboard"]
        shown = lines[head : head + len(board["rows"]) + 2]
        assert max(map(len, (line.rstrip() for line in shown))) <= 100
        names = [line.split()[0] for line in shown[1:] if not line.startswith("  ")]
        assert names == [row["model"] for row in board["rows"]]
        (chosen,) = (line for line in shown if " * " in line)
        assert chosen.split()[0] == board["chosen"]
        assert any("° " in line and line.startswith(board["best_single"]) for line in shown)
        assert f"{FITS} fits" in printed
        for sentence in board["verdict"]:
            assert sentence in printed

    def test_record_and_files(self, whole: tuple[Path, str]) -> None:
        record, folder = latest(whole[0])
        found = record["comparison"]
        assert (found["total"], found["done"], found["missing"]) == (FITS, FITS, [])
        assert found["seeds"] == [0, 1, 2]
        assert {name for name, about in found["models"].items() if about["seeded"]} == {"weighted"}
        (cca,) = (row for row in record["leaderboard"]["rows"] if row["model"] == "cca")
        assert sum(cca["settings"].values()) == SEEDS
        for about in found["models"].values():
            assert about["costs"]["fit_seconds"] > 0
            assert about["costs"]["parameters"] > 0
            assert about["costs"]["rows_per_second"] > 0
        fits = list(csv.DictReader(io.StringIO((folder / "fits.csv").read_text())))
        assert len(fits) == SEEDS * len(record["leaderboard"]["rows"])
        assert "Seeds, settings and costs" in (folder / "report" / "index.html").read_text()
        tried = {one["setting"] for one in record["tried"]}
        assert len(tried) == 4

    def test_settings_that_were_not_chosen_are_not_scored(self, whole: tuple[Path, str]) -> None:
        assert trained(whole[0]) == FITS
        assert len(list(whole[0].glob("evaluations/*/receipt.json"))) == SCORED

    def test_artifacts(self, whole: tuple[Path, str], server: Server) -> None:
        flow_run = str(latest(whole[0])[0]["ui_url"]).rsplit("/", 1)[-1]
        found = server.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": [flow_run]}})
        (board,) = (one for one in found if one["key"] == "comparison")
        assert {"concat", "weighted", "cca", "late"} <= {row["model"] for row in json.loads(board["data"])}
        (progress,) = (one for one in found if one["type"] == "progress" and one["description"].startswith("train"))
        assert f"{FITS}/{FITS} fits" in progress["description"]

    def test_again_there_is_nothing_to_do(self, whole: tuple[Path, str], sample: Path, server: Server) -> None:
        before = table(whole[0])
        assert "Nothing to compute" in finish(whole[0], sample, server)
        assert table(whole[0]) == before


def test_interrupted_and_killed_it_goes_on_to_the_same_table(
    whole: tuple[Path, str], features: Path, sample: Path, server: Server, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(features, tmp_path / "output"))
    with started(output, sample, server) as process:
        wait_for(lambda: trained(output) >= 2, process)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
    first = trained(output)
    assert 2 <= first < FITS, "it was past the moment"
    with started(output, sample, server) as process:
        wait_for(lambda: trained(output) >= first + 3, process)
        killed(process)
    second = trained(output)
    assert first + 3 <= second < FITS, "it was past the moment"
    finish(output, sample, server)
    assert latest(output)[0]["counts"]["train"] | {"samples": 0} == {
        "computed": FITS - second,
        "reused": second,
        "samples": 0,
    }
    assert table(output) == table(whole[0])
    assert files_of(output) == files_of(whole[0])


def test_a_time_limit_begins_no_fit_and_the_next_run_goes_on(
    whole: tuple[Path, str], features: Path, sample: Path, server: Server, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(features, tmp_path / "output"))
    printed = finish(output, sample, server, "--time-limit", "0.01s")
    said = f"{FITS} of {FITS} fits not done: time limit. The same command without it goes on from there."
    assert said in printed
    assert latest(output)[0]["counts"]["train"]["computed"] == 0
    assert trained(output) == 0
    finish(output, sample, server, "--time-limit", "2h")
    assert table(output) == table(whole[0])


@pytest.mark.parametrize("text", ["soon", "20 minutes", "0s", "-5m", ""])
def test_a_limit_that_is_none(text: str, sample: Path, server: Server) -> None:
    done = mmcore("compare", sample / "pipeline.yaml", f"--time-limit={text}", env=server.env)
    assert done.returncode == 2
    assert done.stderr == f"Problem:\n  --time-limit: {text!r} is no duration. Write it as 90s, 20m or 1h30m.\n"


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_killed_at_random_moments_it_ends_in_the_same_table(
    whole: tuple[Path, str], features: Path, sample: Path, server: Server, tmp_path: Path
) -> None:
    rng = random.Random(5)
    for trial in range(3):
        output = Path(shutil.copytree(features, tmp_path / f"output-{trial}"))
        kills = 0
        while kills < 3 and trained(output) < FITS:
            target = trained(output) + rng.randint(0, 3)
            with started(output, sample, server) as process:
                wait_for(lambda target=target, output=output: trained(output) >= target, process)
                time.sleep(rng.uniform(0, 1.0))
                if process.poll() is None:
                    killed(process)
            kills += 1
        finish(output, sample, server)
        assert table(output) == table(whole[0]), f"trial {trial}"
        assert files_of(output) == files_of(whole[0]), f"trial {trial}"
