"""Killing the run, or one of its workers, with SIGKILL: the same command then ends in the same bytes."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.flows.conftest import BIN, Server

SEED = 20
SETTINGS = [
    "shards.samples=64",
    "compute.dask.workers=2",
    *(f"features.{name}.{setting}=40" for name in ("image", "audio") for setting in ("epochs", "patience")),
]
"""Several shards, and training that is long enough to leave checkpoints."""

STAGES = ("prepare", "extract", "train", "evaluate", "report")
RANDOM_MOMENTS = {"prepare": 2, "extract": 4, "train": 2, "evaluate": 1, "report": 1}
"""In which stages the ten random moments lie."""

CHECKPOINTS = "*/*/checkpoint*"
LIMIT_S = 300.0


@dataclass
class Started:
    """A run of the command in a process of its own, and how far its output says that it is."""

    process: subprocess.Popen[str]
    output: Path
    known: frozenset[Path]
    """Records of earlier runs below the same root."""

    @property
    def over(self) -> bool:
        return self.process.poll() is not None

    def stage(self) -> str | None:
        """The stage at work, by the run's record; None before there is one."""
        records = set(self.output.glob("runs/*/run.json")) - self.known
        if not records:
            return None
        record = json.loads(records.pop().read_text())
        done = [bool(record[part]) for part in ("dataset", "encoders", "models", "evaluations")]
        return STAGES[sum(done)]

    def wait_for(self, moment: Callable[[], bool]) -> None:
        """Return when `moment` has come, or the run is over."""
        deadline = time.monotonic() + LIMIT_S
        while not self.over and not moment():
            assert time.monotonic() < deadline, "the moment did not come"
            time.sleep(0.01)

    def wait_for_stage(self, stage: str) -> None:
        """Return when the run has come to `stage`, or is over."""
        self.wait_for(lambda: (now := self.stage()) is not None and STAGES.index(now) >= STAGES.index(stage))

    def sleep(self, seconds: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)

    def workers(self) -> list[psutil.Process]:
        """The Dask workers: descendants that multiprocessing spawned to run Python in."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if any("spawn_main" in word for word in child.cmdline()):
                    found.append(child)
        return found

    def kill(self) -> None:
        """SIGKILL to the main process; the workers must notice and go by themselves."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.communicate()
        _, alive = psutil.wait_procs(family, timeout=60)
        assert not alive, "processes of a killed run stay"

    def finish(self) -> None:
        """Wait for the end, which must be a good and quiet one."""
        printed, errors = self.process.communicate(timeout=LIMIT_S)
        assert self.process.returncode == 0, printed + errors
        assert errors == ""

    def where(self) -> str:
        """In words: the stage, and what is there so far."""
        counts = {
            "shards": "shards/*.json",
            "encoders": "encoders/*/receipt.json",
            "models": "models/*/receipt.json",
            "evaluations": "evaluations/*/receipt.json",
            "checkpoints": CHECKPOINTS,
        }
        there = ", ".join(f"{len(list(self.output.glob(pattern)))} {name}" for name, pattern in counts.items())
        return f"in {self.stage()}: {there}"


@dataclass
class Bench:
    """The command on the sample, and what an uninterrupted run of it leaves."""

    server: Server
    sample: Path
    whole: dict[str, str]
    durations: dict[str, float]
    """Seconds of each stage in the uninterrupted run."""

    @contextmanager
    def start(self, output: Path) -> Iterator[Started]:
        with started(self.server, self.sample, output) as run:
            yield run

    def finish(self, output: Path) -> None:
        with self.start(output) as run:
            run.finish()

    def compare(self, output: Path, what: str) -> None:
        """Every file but those of `runs/` and `tmp/` has the bytes of the uninterrupted run."""
        found = files_of(output)
        assert sorted(found) == sorted(self.whole), what
        assert [name for name in found if found[name] != self.whole[name]] == [], what


