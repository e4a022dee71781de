from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcore.errors import DataError
from mmcore.shards.order import Cut, permutation

SIZES = [7, 0, 13, 1, 30, 9]


@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 400), st.data())
def test_batches_tile_what_is_left(ranks: int, batch_size: int, left: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, 50))
    if left < ranks and (left or not start):
        with pytest.raises(DataError, match="fewer than the"):
            Cut(start, start + left, ranks, batch_size)
        return
    cut = Cut(start, start + left, ranks, batch_size)
    batches = [cut.batch(step, rank) for step in range(cut.steps) for rank in range(ranks)]
    edges = [start] + [stop for _, stop in batches]
    assert [first for first, _ in batches] == edges[:-1]
    assert edges[-1] == start + left
    sizes = {stop - first for first, stop in batches}
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert all(size >= 1 for size in sizes)
    # Batches are as few and as full as they can be.
    if batch_size > 1:
        assert all(size <= batch_size for size in sizes)
        assert (cut.steps - 1) * ranks * batch_size < left or not left
    else:
        assert all(size <= 2 for size in sizes)


@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 400))
def test_the_cut_depends_on_nothing_but_the_position(ranks: int, batch_size: int, samples: int) -> None:
    if samples < ranks:
        return
    whole = Cut(0, samples, ranks, batch_size)
    for step in {0, min(1, whole.steps), whole.steps // 3, whole.steps // 2, whole.steps}:
        rest = Cut(whole.position(step), samples, ranks, batch_size)
        assert rest.steps == whole.steps - step
        for rank in range(ranks):
            assert [rest.batch(s, rank) for s in range(rest.steps)] == [
                whole.batch(s, rank) for s in range(step, whole.steps)
            ]


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 7), st.integers(0, 5)), max_size=6), st.integers(8, 300))
def test_any_chain_of_topologies_delivers_every_sample_once(legs: list[tuple[int, int, int]], samples: int) -> None:
    position, seen = 0, []
    for ranks, batch_size, stop_after in [*legs, (1, 5, samples)]:
        if 0 < samples - position < ranks:
            continue
        cut = Cut(position, samples, ranks, batch_size)
        steps = min(stop_after, cut.steps)
        seen += [n for step in range(steps) for rank in range(ranks) for n in range(*cut.batch(step, rank))]
        position = cut.position(steps)
    assert seen == list(range(samples))


@given(st.integers(1, 60), st.integers(1, 5))
def test_workers_take_turns(samples: int, workers: int) -> None:
    cut = Cut(0, samples, 1, 4)
    lists = [list(cut.steps_of(worker, workers)) for worker in range(workers)]
    in_turn = [steps[n] for n in range(cut.steps) for steps in lists if n < len(steps)]
    assert in_turn == list(range(cut.steps))


def test_impossible_cuts() -> None:
    for arguments in ((-1, 5, 1, 1), (6, 5, 1, 1), (0, 5, 0, 1), (0, 5, 1, 0)):
        with pytest.raises(ValueError, match="no such cut"):
            Cut(*arguments)
    with pytest.raises(ValueError, match="step 6 of 5"):
        Cut(0, 5, 1, 1).position(6)


@pytest.mark.parametrize("shuffle", ["samples", "shards", "none"])
def test_orders_are_permutations(shuffle: str) -> None:
    rows = permutation(SIZES, shuffle, 3, 5, shards_at_once=2)
    assert sorted(rows) == list(range(60))
    assert np.array_equal(rows, permutation(SIZES, shuffle, 3, 5, shards_at_once=2))
    others = [permutation(SIZES, shuffle, seed, epoch, shards_at_once=2) for seed, epoch in ((3, 6), (4, 5), (5, 3))]
    assert all(np.array_equal(rows, other) == (shuffle == "none") for other in others)
    assert list(permutation([], shuffle, 0, 0)) == []


def test_orders_never_change() -> None:
    # Positions in states that were saved long ago refer to these.
    assert permutation([8], "samples", 0, 0).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]
    assert permutation([3, 3, 2], "shards", 0, 1, shards_at_once=1).tolist() == [7, 6, 4, 5, 3, 2, 0, 1]


def test_every_order_is_equally_likely() -> None:
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(2400):
        order = tuple(permutation([4], "samples", 1, epoch))
        counts[order] = counts.get(order, 0) + 1
    expected = 2400 / 24
    chi_squared = sum((n - expected) ** 2 / expected for n in counts.values())
    assert len(counts) == 24
    assert chi_squared < 49.7  # 23 degrees of freedom, p = .001


def test_shuffled_shards_are_read_a_few_at_a_time() -> None:
    sizes = [50] * 20
    shard_of = np.repeat(np.arange(20), 50)
    shards = shard_of[permutation(sizes, "shards", 0, 0, shards_at_once=4)]
    for block in range(5):
        found = shards[block * 200 : (block + 1) * 200]
        assert len(set(found)) == 4
        assert len(set(found[:20])) > 1
