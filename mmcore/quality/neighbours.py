"""Pairs of similar signatures among many, without comparing all with all.

Signatures are cut into keys such that similar ones very likely share a key (locality-sensitive hashing; Indyk and
Motwani, "Approximate nearest neighbors", 1998). Rows are sorted by each key in turn, and rows with equal keys are
compared with those a few places further on. So the cost grows with n log n and with the number of true candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

Signatures = NDArray[np.uint8]
"""(n, bytes): the signatures should differ from each other; equal ones belong together without any search."""
Pairs = NDArray[np.int64]
"""(pairs, 2): row numbers. A pair may be there more than once; of more than `MOST_PAIRS`, only so many that the same
rows stay joined."""
Verify = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]

REACH = 256
"""In a run of equal keys each row is compared with so many after it and with the run's first row: in runs of up to
that length with all, in longer ones (a million nearly equal pictures) with enough that clusters stay connected."""
PAIRS_AT_ONCE = 1 << 16
MOST_PAIRS = 1 << 22
KEY_BITS = 20
"""A key has at least so many bits: of a million random signatures, about one shares it by chance."""
MOST_TABLES = 150
"""More sorts than these are not worth an exact search: random bits then find all but a few pairs."""
MISSED = 0.005
"""Share of the pairs just at the threshold that a search by random bits may miss."""
BAND_BYTES = 8
"""Places of a MinHash signature in one band: 32 bands of 8, see `mmcore.modalities.minhash`."""


def hamming_pairs(signatures: Signatures, most_bits: int, confirm: Verify | None = None) -> Pairs:
    """All pairs of signatures that differ in at most `most_bits` bits, rarely missing one where they are long.

    With `confirm`, those of them that it finds alike too.

    Cut into b > most_bits blocks, two such signatures have b - most_bits equal blocks (the pigeonhole principle), so
    that a key of so many blocks, for every choice of them, finds each pair. Where that takes too many keys, keys are
    random bits, so many that a pair at the threshold is missed with probability `MISSED`.
    """
    n, width = signatures.shape
    if n < 2:
        return np.empty((0, 2), np.int64)
    words = _words(signatures)

    def verify(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
        differing = np.bitwise_count(words[left] ^ words[right]).sum(axis=1, dtype=np.int64)
        passed = np.asarray(differing <= most_bits)
        if confirm is not None and passed.any():
            passed[passed] = confirm(left[passed], right[passed])
        return passed

    return _verified(_bit_keys(signatures, width * 8, most_bits), verify)


def jaccard_pairs(signatures: Signatures, least: float) -> Pairs:
    """All pairs of MinHash signatures whose estimated Jaccard index is at least `least`, but for a few.

    Pairs at .75 are met with probability .97, at .85 with .9999; each that is met is verified by all its places.
    """
    n, places = signatures.shape
    if n < 2:
        return np.empty((0, 2), np.int64)
    # The estimate as a number of equal places: see `minhash.similarity`.
    needed = math.ceil((least * (1 - 1 / 256) + 1 / 256) * places - 1e-9)

    def verify(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray((signatures[left] == signatures[right]).sum(axis=1) >= needed)

    def bands() -> Iterator[NDArray[np.uint64]]:
        for first in range(0, places - BAND_BYTES + 1, BAND_BYTES):
            yield np.ascontiguousarray(signatures[:, first : first + BAND_BYTES]).view("<u8").ravel()

    return _verified(bands(), verify)


def joined(n: int, pairs: Pairs) -> NDArray[np.int64]:
    """The component (n,) of each of n rows where the pairs are edges, numbered in the order of their first rows.

    Whatever hangs together is one cluster, even where its ends alone would not pass for similar (single linkage).
    """
    # Imported here: planning a run loads this module, and does without scipy.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(pairs), np.bool_)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return np.asarray(rank[inverse])


def _words(signatures: Signatures) -> NDArray[np.uint64]:
    """The signatures as (n, words) of 64 bits, filled up with zeros."""
    n, width = signatures.shape
    padded = np.zeros((n, -(-width // 8) * 8), np.uint8)
    padded[:, :width] = signatures
    return padded.view("<u8")


def _bit_keys(signatures: Signatures, bits: int, most_bits: int) -> Iterator[NDArray[np.uint64]]:
    blocks, chosen = _blocks(bits, most_bits)
    tables = math.comb(blocks, chosen)
    if tables <= MOST_TABLES:
        edges = np.linspace(0, bits, blocks + 1).astype(int)
        ranges = [np.arange(start, stop) for start, stop in pairwise(edges.tolist())]
        for some in combinations(ranges, chosen):
            yield _key(signatures, np.concatenate(some))
        return
    # The chance that none of the differing bits is among those drawn.
    agree = math.comb(bits - most_bits, KEY_BITS) / math.comb(bits, KEY_BITS)
    random = np.random.default_rng(0)
    for _ in range(math.ceil(math.log(MISSED) / math.log1p(-agree))):
        yield _key(signatures, np.sort(random.choice(bits, KEY_BITS, replace=False)))


def _blocks(bits: int, most_bits: int) -> tuple[int, int]:
    """Into how many blocks signatures are cut, and how many of them make a key of at least `KEY_BITS` bits."""
    for chosen in range(1, bits - most_bits + 1):
        blocks = most_bits + chosen
        if blocks <= bits and chosen * (bits // blocks) >= KEY_BITS:
            return blocks, chosen
    return bits, bits - most_bits


def _key(signatures: Signatures, bits: NDArray[np.int64]) -> NDArray[np.uint64]:
    """These bits of every signature, in one number; the last 64 where there are more."""
    key = np.zeros(len(signatures), np.uint64)
    for bit in bits:
        key <<= np.uint64(1)
        key |= (signatures[:, bit // 8] >> np.uint8(7 - bit % 8) & np.uint8(1)).astype(np.uint64)
    return key


def _verified(keys: Iterator[NDArray[np.uint64]], verify: Verify) -> Pairs:
    """The pairs that share a key and pass."""
    found: list[Pairs] = []
    component: NDArray[np.int64] | None = None
    for key in keys:
        order = np.argsort(key)
        for near, far in _candidates(key[order]):
            for start in range(0, len(near), PAIRS_AT_ONCE):
                cut = slice(start, start + PAIRS_AT_ONCE)
                left, right = order[near[cut]], order[far[cut]]
                if component is not None:
                    # Of so many pairs only what they join counts.
                    apart = component[left] != component[right]
                    left, right = left[apart], right[apart]
                passed = verify(left, right)
                if passed.any():
                    found.append(np.stack([left[passed], right[passed]], axis=1))
            if sum(map(len, found)) > MOST_PAIRS:
                found = [_spanning(len(key), np.concatenate(found))]
                component = joined(len(key), found[0])
    return np.concatenate(found) if found else np.empty((0, 2), np.int64)


def _spanning(n: int, pairs: Pairs) -> Pairs:
    """As few pairs as join the same of n rows: each with the first of its component."""
    component = joined(n, pairs)
    _, firsts = np.unique(component, return_index=True)
    rows = np.flatnonzero(firsts[component] != np.arange(n))
    return np.stack([firsts[component[rows]], rows], axis=1)


def _candidates(ordered: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Places of equal keys in a sorted array: each with those up to `REACH` after it and with the first of its run."""
    near = np.flatnonzero(ordered[1:] == ordered[:-1])
    for step in range(1, REACH + 1):
        if step > 1:
            near = near[near + step < len(ordered)]
            near = near[ordered[near] == ordered[near + step]]
        if not len(near):
            return
        yield near, near + step
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    lengths = np.diff(np.append(starts, len(ordered)))
    firsts = np.repeat(starts, lengths)
    far = np.arange(len(ordered))
    beyond = far - firsts > REACH
    yield firsts[beyond], far[beyond]
