"""Many jobs at a time: on Dask, in this process, or in a child that may die. Only this room imports dask."""

from mmcore.parallel.isolated import run_isolated
from mmcore.parallel.jobs import Died, in_single_threaded_process_worker, tell
from mmcore.parallel.opening import open_gpu_pool, open_pool, serial_pool
from mmcore.parallel.pool import Pool

__all__ = [
    "Died",
    "Pool",
    "in_single_threaded_process_worker",
    "open_gpu_pool",
    "open_pool",
    "run_isolated",
    "serial_pool",
    "tell",
]
