"""Cutting rows into shards where the keys themselves say so, as rsync and backup tools cut files."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

SMALLEST = 0.5
LARGEST = 4
"""Bounds of a shard, as shares of the mean."""


def cut(keys: Sequence[str], mean: int, costs: Sequence[int] | None = None) -> list[tuple[int, int]]:
    """Start and stop of each shard over `keys` in order; `costs` (at least 1, as bytes) are one per row, or 1 each.

    A shard ends after a key whose hash, divided by its row's cost, is small, so a row added, removed or edited moves
    only the cuts around it. Its costs add up to at least half the mean (but a lone or last shard may have less where
    it cannot join the one before) and at most four times the mean; where no hash is small enough by then, it ends
    after the smallest. A row that by itself is half the mean or more always ends its shard, which may so exceed the
    largest size by that one row.
    """
    smallest, largest = max(1, int(mean * SMALLEST)), max(1, mean * LARGEST)
    # After the smallest size, cuts come at random with this chance per cost, so that the mean size is `mean`.
    threshold = int(2**64 / max(1, mean - smallest + 1))
    hashes = [int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) for key in keys]
    before: Sequence[int] = range(len(keys) + 1)
    if costs is not None:
        hashes = [number // cost for number, cost in zip(hashes, costs, strict=True)]
        before = list(accumulate(costs, initial=0))
    cuts: list[tuple[int, int]] = []
    start = 0
    while start < len(keys):
        stop = _end(hashes, before, start, (smallest, largest), threshold)
        if cuts and before[stop] - before[start] < smallest and before[stop] - before[cuts[-1][0]] <= largest:
            start = cuts.pop()[0]
        cuts.append((start, stop))
        start = stop
    return cuts


def shuffled(keys: Sequence[str]) -> list[int]:
    """Places of the keys in an order that looks random, and in which a key's place depends on no other key's."""
    # Told apart from the hashes that cuts are made by, which would all be small at the beginning.
    hashes = [hashlib.blake2b(key.encode(), digest_size=8, person=b"order").digest() for key in keys]
    return sorted(range(len(keys)), key=lambda place: (hashes[place], keys[place]))


def _end(hashes: Sequence[int], before: Sequence[int], start: int, bounds: tuple[int, int], threshold: int) -> int:
    """Where the shard from `start` on stops; `before` are the costs of all rows before each."""
    first = bisect_left(before, before[start] + bounds[0])
    last = max(first, bisect_right(before, before[start] + bounds[1]) - 1)
    for stop in range(first, min(last, len(hashes)) + 1):
        if hashes[stop - 1] < threshold:
            return stop
    if before[-1] - before[start] < bounds[1]:
        return len(hashes)
    return min(range(first, last + 1), key=lambda stop: hashes[stop - 1])
