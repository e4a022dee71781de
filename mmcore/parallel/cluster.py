"""The Dask cluster itself: started, reached, kept quiet and ended."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mmcore.config.run import DaskConfig
from mmcore.errors import ConfigError, Problem, StageError

CONNECT_S = 15.0
"""A running scheduler must answer within this."""
GPU = "GPU"
"""The Dask resource of which a worker that has a GPU of its own says it has one."""
# Ctrl-C reaches the whole process group; what it means is the driver's to decide.
_PRELOAD = ["import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"]
START_ATTEMPTS = 3
"""How often local workers are started where one of them dies before it is up."""

_logger = logging.getLogger("mmcore.parallel")


def is_local(settings: DaskConfig) -> bool:
    """Whether the workers are processes that we start on this machine."""
    return settings.address is None and settings.cluster_class is None


@contextlib.contextmanager
def running(settings: DaskConfig, workers: int, gpus: Sequence[str] = ()) -> Iterator[tuple[Any, Any]]:
    """A client and its cluster (None where it only reached a scheduler), ended with the block.

    Local workers are one per GPU where `gpus` are given, as CUDA_VISIBLE_DEVICES names them.
    Raises ConfigError where the address does not answer or the class cannot be started.
    """
    import dask
    import distributed  # noqa: F401 - first: its import puts its own settings and loggers in place

    with contextlib.ExitStack() as opened:
        opened.enter_context(_quiet())
        if settings.address is not None:
            yield opened.enter_context(_connection(settings.address)), None
            return
        with dask.config.set(_SCHEDULING | (_LOCAL if is_local(settings) else {})), _main_hidden():
            cluster = opened.enter_context(_local(settings, workers, gpus) if is_local(settings) else _chosen(settings))
        yield opened.enter_context(_client(cluster)), cluster


_SCHEDULING = {
    # A job that kills its worker is tried once more; then it is its caller's to judge.
    "distributed.scheduler.allowed-failures": 1,
    # One job at a worker, the others wait at the scheduler: a death is blamed on the job that ran.
    "distributed.scheduler.worker-saturation": 1.0,
}
_LOCAL = {
    # A codec that holds the interpreter for minutes is not dead; a dead local process is noticed at once.
    "distributed.scheduler.worker-ttl": None,
    # Nobody looks at the workers' sampling profiler, which interrupts the job 100 times a second.
    "distributed.worker.profile.enabled": False,
    # Dask has workers give memory back to the system at every turn, which training takes again for each batch: half
    # of its time went into page faults. Keep up to half a GiB, and buffers of up to 32 MiB, instead.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 512 << 20,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 32 << 20,
}


def _local(settings: DaskConfig, workers: int, gpus: Sequence[str]) -> Any:
    """Processes on this machine. Raises StageError where they die while they start."""
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            return _one_per_gpu(settings, gpus) if gpus else _processes(settings, workers)
        except RuntimeError as error:  # Dask gives up on all of them, having ended those that were up
            _logger.warning("A Dask worker died while it started (%d of %d tries).", attempt, START_ATTEMPTS)
            cause = error
    raise StageError(
        f"the {len(gpus) or workers} Dask workers do not start: {cause} Where memory is short, give "
        "compute.dask.workers=1, or 0 to work without them. What was finished is kept."
    ) from cause


def _processes(settings: DaskConfig, workers: int) -> Any:
    import distributed

    cluster: Any = distributed.LocalCluster
    return cluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        memory_limit=settings.memory_limit,
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        silence_logs=logging.CRITICAL + 1,
        preload=_PRELOAD,
    )


def _one_per_gpu(settings: DaskConfig, gpus: Sequence[str]) -> Any:
    """One long-lived process per GPU, which sees no other."""
    import distributed

    def worker(gpu: str) -> dict[str, Any]:
        options = {
            "nthreads": 1,
            "memory_limit": settings.memory_limit,
            "dashboard": False,
            "resources": {GPU: 1},
            "env": {"CUDA_VISIBLE_DEVICES": gpu},
            "silence_logs": logging.CRITICAL + 1,
            "preload": _PRELOAD,
        }
        return {"cls": distributed.Nanny, "options": options}

    cluster: Any = distributed.SpecCluster
    scheduler = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    return cluster(
        workers={number: worker(gpu) for number, gpu in enumerate(gpus)},
        scheduler={"cls": distributed.Scheduler, "options": scheduler},
        silence_logs=logging.CRITICAL + 1,
    )


def _chosen(settings: DaskConfig) -> Any:
    assert settings.cluster_class is not None
    try:
        return _cluster_of(settings.cluster_class)(**settings.cluster_kwargs)
    except (TypeError, ValueError) as error:
        what = f"{settings.cluster_class} cannot be started with them ({error})."
        raise ConfigError(Problem("compute.dask.cluster_kwargs", what, "See its documentation.")) from error


def kill(nannies: Iterable[Any]) -> None:
    """End local workers at once, whatever they are doing."""
    for nanny in nannies:
        nanny.auto_restart = False
        if nanny.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(nanny.pid, signal.SIGKILL)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _client(*args: Any, **kwargs: Any) -> Any:
    import distributed

    untyped: Any = distributed.Client
    return untyped(*args, set_as_default=False, **kwargs)


def _connection(address: str) -> Any:
    try:
        return _client(address, timeout=CONNECT_S)
    except (OSError, ValueError) as error:
        what = f"no Dask scheduler answers at {address} ({error})."
        raise ConfigError(Problem("compute.dask.address", what, "Start one there or correct the address.")) from error


def _cluster_of(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        what = f"{path} cannot be imported ({error})."
        fix = "Give module.Class of an installed package, as dask_jobqueue.SLURMCluster."
        raise ConfigError(Problem("compute.dask.cluster_class", what, fix)) from error


_main_lock = threading.Lock()


@contextlib.contextmanager
def _main_hidden() -> Iterator[None]:
    """Let processes start without importing the running program first: no job needs it, and Prefect takes seconds."""
    main = sys.modules["__main__"]
    with _main_lock:
        spec, file = main.__spec__, main.__dict__.pop("__file__", None)
        main.__spec__ = None
        try:
            yield
        finally:
            main.__spec__ = spec
            if file is not None:
                main.__file__ = file


_quiet_users = 0
_quiet_lock = threading.Lock()
_loud: list[tuple[logging.Logger, list[logging.Handler], bool]] = []


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Dask's own loggers: a restarted worker or a closed connection is ours to tell, in a user's words."""
    global _quiet_users
    with _quiet_lock:
        _quiet_users += 1
        if _quiet_users == 1:
            _loud[:] = [(logger, logger.handlers, logger.propagate) for logger in _dask_loggers()]
            for logger, _, _ in _loud:
                logger.handlers, logger.propagate = [logging.NullHandler()], False
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0:
                for logger, handlers, propagate in _loud:
                    logger.handlers, logger.propagate = handlers, propagate


def _dask_loggers() -> list[logging.Logger]:
    """The logger `distributed` and those below it that write by themselves."""
    top = logging.getLogger("distributed")
    known = [
        logging.getLogger(name) for name in list(logging.root.manager.loggerDict) if name.startswith("distributed.")
    ]
    return [top, *(logger for logger in known if logger.handlers)]
