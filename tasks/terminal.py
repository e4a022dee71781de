"""What a person at a terminal sees of a run: one bar per piece of work, one line when it is done."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.status import Status
from rich.table import Column


def line_console() -> Console:
    """Lines on stdout; where that is no terminal they are as long as they need to be."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)


EVEN_STAGES = frozenset({"prepare", "evaluate"})
"""Stages whose units cost about the same, so that the time left can be told; elsewhere the note tells the epoch."""


class Terminal:
    """Bars while there is something to watch, and lines that stay.

    Both go to stdout where that is a terminal: only one console keeps bars and lines out of each other's way. Where
    only stderr is one, the bars go there; where neither is, there are none, so that a log file holds only the lines.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.on_start: Callable[[], None] | None = None
        """Called once the run has begun."""
        self.console = line_console()
        self._watched = self.console if sys.stdout.isatty() else Console(stderr=True)
        self._live = not quiet and self._watched.is_terminal
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[stage]} {task.description}", table_column=Column(no_wrap=True, min_width=14)),
            BarColumn(bar_width=16),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            console=self._watched,
            transient=True,
            expand=True,
            disable=not self._live,
        )
        self._lock = threading.Lock()
        self._open: set[TaskID] = set()
        self._wait: Status | None = None

    def wait(self, text: str) -> None:
        """Show that something is going on until there is more to say; nothing where stderr is not a terminal."""
        self.wait_no_more()
        if self._live:
            self._wait = self._watched.status(text)
            self._wait.start()

    def wait_no_more(self) -> None:
        """End `wait`."""
        if self._wait is not None:
            self._wait.stop()
            self._wait = None

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self.wait_no_more()
        if not self.quiet:
            self.console.print(text)

    def begin(self, stage: str, name: str, total: float, done: float) -> TaskID:
        """Show a bar; the first one starts the display."""
        self.wait_no_more()
        with self._lock:
            bar = self._bars.add_task(name, total=total, completed=round(done), stage=stage, note="")
            self._open.add(bar)
            if len(self._open) == 1:
                self._bars.start()
            return bar

    def update(self, bar: TaskID, **fields: Any) -> None:
        """Move a bar: `completed`, `note`."""
        self._bars.update(bar, **fields)

    def end(self, bar: TaskID) -> None:
        """Take a bar away; the last one ends the display."""
        with self._lock:
            self._bars.remove_task(bar)
            self._open.discard(bar)
            if not self._open:
                self._bars.stop()


class TerminalProgress:
    """Counts one piece of work and shows it as a bar. Implements `mmcore.progress.Progress`; a context manager."""

    def __init__(self, stage: str, name: str, terminal: Terminal) -> None:
        self.stage, self.name, self.terminal = stage, name, terminal
        self.total, self.reused, self.done, self.unit = 0.0, 0, 0.0, "shards"
        self.samples, self.rejected, self.note = 0, 0, ""
        self.started = time.monotonic()
        self._bar: TaskID | None = None
        self._counting = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            # Fractions of epochs do not add up to the last bit; what a time limit left out stays undone.
            self.done = round(self.done)
        if self._bar is not None:
            self.terminal.end(self._bar)
            self._bar = None

    @property
    def seconds(self) -> float:
        """Since the work began."""
        return time.monotonic() - self.started

    def start(self, total: int, *, reused: int = 0, unit: str = "shards") -> None:
        self.total, self.reused, self.unit = float(total), reused, unit
        self.started = time.monotonic()
        if total > reused:
            self._bar = self.terminal.begin(self.stage, self.name, total, reused)

    def advance(self, units: float = 1, *, samples: int = 0, rejected: int = 0, note: str = "") -> None:
        with self._counting:
            self.done += units
            self.samples += samples
            self.rejected += rejected
            self.note = note or self.note
        if self._bar is not None:
            note = " · ".join(part for part in (self.left(), self.note) if part)
            self.terminal.update(self._bar, completed=self.reused + self.done, note=note)

    def log(self, message: str) -> None:
        self.terminal.line(message)

    def left(self) -> str:
        """About how long the rest takes; nothing where the units are too unlike to tell."""
        rest = self.total - self.reused - self.done
        if self.stage not in EVEN_STAGES or self.done <= 0 or rest <= 0:
            return ""
        return f"{rest / self.done * self.seconds:,.0f} s left"

    def counted(self) -> str:
        """How many units there are and how many were reused, in columns."""
        return f"{f'{self.total:,.0f} {self.unit}':<14} {f'{self.reused:,} reused':<12}"

    def timed(self) -> str:
        """The rate and the time it took, or nothing where nothing was computed."""
        if not self.done:
            return ""
        rate = f"   {self.samples / self.seconds:,.0f} samples/s" if self.samples else ""
        return f"{rate}   {self.seconds:,.1f} s"


_current: ContextVar[Terminal | None] = ContextVar("terminal", default=None)


def current_terminal() -> Terminal:
    """The terminal that the command line shows its run on; a quiet one in deployed flows."""
    return _current.get() or Terminal(quiet=True)


@contextmanager
def shown_on(terminal: Terminal) -> Iterator[None]:
    """Runs that begin in this block are shown on `terminal`."""
    token = _current.set(terminal)
    try:
        yield
    finally:
        _current.reset(token)
