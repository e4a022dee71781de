"""Silence for C libraries that print what they think of a broken file."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STDERR = threading.Lock()
"""Held while the process's standard error leads nowhere: two threads at it would lose it for good."""


@contextmanager
def stderr_dropped() -> Iterator[None]:
    """What the whole process writes to file descriptor 2 is dropped; for the milliseconds of one decoder call."""
    with _STDERR:
        try:
            real = os.dup(2)
        except OSError:  # the process has no standard error
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        try:
            yield
        finally:
            os.dup2(real, 2)
            os.close(real)
