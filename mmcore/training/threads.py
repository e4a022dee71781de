"""Torch's threads, random state and modes for the length of a block."""

from __future__ import annotations

import os
import warnings
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


@contextmanager
def torch_for_training(threads: int, device: str) -> Iterator[None]:
    """Threads, determinism and random state of torch for one training; put back as they were after it."""
    if device == "cuda":
        # cuBLAS is deterministic only with a workspace of fixed size, fixed before its first use.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    devices = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(devices), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")
        # That all parameters were used is as good as that some were not.
        warnings.filterwarnings("ignore", message=".*find_unused_parameters=True was specified")
        torch.set_num_threads(threads)
        # On a GPU some operations have no deterministic form; there, as near as torch comes.
        torch.set_deterministic_debug_mode("error" if device == "cpu" else "warn")
        try:
            yield
        finally:
            torch.set_num_threads(before)
            torch.set_deterministic_debug_mode(mode)
