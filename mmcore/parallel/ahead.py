"""Work done ahead of whoever needs it, in a thread, within a bound."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Ahead(Generic[Item]):
    """Iterates over what `items` gives, which is drawn in a thread of its own, at most `depth` items ahead.

    A context manager; leaving it ends the thread at its next item. `waited_s` counts how long the reader had to wait.
    An error of `items` is raised where the item would have come.
    """

    def __init__(self, items: Callable[[], Iterable[Item]], depth: int) -> None:
        self.waited_s = 0.0
        self._items = items
        self._queue: queue.Queue[tuple[str, Item | BaseException | None]] = queue.Queue(max(1, depth))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="mmcore-ahead", daemon=True)

    def __enter__(self) -> Ahead[Item]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def __iter__(self) -> Iterator[Item]:
        while True:
            began = time.monotonic()
            kind, item = self._queue.get()
            self.waited_s += time.monotonic() - began
            if kind == "end":
                return
            if isinstance(item, BaseException):
                raise item
            assert item is not None
            yield item

    def _fill(self) -> None:
        try:
            for item in self._items():
                if not self._put("item", item):
                    return
            self._put("end", None)
        except BaseException as error:
            self._put("item", error)

    def _put(self, kind: str, item: Item | BaseException | None) -> bool:
        """Whether the reader is still there."""
        while not self._ended.is_set():
            try:
                self._queue.put((kind, item), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
