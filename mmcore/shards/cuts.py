"""Cutting rows into shards where the keys themselves say so, as rsync and backup tools cut files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

SMALLEST = 0.5
LARGEST = 4
"""Bounds of a shard's rows, as shares of the mean."""


def cut(keys: Sequence[str], mean: int) -> Iterator[tuple[int, int]]:
    """Start and stop of each shard over `keys` in order.

    A shard ends after a key whose hash is small, so a row added, removed or edited moves only the cuts around it.
    It has at least half the mean (but a lone or last shard may have fewer where it cannot join the one before) and
    at most four times the mean; where no hash is small enough by then, it ends after the smallest.
    """
    smallest, largest = max(1, int(mean * SMALLEST)), max(1, mean * LARGEST)
    # After the smallest size, cuts come at random with this chance, so that the mean size is `mean`.
    threshold = int(2**64 / max(1, mean - smallest + 1))
    hashes = [int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) for key in keys]
    cuts: list[tuple[int, int]] = []
    start = 0
    while start < len(keys):
        stop = _end(hashes, start, smallest, largest, threshold)
        if stop - start < smallest and cuts and stop - cuts[-1][0] <= largest:
            start = cuts.pop()[0]
        cuts.append((start, stop))
        start = stop
    yield from cuts


def shuffled(keys: Sequence[str]) -> list[int]:
    """Places of the keys in an order that looks random, and in which a key's place depends on no other key's."""
    # Told apart from the hashes that cuts are made by, which would all be small at the beginning.
    hashes = [hashlib.blake2b(key.encode(), digest_size=8, person=b"order").digest() for key in keys]
    return sorted(range(len(keys)), key=lambda place: (hashes[place], keys[place]))


def _end(hashes: Sequence[int], start: int, smallest: int, largest: int, threshold: int) -> int:
    limit = min(start + largest, len(hashes))
    for index in range(start + smallest - 1, limit):
        if hashes[index] < threshold:
            return index + 1
    if limit < start + largest:
        return limit
    return min(range(start + smallest - 1, limit), key=hashes.__getitem__) + 1
