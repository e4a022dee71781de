"""Items drawn ahead in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from mmcore.parallel.ahead import Ahead


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "mmcore-ahead"]


def test_all_items_in_order() -> None:
    with Ahead(lambda: range(100), 3) as ahead:
        assert list(ahead) == list(range(100))
    assert _threads() == []


def test_an_error_comes_where_the_item_would() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("third")

    found = []
    with pytest.raises(KeyError, match="third"), Ahead(items, 8) as ahead:
        for item in ahead:
            found.append(item)  # noqa: PERF402
    assert found == [1, 2]
    assert _threads() == []


@pytest.mark.parametrize("depth", [1, 4])
def test_no_more_than_so_many_are_drawn_ahead(depth: int) -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            drawn.append(number)
            yield number

    with Ahead(items, depth) as ahead:
        for taken, item in enumerate(ahead):
            if taken in (0, 20):
                _settle(drawn, taken + 1 + depth + 1)
            # Beside those that wait, one is in the thread's hand.
            assert len(drawn) <= item + 1 + depth + 1
    assert len(drawn) == 50


def _settle(drawn: list[int], wanted: int) -> None:
    """Wait until the thread has drawn what it may."""
    until = time.monotonic() + 20
    while len(drawn) < wanted and time.monotonic() < until:
        time.sleep(0.002)
    assert len(drawn) == wanted


def test_leaving_early_ends_the_thread() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            closed.set()

    with Ahead(items, 2) as ahead:
        assert next(iter(ahead)) == 0
    assert _threads() == []
    assert closed.wait(20), "what the items hold open is given up"


def test_an_error_of_the_reader_ends_the_thread_too() -> None:
    with pytest.raises(ZeroDivisionError), Ahead(lambda: iter(int, 1), 2) as ahead:
        for _ in ahead:
            raise ZeroDivisionError
    assert _threads() == []
