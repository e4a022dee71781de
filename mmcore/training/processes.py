"""Several processes of this machine that train one network: starting, connecting and ending them."""

from __future__ import annotations

import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import torch.distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from mmcore.errors import StageError
from mmcore.parallel import Died, run_isolated
from mmcore.training.device import gpus_of

WITHIN = timedelta(days=1)
"""Longer than any epoch: a process that waits so long for another waits for ever. One that died is noticed at once."""
FAREWELL_S = 5.0
"""How long to wait for what a process has to say that others lost."""


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is."""

    rank: int
    processes: int


ALONE = Place(0, 1)


class Shared(Protocol):
    """What is trained by several processes. Pickled, it is what each of the others starts from."""

    def join(self, place: Place) -> None:
        """Go through the training as one of them, up to its end."""


@dataclass(frozen=True)
class _Help:
    """All that another process needs."""

    shared: bytes
    place: Place
    port: int
    device: str
    gpu: str | None


@contextmanager
def joined(shared: Shared, processes: int, device: str) -> Iterator[Place]:
    """Have `processes - 1` more join the training that this process, the first, goes through in the block.

    They are connected by gloo, or nccl between GPUs, of which each process gets one. On leaving they are ended.
    Raises StageError where one of them fails or dies.
    """
    if processes == 1:
        yield ALONE
        return
    import cloudpickle

    if torch.distributed.is_initialized():
        raise StageError("compute.processes: this process is already one of several that torch.distributed connected.")
    data, gpus, stop = bytes(cloudpickle.dumps(shared)), gpus_of(device), threading.Event()
    store = TCPStore("127.0.0.1", 0, processes, is_master=True, wait_for_workers=False)
    with ThreadPoolExecutor(processes) as threads:
        others = []
        for rank in range(1, processes):
            help_ = _Help(data, Place(rank, processes), store.port, device, gpus[rank] if gpus else None)
            name = f"process {rank + 1} of {processes}"
            others.append(
                threads.submit(run_isolated, _help, help_, timeout_s=WITHIN.total_seconds() * 365, name=name, stop=stop)
            )
        try:
            _await(store, others)
            with _connected(store, Place(0, processes), device) as place:
                yield place
        except RuntimeError:
            # What this process has noticed is that a connection broke; the other knows why.
            _raise_failure(others, FAREWELL_S)
            raise
        finally:
            stop.set()


def _help(help_: _Help) -> None:
    """The life of another process."""
    if help_.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = help_.gpu
    shared: Shared = pickle.loads(help_.shared)  # noqa: S301 - from our own driver
    store = TCPStore("127.0.0.1", help_.port, help_.place.processes, is_master=False)
    store.set(_here(help_.place.rank), "yes")
    with _connected(store, help_.place, help_.device) as place:
        shared.join(place)


@contextmanager
def _connected(store: Any, place: Place, device: str) -> Iterator[Place]:
    backend = "nccl" if device == "cuda" else "gloo"
    with _among_ourselves():
        torch.distributed.init_process_group(
            backend, store=store, rank=place.rank, world_size=place.processes, timeout=WITHIN
        )
    try:
        yield place
    finally:
        torch.distributed.destroy_process_group()


@contextmanager
def _among_ourselves() -> Iterator[None]:
    """Let gloo connect within this machine, whatever its name resolves to."""
    own = "lo" if sys.platform == "linux" else "lo0"
    if _INTERFACE in os.environ or own not in {name for _, name in socket.if_nameindex()}:
        yield
        return
    os.environ[_INTERFACE] = own
    try:
        yield
    finally:
        del os.environ[_INTERFACE]


_INTERFACE = "GLOO_SOCKET_IFNAME"


def _here(rank: int) -> str:
    return f"here/{rank}"


def _await(store: Any, others: Sequence[Future[Any]]) -> None:
    """Until all have come; one that fails before would be waited for in vain."""
    while not store.check([_here(rank) for rank in range(1, len(others) + 1)]):
        _raise_failure(others, 0.0)
        time.sleep(0.02)


def _raise_failure(others: Sequence[Future[Any]], within_s: float) -> None:
    """Raise what one of the others ended with, where that was not well."""
    deadline = time.monotonic() + within_s
    while True:
        for number, other in enumerate(others, start=2):
            if other.done() and isinstance(died := other.result(), Died):
                raise StageError(f"training: process {number} of {len(others) + 1}: {died.reason}.")
        if time.monotonic() >= deadline:
            return
        time.sleep(0.02)
