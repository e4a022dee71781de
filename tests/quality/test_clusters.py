"""Finding similar signatures: the same pairs as comparing all with all, however the data lie."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcore.config.quality import DuplicatesConfig
from mmcore.modalities import minhash
from mmcore.quality import neighbours
from mmcore.quality.clusters import find_clusters
from mmcore.quality.neighbours import hamming_pairs, jaccard_pairs, joined


def _noisy(random: np.random.Generator, count: int, width: int, flips: int) -> np.ndarray:
    """Random signatures, the second half copies of the first with some bits flipped."""
    bits = random.integers(0, 2, (count, width * 8), dtype=np.uint8)
    for row in range(count // 2, count):
        bits[row] = bits[row - count // 2]
        bits[row, random.choice(width * 8, random.integers(1, flips + 1), replace=False)] ^= 1
    return np.packbits(bits, axis=1)


def _brute_hamming(signatures: np.ndarray, most: int) -> set[tuple[int, int]]:
    bits = np.unpackbits(signatures, axis=1).astype(np.int16)
    ones = bits.sum(axis=1)
    differing = ones[:, None] + ones[None, :] - 2 * (bits.astype(np.float32) @ bits.T.astype(np.float32))
    return {(a, b) for a, b in zip(*np.nonzero(differing <= most), strict=True) if a < b}


def _as_set(pairs: np.ndarray) -> set[tuple[int, int]]:
    return {(min(a, b), max(a, b)) for a, b in pairs.tolist()}


@pytest.mark.parametrize("most", [0, 1, 3, 4, 6, 8, 10])
def test_every_pair_within_the_distance_is_found(most: int) -> None:
    signatures = np.unique(_noisy(np.random.default_rng(most), 2_000, 8, 12), axis=0)
    found = _as_set(hamming_pairs(signatures, most))
    expected = _brute_hamming(signatures, most)
    if most <= 6:
        assert found == expected
    else:
        assert found <= expected
        assert len(found) >= 0.99 * len(expected)


def test_long_signatures_are_found_but_for_a_few() -> None:
    signatures = np.unique(_noisy(np.random.default_rng(5), 2_000, 32, 50), axis=0)
    found, expected = _as_set(hamming_pairs(signatures, 38)), _brute_hamming(signatures, 38)
    assert found <= expected
    assert len(found) >= 0.98 * len(expected) > 500


def test_texts_are_found_by_their_overlap() -> None:
    random = np.random.default_rng(1)
    signatures = random.integers(0, 256, (1_000, 256), dtype=np.uint8)
    for row in range(500, 1_000):
        signatures[row] = signatures[row - 500]
        changed = random.choice(256, random.integers(10, 80), replace=False)
        signatures[row, changed] += 1
    found = _as_set(jaccard_pairs(signatures, 0.85))
    expected = {
        (a, b)
        for a, b in combinations(range(1_000), 2)
        if b - a == 500 and minhash.similarity(signatures[a].tobytes(), signatures[b].tobytes()) >= 0.85
    }
    assert found == expected


def test_a_huge_bucket_stays_cheap_and_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "REACH", 16)
    # All share their first 40 bits, and each differs from the next ones in a few of the last 24.
    numbers = np.arange(3_000, dtype=">u8")
    signatures = numbers.view(np.uint8).reshape(-1, 8)
    pairs = hamming_pairs(signatures, 4)
    assert len(pairs) < 3_000 * 17 * 84
    assert np.bincount(joined(3_000, pairs)).max() > 2_900


def test_many_pairs_are_kept_as_few_that_join_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    signatures = np.unique(_noisy(np.random.default_rng(3), 2_000, 8, 4), axis=0)
    every = joined(len(signatures), hamming_pairs(signatures, 4))
    monkeypatch.setattr(neighbours, "MOST_PAIRS", 100)
    few = hamming_pairs(signatures, 4)
    assert len(few) < 3_000
    assert joined(len(signatures), few).tolist() == every.tolist()


def test_random_signatures_are_not_alike() -> None:
    random = np.random.default_rng(2).integers(0, 256, (5_000, 8), dtype=np.uint8)
    assert len(hamming_pairs(random, 4)) == 0


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_clusters_are_what_hangs_together(case: tuple[int, list[tuple[int, int]]]) -> None:
    n, pairs = case
    groups = [{row} for row in range(n)]
    for a, b in pairs:
        one, other = (next(group for group in groups if row in group) for row in (a, b))
        if one is not other:
            groups.remove(other)
            one |= other
    found = joined(n, np.array(pairs, np.int64).reshape(-1, 2))
    by_number: dict[int, set[int]] = {}
    for row, number in enumerate(found.tolist()):
        by_number.setdefault(number, set()).add(row)
    assert sorted(map(sorted, by_number.values())) == sorted(map(sorted, groups))
    assert list(by_number) == sorted(by_number)


def test_exact_and_near_duplicates_share_clusters() -> None:
    hashes = pa.array(["a", "b", "a", None, "c", "d"])
    look = bytes([100] * 64) + b"\xff"
    near = bytes(8) + look, bytes(7) + b"\x01" + look, bytes(7) + b"\xff" + look
    signatures = pa.array([None, near[0], None, None, near[1], near[2]], pa.binary())
    found = find_clusters("image", [hashes], signatures, DuplicatesConfig())
    assert found.cluster.tolist() == [0, 1, 0, -1, 1, -1]
    assert found.exact.tolist() == [True, False, True, False, False, False]
    only_exact = find_clusters("image", [hashes], signatures, DuplicatesConfig(near=False))
    assert only_exact.cluster.tolist() == [0, -1, 0, -1, -1, -1]
    nothing = find_clusters("image", [hashes], signatures, DuplicatesConfig(near=False, exact=False))
    assert nothing.cluster.tolist() == [-1] * 6


def test_nothing_to_compare() -> None:
    empty = pa.array([], pa.string())
    assert find_clusters("text", [empty], pa.array([], pa.binary()), DuplicatesConfig()).cluster.tolist() == []
    blank = pa.nulls(3, pa.string())
    assert find_clusters("text", [blank], pa.nulls(3, pa.binary()), DuplicatesConfig()).cluster.tolist() == [-1] * 3
