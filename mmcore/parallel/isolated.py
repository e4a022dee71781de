"""One job in a child process of its own, which may crash, hang or be killed without harm."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from mmcore.parallel.jobs import Died, Outcome, attempt_packed, log_level, raise_error, relog
from mmcore.parallel.pool import Job, Result
from mmcore.records import Json

STOP_WITHIN_S = 0.2
"""How long a child may go on after it is to stop."""


def run_isolated(
    function: Callable[[Job], Result],
    job: Job,
    *,
    timeout_s: float,
    name: str | None = None,
    on_event: Callable[[Json], None] | None = None,
    stop: threading.Event | None = None,
) -> Result | Died:
    """Run one job in a fresh child process that may crash, hang or be killed without harm.

    After `timeout_s` seconds, or soon after `stop` is set, the child is killed. Raises like `Pool.map`, without trying
    again.
    """
    import cloudpickle

    name = name or str(getattr(function, "__name__", "job"))
    near, far = socket.socketpair()
    with tempfile.TemporaryFile() as output, Connection(near.detach()) as connection:
        with far:
            child = subprocess.Popen(
                [sys.executable, "-c", _CHILD, str(far.fileno())],
                pass_fds=[far.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            with contextlib.suppress(OSError):
                connection.send((sys.path, bytes(cloudpickle.dumps((function, job))), log_level()))
            said = _listen(connection, timeout_s, name, on_event, stop)
        finally:
            ended_itself = not (stop and stop.is_set()) and _ended(child)
            child.kill()
            child.wait()
        if said.outcome is None:
            reason = said.given_up or _how_it_ended(child, ended_itself, output)
            return Died(name, reason, said.last_told)
    if said.outcome.error is not None:
        raise_error(name, said.outcome)
    result: Result = said.outcome.result
    return result


_CHILD = "import sys; from mmcore.parallel.isolated import _child; _child(int(sys.argv[1]))"


@dataclass
class _Said:
    """All that came from a child."""

    outcome: Outcome | None = None
    last_told: Json | None = None
    given_up: str = ""
    """Why the driver waits no longer."""


def _listen(
    connection: Connection,
    timeout_s: float,
    name: str,
    on_event: Callable[[Json], None] | None,
    stop: threading.Event | None,
) -> _Said:
    said, deadline = _Said(), time.monotonic() + timeout_s
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            left = max(0.0, deadline - time.monotonic())
            if not connection.poll(min(left, STOP_WITHIN_S) if stop else left):
                if stop and stop.is_set():
                    said.given_up = "stopped"
                    return said
                if time.monotonic() >= deadline:
                    said.given_up = f"no end after {timeout_s:g} s"
                    return said
                continue
            kind, body = connection.recv()
            if kind == "done":
                said.outcome = pickle.loads(body)  # noqa: S301 - from our own child
                return said
            if kind == "log":
                relog(body, name)
                continue
            said.last_told = body
            if on_event is not None:
                on_event(body)
    return said


def _ended(child: subprocess.Popen[bytes]) -> bool:
    """Whether the child ends by itself; its connection closes a moment before its process is gone."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=0.5)
        return True
    return False


def _how_it_ended(child: subprocess.Popen[bytes], ended_itself: bool, output: Any) -> str:
    status = child.returncode if ended_itself else 0
    how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    output.seek(0)
    lines = output.read().decode("utf-8", "replace").strip().splitlines()
    return f"{how}: {lines[-1]}" if lines else how


def _child(descriptor: int) -> None:
    """The life of the child: take one job, say what it says, end."""
    connection = Connection(descriptor)
    sys.path[:], payload, log_level = connection.recv()

    def end_with_the_driver() -> None:
        with contextlib.suppress(EOFError, OSError):
            connection.recv()
        os._exit(1)

    threading.Thread(target=end_with_the_driver, daemon=True).start()
    lock = threading.Lock()

    def send(kind: str, body: Json) -> None:
        with lock:
            connection.send((kind, body))

    send("done", attempt_packed(payload, send, log_level, alone=True))
    # Not through the interpreter's end: a native library that crashes there has already given its result.
    os._exit(0)
