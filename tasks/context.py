"""What all tasks of one run share: its configuration, its store, its workers, its record."""

from __future__ import annotations

import copy
import os
import platform
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from prefect.runtime import flow_run
from prefect.settings import get_current_settings

from mmcore.config import RunConfig
from mmcore.parallel import Pool, open_pool
from mmcore.records import Json
from mmcore.shards.plan import ShardPlan
from mmcore.storage import Store
from tasks.progress import StageProgress
from tasks.terminal import Terminal, current_terminal

RECORDED_PACKAGES = (
    "mmcore",
    "prefect",
    "dask",
    "torch",
    "onnxruntime",
    "pyarrow",
    "numpy",
    "scikit-learn",
    "pillow",
    "soundfile",
    "soxr",
)


class Run:
    """One run in progress; its record is published at `runs/<run-id>/run.json` whenever it changes."""

    def __init__(self, config: RunConfig, store: Store, pool: Pool, terminal: Terminal, run_id: str) -> None:
        self.config, self.store, self.pool, self.terminal, self.run_id = config, store, pool, terminal, run_id
        self.shards: ShardPlan | None = None
        """What the plan task found; the prepare task starts from it."""
        self._lock = threading.Lock()
        self._at_work: dict[str, int] = {}
        self._began: dict[str, float] = {}
        self.record: dict[str, Json] = {
            "run_id": run_id,
            "name": config.name,
            "config": config.model_dump(mode="json"),
            "state": "running",
            "started": _now(),
            "finished": None,
            "seconds": {},
            "counts": {},
            "dataset": None,
            "encoders": [],
            "tried": [],
            "models": [],
            "evaluations": [],
            "leaderboard": {},
            "versions": _versions(),
            "host": {"name": socket.gethostname(), "pid": os.getpid(), "platform": platform.platform()},
            "ui_url": ui_url(),
        }

    @property
    def folder(self) -> str:
        return f"runs/{self.run_id}"

    def write(self, **changes: Json) -> None:
        """Change the record and publish it."""
        with self._lock:
            self.record |= changes
            self.store.publish_json(f"{self.folder}/run.json", self.record)

    def varied(self, config: RunConfig) -> Run:
        """The same run with other settings: one record, one store, the same workers."""
        other = copy.copy(self)
        other.config = config
        return other

    @contextmanager
    def stage(self, stage: str, name: str) -> Iterator[StageProgress]:
        """Progress of one piece of a stage; its seconds and counts go to the record."""
        with self._timed(stage), StageProgress(stage, name, self.terminal) as progress:
            yield progress
            with self._lock:
                counts = self.record["counts"]
                count = counts.setdefault(stage, {"computed": 0, "reused": 0, "samples": 0})
                count["computed"] += round(progress.done)
                count["reused"] += progress.reused
                count["samples"] += progress.samples

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """The record's seconds of a stage: as long as any piece of it is at work, for pieces run side by side."""
        with self._lock:
            if not self._at_work.get(stage):
                self._began[stage] = time.monotonic() - self.record["seconds"].get(stage, 0.0)
            self._at_work[stage] = self._at_work.get(stage, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._at_work[stage] -= 1
                self.record["seconds"][stage] = round(time.monotonic() - self._began[stage], 3)


@contextmanager
def open_run(config: RunConfig) -> Iterator[Run]:
    """A run with its store opened and its workers at hand (none is started before there is work).

    The record ends as `finished`, `failed` or `interrupted`; a killed run leaves it at `running`.
    """
    store = Store(config.output).open()
    with open_pool(config.compute) as pool:
        run = Run(config, store, pool, current_terminal(), new_run_id(config.name))
        run.write()
        if run.terminal.on_start is not None:
            run.terminal.on_start()
        try:
            yield run
        except Exception as error:
            run.write(state="failed", finished=_now(), error=str(error))
            raise
        except BaseException:
            run.write(state="interrupted", finished=_now())
            raise
        run.write(state="finished", finished=_now())


def new_run_id(name: str) -> str:
    """The run's name and the last twelve digits of its Prefect flow run's id, so that the two find each other."""
    return f"{name}-{str(flow_run.id).replace('-', '')[-12:]}" if flow_run.id else f"{name}-{time.time_ns():x}"


def ui_url() -> str | None:
    """The flow run's page in the Prefect UI; None on a temporary server, whose page goes with the run."""
    settings = get_current_settings()
    if not settings.api.url or not flow_run.id:
        return None
    return str(flow_run.ui_url) if flow_run.ui_url else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
