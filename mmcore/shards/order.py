"""In which order samples are read, and which of them fall to which rank, step and worker: pure functions.

An epoch is one permutation of all samples. Position `n` means that its first `n` samples have been delivered, on
whatever number of ranks; what is left is cut again for the ranks, batch size and workers of the moment, and the cut
depends on nothing but the position. So a run that stops after any step goes on with the same batches on the same
number of ranks, and with the same samples, each once, on another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmcore.errors import DataError, Problem

Rows = NDArray[np.int64]
Shuffle = Literal["samples", "shards", "none"]


def permutation(shard_sizes: Sequence[int], shuffle: Shuffle, seed: int, epoch: int, shards_at_once: int = 16) -> Rows:
    """Each of `sum(shard_sizes)` rows once, in the order of one epoch.

    `samples`: every order of all samples is equally likely. `shards`: shards in random order, and samples shuffled
    within each run of `shards_at_once` of them, so that only so many are read from at a time. `none`: as stored.
    Equal arguments give equal orders on every machine; takes 16 bytes a sample while it works.
    """
    rows = sum(shard_sizes)
    if shuffle == "none":
        return np.arange(rows, dtype=np.int64)
    # The raw stream of Philox is fixed for ever, which numpy does not promise of its shuffling functions.
    random = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64))
    if shuffle == "samples":
        return np.argsort(random.random_raw(rows), kind="stable").astype(np.int64, copy=False)
    place = np.argsort(np.argsort(random.random_raw(len(shard_sizes)), kind="stable"), kind="stable")
    block = np.repeat(place // shards_at_once, np.asarray(shard_sizes, dtype=np.int64))
    return np.lexsort((random.random_raw(rows), block)).astype(np.int64, copy=False)


@dataclass(frozen=True)
class Cut:
    """What is left of an epoch, cut into steps of one batch per rank.

    Every rank has the same number of steps. Batches have `batch_size` samples or fewer, and differ by one at most;
    only where a batch size of 1 does not go up into the ranks do some have 2.

    Raises DataError where fewer samples are left than there are ranks (unless all were delivered).
    """

    start: int
    """Samples of the epoch that were delivered before."""
    samples: int
    """Samples of the whole epoch."""
    ranks: int
    batch_size: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.samples or self.ranks < 1 or self.batch_size < 1:
            raise ValueError(f"no such cut: {self}")
        if self.left < self.ranks and (self.left or not self.start):
            raise DataError(
                Problem(
                    "reading",
                    f"{self.left:,} samples of the epoch are left, fewer than the {self.ranks:,} ranks.",
                    f"Use at most {self.left:,} ranks, or start the next epoch." if self.start else "",
                )
            )

    @property
    def left(self) -> int:
        return self.samples - self.start

    @property
    def steps(self) -> int:
        """Batches that each rank has."""
        return min(-(-self.left // (self.ranks * self.batch_size)), self.left // self.ranks)

    def position(self, step: int) -> int:
        """Samples of the epoch that are delivered once every rank has had this many of the steps."""
        if not 0 <= step <= self.steps:
            raise ValueError(f"step {step} of {self.steps}")
        if not self.steps:
            return self.start
        size, larger = divmod(self.left, self.steps)
        return self.start + step * size + min(step, larger)

    def batch(self, step: int, rank: int) -> tuple[int, int]:
        """Start and stop, in the epoch's permutation, of one rank's batch."""
        first, last = self.position(step), self.position(step + 1)
        size, larger = divmod(last - first, self.ranks)
        start = first + rank * size + min(rank, larger)
        return start, start + size + (rank < larger)

    def steps_of(self, worker: int, workers: int) -> range:
        """The steps that one of a rank's workers loads: a DataLoader takes a batch from each worker in turn."""
        return range(worker, self.steps, workers)
