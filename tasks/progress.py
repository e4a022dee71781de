"""A stage's progress where a Prefect task runs: the terminal's bar, one progress artifact, the run's log."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

from tasks.terminal import Terminal, TerminalProgress

ARTIFACT_INTERVAL_S = 1.0
"""One update costs the server about 25 ms, so there is at most one a second."""


class StageProgress(TerminalProgress):
    """Progress of one piece of a stage inside a Prefect task run.

    The artifact's description says what is done, reused and rejected, the rate, and the time left.
    """

    def __init__(self, stage: str, name: str, terminal: Terminal) -> None:
        super().__init__(stage, name, terminal)
        self._log = get_run_logger()
        self._lines = _ToRun(self._log)
        self._artifact: UUID | None = None
        self._updated = 0.0

    def __enter__(self) -> Self:
        ours = logging.getLogger("mmcore")
        ours.addHandler(self._lines)
        if ours.level == logging.NOTSET:
            ours.setLevel(logging.INFO)
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, value, trace)
        logging.getLogger("mmcore").removeHandler(self._lines)
        if kind is None:
            self.note = ""  # the last epoch's says nothing about the whole
        self._publish()
        if kind is None:
            self.log(f"{self.stage} {self.name}: {self.summary()}")

    def summary(self) -> str:
        """One line: done, reused, rejected, rate, time left."""
        parts = [f"{self.done + self.reused:,.0f}/{self.total:,.0f} {self.unit}", f"{self.reused:,} reused"]
        if self.rejected:
            parts.append(f"{self.rejected:,} rejected")
        if self.samples:
            parts.append(f"{self.samples / self.seconds:,.0f} samples/s")
        if left := self.left():
            parts.append(left)
        if self.note:
            parts.append(self.note)
        return " · ".join(parts)

    def start(self, total: int, *, reused: int = 0, unit: str = "shards") -> None:
        super().start(total, reused=reused, unit=unit)
        if total > reused:
            made = create_progress_artifact(progress=self._percent(), description=self._description())
            assert isinstance(made, UUID)  # never awaited here: a task run's thread has no event loop
            self._artifact = made

    def advance(self, units: float = 1, *, samples: int = 0, rejected: int = 0, note: str = "") -> None:
        super().advance(units, samples=samples, rejected=rejected, note=note)
        now = time.monotonic()
        if now - self._updated >= ARTIFACT_INTERVAL_S:
            self._updated = now
            self._publish()

    def log(self, message: str) -> None:
        self._log.info("%s", message)

    def _percent(self) -> float:
        return min(100.0, 100.0 * (self.reused + self.done) / self.total) if self.total else 100.0

    def _description(self) -> str:
        return f"{self.stage} {self.name}: {self.summary()}"

    def _publish(self) -> None:
        if self._artifact is not None:
            update_progress_artifact(self._artifact, progress=self._percent(), description=self._description())


class _ToRun(logging.Handler):
    """Passes what `mmcore` logs, here or in a worker, to the task run on whose thread it arrives."""

    def __init__(self, run_logger: Any) -> None:
        super().__init__()
        self._run_logger = run_logger
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if threading.get_ident() == self._thread:
            self._run_logger.log(record.levelno, "%s", record.getMessage())
