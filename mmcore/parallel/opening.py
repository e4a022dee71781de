"""Which pool the settings ask for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

from mmcore.config import ComputeConfig
from mmcore.parallel.cluster import is_local
from mmcore.parallel.on_dask import DaskPool
from mmcore.parallel.pool import Pool, SerialPool

_open_pools: list[tuple[ComputeConfig, tuple[str, ...], Pool, list[None]]] = []
_open_pools_lock = threading.Lock()


@contextlib.contextmanager
def open_gpu_pool(compute: ComputeConfig, pool: Pool, gpus: Sequence[str]) -> Iterator[Pool]:
    """Where jobs on a GPU run: `pool` where its workers are a cluster's, else one process per GPU.

    With one GPU that process is this one: others would each take of its memory.
    """
    if not is_local(compute.dask):
        yield pool
    elif len(gpus) < 2:
        yield serial_pool(compute)
    else:
        with open_pool(compute, gpus) as found:
            yield found


def serial_pool(compute: ComputeConfig) -> Pool:
    """A pool that works in the calling thread, for jobs that need this process: those on its GPU."""
    return SerialPool(compute.retries)


@contextlib.contextmanager
def open_pool(compute: ComputeConfig, gpus: Sequence[str] = ()) -> Iterator[Pool]:
    """The pool of these settings, with one local worker per GPU where some are given; it starts with its first job.

    Inside an open one with equal settings it is that one, and the outermost block closes it.
    """
    wanted = compute.dask, compute.retries, tuple(gpus)
    with _open_pools_lock:
        for settings, theirs, pool, users in _open_pools:
            if (settings.dask, settings.retries, theirs) == wanted:
                entry = settings, theirs, pool, users
                break
        else:
            serial = compute.dask.workers == 0 and not gpus
            entry = compute, tuple(gpus), serial_pool(compute) if serial else DaskPool(compute, gpus), []
            _open_pools.append(entry)
        _, _, pool, users = entry
        users.append(None)
    try:
        yield pool
    finally:
        with _open_pools_lock:
            users.pop()
            last = not users
            if last:
                _open_pools[:] = [other for other in _open_pools if other[2] is not pool]
        if last:
            pool.close()
