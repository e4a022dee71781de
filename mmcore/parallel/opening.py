"""Which pool the settings ask for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from mmcore.config import ComputeConfig
from mmcore.parallel.on_dask import DaskPool
from mmcore.parallel.pool import Pool, SerialPool

_open_pools: list[tuple[ComputeConfig, Pool, list[None]]] = []
_open_pools_lock = threading.Lock()


def serial_pool(compute: ComputeConfig) -> Pool:
    """A pool that works in the calling thread, for jobs that need this process: those on its GPU."""
    return SerialPool(compute.retries)


@contextlib.contextmanager
def open_pool(compute: ComputeConfig) -> Iterator[Pool]:
    """The pool of these settings; nothing starts before its first job.

    Inside an open one with equal settings it is that one, and the outermost block closes it.
    """
    with _open_pools_lock:
        for settings, pool, users in _open_pools:
            if (settings.dask, settings.retries) == (compute.dask, compute.retries):
                entry = settings, pool, users
                break
        else:
            entry = compute, serial_pool(compute) if compute.dask.workers == 0 else DaskPool(compute), []
            _open_pools.append(entry)
        _, pool, users = entry
        users.append(None)
    try:
        yield pool
    finally:
        with _open_pools_lock:
            users.pop()
            last = not users
            if last:
                _open_pools[:] = [other for other in _open_pools if other[1] is not pool]
        if last:
            pool.close()
