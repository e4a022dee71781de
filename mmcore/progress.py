"""How a stage tells how far it is: a no-op here, a terminal bar and a Prefect artifact above."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of one stage. Calls are cheap and may come from any thread."""

    def start(self, total: int, *, reused: int = 0, unit: str = "shards") -> None:
        """Begin: `total` units in all, of which `reused` were found finished."""

    def advance(self, units: float = 1, *, samples: int = 0, rejected: int = 0, note: str = "") -> None:
        """`units` more are done (a fraction for one epoch of several); `note` is shown beside the bar."""

    def log(self, message: str) -> None:
        """A line for the run's log."""


class Silent:
    """A `Progress` that shows nothing."""

    def start(self, total: int, *, reused: int = 0, unit: str = "shards") -> None:
        pass

    def advance(self, units: float = 1, *, samples: int = 0, rejected: int = 0, note: str = "") -> None:
        pass

    def log(self, message: str) -> None:
        pass
