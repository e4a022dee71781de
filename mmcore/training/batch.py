"""The rows of one training step, and which of them this process computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


class Batch:
    """One step's rows. Several processes meet the same batches and compute a part of each; one alone computes all.

    A loss is the mean over `rows` of what each of them costs; the loop weights every process's by its share.
    """

    __slots__ = ("data", "part", "random", "whole")

    def __init__(self, whole: np.ndarray, random: np.random.Generator, *, rank: int = 0, processes: int = 1) -> None:
        self.whole = whole
        """The numbers of all its rows (b,)."""
        self.random = random
        """For augmentation. All processes have the same: what is drawn for `whole` and cut to `part` is equal."""
        self.part = slice(rank * len(whole) // processes, (rank + 1) * len(whole) // processes)
        """Where this process's rows lie in `whole`."""
        self.data: Any = None
        """What `train`'s `load` gave for `rows`."""

    @property
    def rows(self) -> np.ndarray:
        """The numbers of the rows to compute here."""
        return self.whole[self.part]

    @property
    def share(self) -> float:
        """How much of the batch that is."""
        return (self.part.stop - self.part.start) / len(self.whole)

    def drawn(self, draw: Callable[[np.random.Generator, int], np.ndarray]) -> np.ndarray:
        """Random numbers for `rows`: `draw` makes them for so many rows, along the first axis."""
        return draw(self.random, len(self.whole))[self.part]
