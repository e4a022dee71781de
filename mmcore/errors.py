"""Every error that mmcore raises on purpose.

MmcoreError
├── InputError            what the user gave cannot be used; holds every problem found, not only the first
│   ├── ConfigError       the YAML: unknown key, wrong type, value out of range
│   ├── SourceError       the manifest and what it names: unreadable, empty, no such column
│   └── DataError         the data cannot be learned from: one class only, a split without rows
├── TooManyRejectsError   more samples were set aside than `data.max_rejected` allows
├── StoreError            the output root
│   ├── LayoutError       it was written by a newer mmcore
│   ├── DamagedError      a file is not what its receipt says
│   └── NoSpaceError      the disk or bucket is full
├── StageError            a job of a stage failed for good; names the job and the cause
│   └── SourceChangedError  an input file changed between planning and reading
└── FusionError           a fusion model was given views it cannot take (also a ValueError)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class MmcoreError(Exception):
    """Base of all errors raised on purpose by mmcore."""


@dataclass(frozen=True, order=True)
class Problem:
    """One fault of the input: where it is, what is wrong, and what to do about it."""

    where: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" {self.fix}" if self.fix else "")


class InputError(MmcoreError):
    """What the user gave cannot be used; `problems` holds all that was found."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[InputError], tuple[list[Problem]]]:
        # An exception is otherwise made again from its message, and this one takes problems.
        return type(self), (self.problems,)


class ConfigError(InputError):
    """The YAML: an unknown key, a wrong type, a value out of range."""


class SourceError(InputError):
    """The manifest or what it names: unreadable, empty, no such column."""


class DataError(InputError):
    """The data cannot be learned from: one class only, a split without rows."""


class TooManyRejectsError(MmcoreError):
    """More samples were set aside than `data.max_rejected` allows."""


class StoreError(MmcoreError):
    """The output root cannot be used as it is."""


class LayoutError(StoreError):
    """The output root was written by a newer mmcore."""


class DamagedError(StoreError):
    """A file is not what its receipt says."""


class NoSpaceError(StoreError):
    """The disk or bucket is full."""


class StageError(MmcoreError):
    """A job of a stage failed for good; the message names the job and the cause."""


class SourceChangedError(StageError):
    """An input file changed between planning and reading."""


class FusionError(MmcoreError, ValueError):
    """A fusion model was given views it cannot take."""
