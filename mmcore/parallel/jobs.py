"""One job, wherever it runs: what it says, and what becomes of it."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from mmcore.errors import MmcoreError, StageError
from mmcore.records import Json

Send = Callable[[str, Json], None]
"""Takes what a job says while it runs: its kind (`told` or `log`) and its body."""

_send: ContextVar[Send | None] = ContextVar("_send", default=None)
_alone: ContextVar[bool] = ContextVar("_alone", default=False)


@dataclass(frozen=True)
class Died:
    """In place of a result: the process that worked on the job ended without one."""

    name: str
    reason: str
    last_told: Json | None = None
    """The last event the job told before its end."""


def tell(event: Json) -> None:
    """Say, from inside a job and on its own thread, how far it is; dropped where nobody listens."""
    if (send := _send.get()) is not None:
        send("told", event)


def in_single_threaded_process_worker() -> bool:
    """Whether the calling job has this process to itself, so that ending the process harms no other job."""
    return _alone.get()


@dataclass(frozen=True)
class Outcome:
    """What became of one attempt: a result, or an error with the text of its traceback."""

    result: Any = None
    error: BaseException | None = None
    trace: str = ""

    def packed(self) -> bytes:
        """Pickled; an error that cannot be is replaced by one that can."""
        import cloudpickle

        try:
            data = cloudpickle.dumps(self)
            if self.error is not None:
                pickle.loads(data)  # noqa: S301 - some errors pickle and then cannot be made again
            return bytes(data)
        except Exception as failure:
            if self.error is None:
                told = "".join(traceback.format_exception_only(failure)).strip()
                stand_in: Exception = TypeError(f"the result cannot be sent back: {told}")
            else:
                stand_in = RuntimeError("".join(traceback.format_exception_only(self.error)).strip())
            return bytes(cloudpickle.dumps(Outcome(error=stand_in, trace=self.trace)))


def attempt_job(function: Callable[[Any], Any], job: Any, send: Send | None, *, alone: bool) -> Outcome:
    tokens = _send.set(send), _alone.set(alone)
    try:
        return Outcome(function(job))
    except (Exception, SystemExit) as error:
        # The first frame is this one.
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        return Outcome(error=error, trace="".join(traceback.format_exception(error)))
    finally:
        _send.reset(tokens[0])
        _alone.reset(tokens[1])


def attempt_packed(payload: bytes, send: Send, log_level: int, *, alone: bool) -> bytes:
    """Run a pickled (function, job) away from the driver; log records of `mmcore` go to it too."""
    _forward_logs(log_level)
    try:
        function, job = pickle.loads(payload)  # noqa: S301 - from our own driver
    except Exception as error:
        return Outcome(error=error, trace=traceback.format_exc()).packed()
    return attempt_job(function, job, send, alone=alone).packed()


def raise_error(name: str, outcome: Outcome, attempts: int = 1) -> None:
    error = outcome.error
    assert error is not None
    if isinstance(error, MmcoreError):
        raise error
    times = f" {attempts} times" if attempts > 1 else ""
    last = "".join(traceback.format_exception_only(error)).strip().splitlines()[0]
    lines = [line.strip() for line in outcome.trace.splitlines() if line.startswith("  File ")]
    where = f" ({lines[-1]})" if lines else ""
    if error.__traceback__ is None and outcome.trace:
        error.add_note(f"In the worker:\n{outcome.trace}")
    raise StageError(f"{name} failed{times}: {last}{where}") from error


class _Forward(logging.Handler):
    """Sends the log records of a job to the driver."""

    def emit(self, record: logging.LogRecord) -> None:
        if (send := _send.get()) is not None:
            body = {"name": record.name, "levelno": record.levelno, "levelname": record.levelname}
            text = record.getMessage()
            if record.exc_info:
                text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
            send("log", body | {"msg": text, "created": record.created, "pathname": record.pathname})


def _forward_logs(level: int) -> None:
    ours = logging.getLogger("mmcore")
    ours.setLevel(level)
    if not any(isinstance(handler, _Forward) for handler in ours.handlers):
        ours.addHandler(_Forward())
        # The driver decides where lines are shown; a worker's own stderr is the user's terminal.
        ours.propagate = False


def log_level() -> int:
    return logging.getLogger("mmcore").getEffectiveLevel()


def relog(body: dict[str, Json], job: str) -> None:
    logger = logging.getLogger(body["name"])
    if logger.isEnabledFor(body["levelno"]):
        logger.handle(logging.makeLogRecord({**body, "job": job}))
