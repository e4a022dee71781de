"""A limit on the time of one sample that also ends a codec which never returns to Python."""

from __future__ import annotations

import faulthandler
import os
import time
from types import TracebackType
from typing import Self

SLACK = 0.25
"""Arming the timer starts a thread, so that it is done once per this share of the limit, not for each sample."""


class TimeLimit:
    """Ends the process when a sample takes longer than `limit_s` (at most a quarter longer); None: no limit.

    Only for processes in which one thread decodes.
    """

    def __init__(self, limit_s: float | None, *, exact: bool = False) -> None:
        self._limit_s = limit_s
        self._slack_s = 0.0 if exact or limit_s is None else limit_s * SLACK
        self._armed_at = float("-inf")

    def __enter__(self) -> Self:
        self._nowhere = open(os.devnull, "w")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._limit_s is not None:
            faulthandler.cancel_dump_traceback_later()
        self._nowhere.close()

    def restart(self) -> None:
        """A new sample begins: it has all its time before it."""
        if self._limit_s is None:
            return
        now = time.monotonic()
        if now - self._armed_at >= self._slack_s:
            faulthandler.dump_traceback_later(self._limit_s + self._slack_s, exit=True, file=self._nowhere)
            self._armed_at = now
