"""Which rows go through an encoder together."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmcore.features.batches import PADDING, cut_batches, padding_of

ROWS = st.lists(st.tuples(st.integers(0, 300), st.integers(-1, 3)), max_size=80)
BATCH = st.one_of(st.none(), st.integers(1, 20))


@given(ROWS, BATCH)
def test_in_order_without_lengths(rows: list[tuple[int, int]], batch: int | None) -> None:
    parts = [part for _, part in rows]
    cut = cut_batches(None, parts, batch)
    _check(cut, parts, batch)
    for part in set(parts):
        of_part = [found for number, found in cut if number == part]
        assert np.concatenate(of_part).tolist() == [row for row, one in enumerate(parts) if one == part]
        assert all(len(found) == batch for found in of_part[:-1]), "only the last is smaller"


@given(ROWS, BATCH, st.sampled_from([0.0, PADDING, 0.5]))
def test_by_length(rows: list[tuple[int, int]], batch: int | None, most_padding: float) -> None:
    lengths, parts = [length for length, _ in rows], [part for _, part in rows]
    cut = cut_batches(lengths, parts, batch, most_padding=most_padding)
    _check(cut, parts, batch)
    for _, found in cut:
        sizes = [lengths[row] for row in found]
        assert sizes == sorted(sizes, reverse=True), "the longest go first"
        positions, padding = padding_of(sizes)
        assert padding <= most_padding * positions
        assert (positions, padding) == (max(sizes) * len(sizes), sum(max(sizes) - size for size in sizes))
    again = cut_batches(lengths, parts, batch, most_padding=most_padding)
    assert [(part, found.tolist()) for part, found in again] == [(part, found.tolist()) for part, found in cut]


@given(ROWS, st.integers(1, 20))
def test_no_batch_could_take_the_next_row_too(rows: list[tuple[int, int]], batch: int) -> None:
    lengths = [length for length, _ in rows]
    cut = [found for _, found in cut_batches(lengths, [0] * len(rows), batch)]
    for found, following in itertools.pairwise(cut):
        sizes = [lengths[row] for row in (*found, following[0])]
        positions, padding = padding_of(sizes)
        assert len(sizes) > batch or padding > PADDING * positions


def _check(cut: list[tuple[int, np.ndarray]], parts: list[int], batch: int | None) -> None:
    """Every row once, of one part each, and no more of them than may be."""
    assert sorted(row for _, found in cut for row in found.tolist()) == list(range(len(parts)))
    for part, found in cut:
        assert 1 <= len(found) <= (batch or len(parts))
        assert {parts[row] for row in found} == {part}


def test_nothing_gives_no_batches() -> None:
    assert cut_batches(None, [], 4) == cut_batches([], [], None) == []
    assert padding_of([]) == (0, 0)