@contextmanager
def started(server: Server, sample: Path, output: Path) -> Iterator[Started]:
    known = frozenset(output.glob("runs/*/run.json"))
    process = subprocess.Popen(
        [BIN / "mmcore", "run", sample / "pipeline.yaml", f"output={output}", *SETTINGS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=server.env,
    )
    try:
        yield Started(process, output, known)
    finally:
        process.kill()
        process.communicate()


def files_of(output: Path) -> dict[str, str]:
    """The SHA-256 of every file below the root, but for what holds times and what was never published."""
    return {
        str(file.relative_to(output)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in output.rglob("*")
        if file.is_file() and file.relative_to(output).parts[0] not in ("runs", "tmp") and file.name != "costs.json"
    }


@pytest.fixture(scope="module")
def bench(server: Server, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    output = tmp_path_factory.mktemp("whole") / "output"
    with started(server, sample, output) as run:
        begun: dict[str, float] = {}
        for stage in STAGES:
            run.wait_for(
                lambda stage=stage: (now := run.stage()) is not None and STAGES.index(now) >= STAGES.index(stage)
            )
            begun[stage] = time.monotonic()
        run.finish()
    ends = [*list(begun.values())[1:], time.monotonic()]
    durations = {stage: end - begin for (stage, begin), end in zip(begun.items(), ends, strict=True)}
    assert {path.split("/")[0] for path in files_of(output)} == {
        "format.json",
        "shards",
        "datasets",
        "quality",
        "quarantine",
        "encoders",
        "features",
        "models",
        "evaluations",
    }
    return Bench(server, sample, files_of(output), durations)


def test_the_run_and_a_worker_are_killed(bench: Bench, tmp_path: Path) -> None:
    """Four starts: a worker dies in a training, the main process while shards, features and models are made."""
    output = tmp_path / "output"

    def wait_for(run: Started, pattern: str) -> None:
        run.wait_for(lambda: any(output.glob(pattern)))
        assert not run.over, f"it ended before there was a {pattern}"

    with bench.start(output) as run:
        wait_for(run, "shards/*.json")
        run.kill()
    with bench.start(output) as run:
        wait_for(run, "encoders/*/checkpoints/*.safetensors")
        run.workers()[0].kill()
        wait_for(run, "features/*/*.arrow")
        run.kill()
    with bench.start(output) as run:
        wait_for(run, "models/*/receipt.json")
        run.kill()
    bench.finish(output)
    bench.compare(output, "three runs and a worker were killed")


def at_random_moments(bench: Bench, folder: Path, seed: int) -> Iterator[Started]:
    """Ten runs, each at a moment of its own, drawn with `seed` from the stages' durations.

    A run that was past its stage by then, on a machine that has become faster, is made again with half the delay.
    """
    rng = random.Random(seed)
    print(f"\nseed {seed}; uninterrupted:", {stage: round(s, 1) for stage, s in bench.durations.items()}, flush=True)
    for trial, stage in enumerate(stage for stage, times in RANDOM_MOMENTS.items() for _ in range(times)):
        seconds = rng.uniform(0, bench.durations[stage])
        landed = False
        while not landed:
            with bench.start(folder / f"{trial}-{seconds:.3f}") as run:
                run.wait_for_stage(stage)
                run.sleep(seconds)
                landed = run.stage() == stage and not run.over
                if landed:
                    print(f"{trial}: {seconds:.2f} s into {stage}, {run.where()}", flush=True)
                    yield run
            seconds /= 2


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_the_run_is_killed_at_ten_random_moments(bench: Bench, tmp_path: Path) -> None:
    killed = in_training = 0
    for run in at_random_moments(bench, tmp_path, SEED):
        run.kill()
        killed += 1
        in_training += any(run.output.glob(CHECKPOINTS))
        bench.finish(run.output)
        bench.compare(run.output, run.output.name)
    assert killed == 10
    assert in_training, "no kill fell into a training that had left a checkpoint"


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_a_worker_is_killed_at_ten_random_moments(bench: Bench, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    killed = in_training = 0
    for run in at_random_moments(bench, tmp_path, SEED + 1):
        if workers := run.workers():  # none before the first job and after the last
            with suppress(psutil.NoSuchProcess):
                rng.choice(workers).kill()
                killed += 1
                in_training += any(run.output.glob(CHECKPOINTS))
        run.finish()
        bench.compare(run.output, run.output.name)
    assert killed >= 8
    assert in_training, "no kill fell into a training that had left a checkpoint"
