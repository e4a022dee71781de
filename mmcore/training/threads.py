"""Torch's threads for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch

_TORCH = RLock()
"""Torch's threads, seed and modes belong to the whole process: one network works at a time."""


@contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    """Torch with so many threads: other numbers of threads give other last bits."""
    with _TORCH:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)
