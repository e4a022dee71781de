from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcore.shards.cuts import cut, shuffled


def _shards(keys: list[str], mean: int) -> set[tuple[str, ...]]:
    return {tuple(keys[start:stop]) for start, stop in cut(keys, mean)}


def _keys(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [f"{rng.getrandbits(64):016x}" for _ in range(count)]


@pytest.mark.parametrize("mean", [1, 2, 8, 64, 256])
def test_shards_cover_all_keys_within_bounds_and_have_the_mean(mean: int) -> None:
    keys = _keys(400 * mean if mean > 8 else 20_000)
    cuts = list(cut(keys, mean))
    assert [key for start, stop in cuts for key in keys[start:stop]] == keys
    sizes = [stop - start for start, stop in cuts]
    assert all(max(1, mean // 2) <= size <= 4 * mean for size in sizes)
    assert sum(sizes) / len(sizes) == pytest.approx(mean, rel=0.1)


def test_few_keys() -> None:
    assert list(cut([], 8)) == []
    assert list(cut(["a"], 8)) == [(0, 1)]
    assert list(cut(["a", "b", "c"], 1)) == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("change", ["insert", "delete", "append"])
def test_one_row_more_or_less_changes_at_most_two_shards(change: str) -> None:
    keys = _keys(5_000)
    before = _shards(keys, 64)
    rng = random.Random(1)
    new = []
    for trial in range(200):
        edited = list(keys)
        at = rng.randrange(len(keys))
        if change == "delete":
            del edited[at]
        else:
            edited.insert(len(keys) if change == "append" else at, f"new-{trial}")
        new.append(len(_shards(edited, 64) - before))
    assert sum(count <= 2 for count in new) >= 190
    assert sum(new) / len(new) < 1.5


def test_where_no_hash_is_small_the_smallest_is_cut_at(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = {"c": b"\x90", "f": b"\x80"}

    class Hash:
        def __init__(self, data: bytes, digest_size: int) -> None:
            self.data = hashes.get(data.decode(), b"\xff") + bytes(digest_size - 1)

        def digest(self) -> bytes:
            return self.data

    monkeypatch.setattr("hashlib.blake2b", Hash)
    assert list(cut(list("abcdefghij"), 2)) == [(0, 6), (6, 10)]


def test_a_hashed_order_mixes_and_is_each_keys_own() -> None:
    keys = [f"k{number:05d}" for number in range(2000)]
    order = shuffled(keys)
    assert sorted(order) == list(range(2000))
    ranks = np.argsort(order)
    assert abs(np.corrcoef(ranks, np.arange(2000))[0, 1]) < 0.1
    fewer = [key for key in keys if key != "k00700"]
    assert [fewer[place] for place in shuffled(fewer)] == [keys[place] for place in order if keys[place] != "k00700"]
    sizes = [stop - start for start, stop in cut([keys[place] for place in order], 50)]
    assert 35 < np.mean(sizes) < 80


def _sizes(keys: list[str], seed: int = 3) -> list[int]:
    """Long-tailed sizes, as of photos beside thumbnails: 1 kB to some MB."""
    return (np.random.default_rng(seed).lognormal(10, 1.5, len(keys)).astype(int) + 1_000).tolist()


def _by_bytes(keys: list[str], sizes: list[int], mean: int) -> set[tuple[tuple[str, int], ...]]:
    rows = list(zip(keys, sizes, strict=True))
    return {tuple(rows[start:stop]) for start, stop in cut(keys, mean, sizes)}


@pytest.mark.parametrize("mean", [100_000, 1_000_000, 20_000_000])
def test_shards_by_bytes_keep_their_bounds_but_for_one_row(mean: int) -> None:
    keys = _keys(20_000)
    sizes = _sizes(keys)
    cuts = list(cut(keys, mean, sizes))
    assert [place for start, stop in cuts for place in range(start, stop)] == list(range(len(keys)))
    totals = [sum(sizes[start:stop]) for start, stop in cuts]
    assert all(total >= mean // 2 for total in totals[:-1])
    assert all(sum(sizes[start : stop - 1]) <= 4 * mean for start, stop in cuts)
    assert all(total <= 4 * mean or sizes[stop - 1] > 3 * mean for total, (_, stop) in zip(totals, cuts, strict=True))
    if mean > 500_000:
        assert np.mean(totals) == pytest.approx(mean, rel=0.15)


def test_equal_costs_are_counted_rows() -> None:
    keys = _keys(5_000)
    assert list(cut(keys, 64, [1] * len(keys))) == list(cut(keys, 64))
    many = list(cut(keys, 64_000, [1_000] * len(keys)))
    assert np.mean([stop - start for start, stop in many]) == pytest.approx(64, rel=0.1)


@pytest.mark.parametrize("change", ["insert", "delete", "edit"])
def test_by_bytes_too_a_change_stays_where_it_is(change: str) -> None:
    keys = _keys(5_000)
    sizes = _sizes(keys)
    before = _by_bytes(keys, sizes, 3_000_000)
    rng = random.Random(2)
    new = []
    for trial in range(300):
        names, large = list(keys), list(sizes)
        at = rng.randrange(len(keys))
        if change == "insert":
            names.insert(at, f"new-{trial}")
            large.insert(at, rng.choice(sizes))
        elif change == "delete":
            del names[at], large[at]
        else:
            large[at] = rng.choice(sizes)
        after = _by_bytes(names, large, 3_000_000)
        assert after == _by_bytes(names, large, 3_000_000)
        new.append(len(after - before))
    assert sum(count <= 2 for count in new) >= 285
    assert max(new) <= 4


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 40))
def test_any_sizes_are_cut_once_and_in_order(sizes: list[int], mean: int) -> None:
    keys = [f"k{place}" for place in range(len(sizes))]
    cuts = list(cut(keys, mean, sizes))
    assert [place for start, stop in cuts for place in range(start, stop)] == list(range(len(sizes)))
    for start, stop in cuts[:-1]:
        assert sum(sizes[start:stop]) >= max(1, mean // 2)
        assert sum(sizes[start : stop - 1]) <= 4 * mean
