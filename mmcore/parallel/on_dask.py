"""Jobs on a Dask cluster."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import pickle
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmcore.config import ComputeConfig
from mmcore.errors import MmcoreError, StageError
from mmcore.parallel import cluster
from mmcore.parallel.jobs import Died, Outcome, attempt_packed, log_level, raise_error, relog
from mmcore.parallel.pool import Job, Pool, Result, warn_of_retry
from mmcore.records import Json

JOBS_PER_WORKER = 3
"""In flight per worker thread: one runs, the next waits beside it, memory stays flat however many jobs there are."""
NEWS_S = 10.0
"""How often a map without news looks whether its cluster has grown, shrunk or lost all workers."""

_logger = logging.getLogger("mmcore.parallel")


@dataclass
class _Flight:
    """One job on its way."""

    index: int
    job: Any
    payload: bytes
    future: Any
    attempt: int = 0
    last_told: Json | None = None


class DaskPool(Pool):
    """Jobs on a Dask cluster that is started, or connected to, by the first of them."""

    def __init__(self, compute: ComputeConfig, gpus: Sequence[str] = ()) -> None:
        """`gpus`, as CUDA_VISIBLE_DEVICES names them, get a local worker each, which sees no other."""
        self._dask, self._retries, self._gpus = compute.dask, compute.retries, tuple(gpus)
        self._lock = threading.Lock()
        self._client: Any = None
        self._cluster: Any = None
        self._open = contextlib.ExitStack()
        self._topic = f"mmcore-{os.getpid()}-{time.time_ns():x}"
        self._inboxes: dict[int, queue.SimpleQueue[tuple[str, int, Json]]] = {}
        self._numbers = itertools.count()
        self._abandoned = False
        self._local = cluster.is_local(self._dask)
        self._cores = len(gpus) or (cluster.cores() if self._dask.workers == "auto" else self._dask.workers)

    @property
    def workers(self) -> int:
        if self._local:
            return self._cores
        return max(1, self._threads(self._connect()))

    @property
    def process_per_job(self) -> bool:  # type: ignore[override]
        if self._local:
            return True
        found = self._connect().scheduler_info(n_workers=-1)["workers"].values()
        return all(worker["nthreads"] == 1 and worker["nanny"] for worker in found)

    @staticmethod
    def _threads(client: Any) -> int:
        return sum(client.nthreads().values())

    def _connect(self) -> Any:
        with self._lock:
            if self._client is None:
                opened = cluster.running(self._dask, self._cores, self._gpus)
                self._client, self._cluster = self._open.enter_context(opened)
                self._client.subscribe_topic(self._topic, self._deliver)
            return self._client

    def _deliver(self, event: tuple[float, tuple[int, int, str, Json]]) -> None:
        """Put what a worker said into its map's inbox (runs on the client's own thread)."""
        number, index, kind, body = event[1]
        if (inbox := self._inboxes.get(number)) is not None:
            inbox.put((kind, index, body))

    def map(
        self,
        function: Callable[[Job], Result],
        jobs: Iterable[Job],
        *,
        name: Callable[[Job], str],
        on_event: Callable[[Job, Json], None] | None = None,
        gpu: bool = False,
    ) -> Iterator[tuple[Job, Result | Died]]:
        waiting = iter(jobs)
        for first in waiting:
            client = self._connect()
            needed = {cluster.GPU: 1} if gpu and self._has_gpus(client) else None
            yield from _DaskMap(self, client, function, name, on_event, needed).run(itertools.chain([first], waiting))

    @staticmethod
    def _has_gpus(client: Any) -> bool:
        """Whether workers say that they have a GPU; where none does, any of them may have one."""
        found = client.scheduler_info(n_workers=-1)["workers"].values()
        return any(cluster.GPU in worker.get("resources", {}) for worker in found)

    def close(self) -> None:
        with self._lock:
            if self._local and self._cluster is not None and (self._inboxes or self._abandoned):
                # Nobody waits for what still runs, and asking a busy worker to end takes seconds.
                cluster.kill(self._cluster.workers.values())
            self._client, self._cluster = None, None
            opened, self._open = self._open, contextlib.ExitStack()
        opened.close()


class _DaskMap:
    """One call of `map`: its jobs in flight and the inbox for what they say."""

    def __init__(  # noqa: PLR0917
        self,
        pool: DaskPool,
        client: Any,
        function: Callable[[Any], Any],
        name: Callable[[Any], str],
        on_event: Callable[[Any, Json], None] | None,
        resources: Mapping[str, float] | None,
    ) -> None:
        self.resources = resources
        self.pool, self.client, self.function, self.name, self.on_event = pool, client, function, name, on_event
        self.number = next(pool._numbers)
        self.group = f"{getattr(function, '__name__', 'job')}-{pool._topic}-{self.number}"
        self.inbox: queue.SimpleQueue[tuple[str, int, Json]] = queue.SimpleQueue()
        self.flying: dict[int, _Flight] = {}

    def run(self, jobs: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
        self.pool._inboxes[self.number] = self.inbox
        numbered = enumerate(jobs)
        window = JOBS_PER_WORKER * self.pool.workers
        try:
            while True:
                for index, job in itertools.islice(numbered, window - len(self.flying)):
                    self._launch(index, job)
                if not self.flying:
                    return
                try:
                    kind, index, body = self.inbox.get(timeout=NEWS_S)
                except queue.Empty:
                    window = JOBS_PER_WORKER * self._workers_there()
                    continue
                if index in self.flying:
                    yield from self._take(self.flying[index], kind, body)
        finally:
            self.pool._abandoned |= bool(self.flying)
            del self.pool._inboxes[self.number]
            if self.flying and self.client.status == "running":
                self.client.cancel([flight.future for flight in self.flying.values()], force=True)

    def _workers_there(self) -> int:
        if self.client.status != "running":
            return 1
        threads = self.pool._threads(self.client)
        if not threads:
            _logger.warning("%d jobs wait: the Dask cluster has no worker at present.", len(self.flying))
        return max(1, threads)

    def _launch(self, index: int, job: Any) -> None:
        import cloudpickle

        payload = bytes(cloudpickle.dumps((self.function, job)))
        self.flying[index] = _Flight(index, job, payload, self._submit(index, 0, payload))

    def _submit(self, index: int, attempt: int, payload: bytes) -> Any:
        future = self.client.submit(
            _on_worker,
            payload,
            self.pool._topic,
            (self.number, index),
            log_level(),
            key=(self.group, index, attempt),
            pure=False,
            resources=self.resources,
        )
        future.add_done_callback(lambda _: self.inbox.put(("done", index, attempt)))
        return future

    def _take(self, flight: _Flight, kind: str, body: Json) -> Iterator[tuple[Any, Any]]:
        if kind == "log":
            relog(body, self.name(flight.job))
        elif kind == "told":
            flight.last_told = body
            if self.on_event is not None:
                self.on_event(flight.job, body)
        elif body == flight.attempt:
            yield from self._land(flight)

    def _land(self, flight: _Flight) -> Iterator[tuple[Any, Any]]:
        outcome = self._outcome(flight)
        if isinstance(outcome, Outcome) and outcome.error is not None:
            if isinstance(outcome.error, MmcoreError) or flight.attempt >= self.pool._retries:
                raise_error(self.name(flight.job), outcome, flight.attempt + 1)
            warn_of_retry(self.name(flight.job), outcome.error, flight.attempt, self.pool._retries)
            flight.attempt += 1
            flight.future = self._submit(flight.index, flight.attempt, flight.payload)
            return
        del self.flying[flight.index]
        flight.future.release()
        yield flight.job, outcome.result if isinstance(outcome, Outcome) else outcome

    def _outcome(self, flight: _Flight) -> Outcome | Died:
        import distributed

        try:
            outcome: Outcome = pickle.loads(flight.future.result())  # noqa: S301 - from our own worker
            return outcome
        except distributed.scheduler.KilledWorker:
            reason = "its worker process died twice: killed, out of memory, or a crash in native code"
            return Died(self.name(flight.job), reason, flight.last_told)
        except distributed.client.FutureCancelledError as error:
            raise StageError(
                f"{self.name(flight.job)}: the connection to the Dask scheduler was lost. What was finished is kept: "
                "see that the cluster is up and run the same command again."
            ) from error
        except Exception as error:
            raise StageError(f"{self.name(flight.job)} could not be run on its Dask worker: {error}") from error


def _on_worker(payload: bytes, topic: str, sender: tuple[int, int], log_level: int) -> bytes:
    """The one function that Dask runs."""
    import distributed

    worker = distributed.get_worker()

    def send(kind: str, body: Json) -> None:
        worker.log_event(topic, (*sender, kind, body))

    return attempt_packed(payload, send, log_level, alone=worker.state.nthreads == 1 and worker.nanny is not None)
