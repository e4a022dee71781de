"""Many jobs at a time: on Dask, in this process, or in a child that may die. The one file that imports dask."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import logging
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from mmcore.config import ComputeConfig
from mmcore.errors import ConfigError, MmcoreError, Problem, StageError
from mmcore.records import Json

Job = TypeVar("Job")
Result = TypeVar("Result")
Send = Callable[[str, Json], None]
"""Takes what a job says while it runs: its kind (`told` or `log`) and its body."""

JOBS_PER_WORKER = 3
"""In flight per worker thread: one runs, the next waits beside it, memory stays flat however many jobs there are."""
CONNECT_S = 15.0
"""A running scheduler must answer within this."""
NEWS_S = 10.0
"""How often a map without news looks whether its cluster has grown, shrunk or lost all workers."""

_send: ContextVar[Send | None] = ContextVar("_send", default=None)
_alone: ContextVar[bool] = ContextVar("_alone", default=False)
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Died:
    """In place of a result: the process that worked on the job ended without one."""

    name: str
    reason: str
    last_told: Json | None = None
    """The last event the job told before its end."""


class Pool(ABC):
    """Runs jobs; several threads may call `map` at once and share the workers."""

    process_per_job: bool
    """Whether a job that kills its process takes no other job with it."""

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many jobs run at a time."""

    @abstractmethod
    def map(
        self,
        function: Callable[[Job], Result],
        jobs: Iterable[Job],
        *,
        name: Callable[[Job], str],
        on_event: Callable[[Job, Json], None] | None = None,
    ) -> Iterator[tuple[Job, Result | Died]]:
        """Each job with its result, in the order of completion; `jobs` are drawn as workers become free.

        What a job `tell`s reaches `on_event` in the calling thread, in order and before the job's result.
        An MmcoreError of a job is raised as it is. Any other is tried again `compute.retries` times and then
        raised as a StageError that names the job, caused by the original one.
        """

    @abstractmethod
    def close(self) -> None:
        """End all workers."""


def tell(event: Json) -> None:
    """Say, from inside a job and on its own thread, how far it is; dropped where nobody listens."""
    if (send := _send.get()) is not None:
        send("told", event)


def in_single_threaded_process_worker() -> bool:
    """Whether the calling job has this process to itself, so that ending the process harms no other job."""
    return _alone.get()


# What happens to one job, wherever it runs


@dataclass(frozen=True)
class _Outcome:
    """What became of one attempt: a result, or an error with the text of its traceback."""

    result: Any = None
    error: BaseException | None = None
    trace: str = ""

    def packed(self) -> bytes:
        """Pickled; an error that cannot be is replaced by one that can."""
        import cloudpickle

        try:
            data = cloudpickle.dumps(self)
            if self.error is not None:
                pickle.loads(data)  # noqa: S301 - some errors pickle and then cannot be made again
            return bytes(data)
        except Exception as failure:
            if self.error is None:
                told = "".join(traceback.format_exception_only(failure)).strip()
                stand_in: Exception = TypeError(f"the result cannot be sent back: {told}")
            else:
                stand_in = RuntimeError("".join(traceback.format_exception_only(self.error)).strip())
            return bytes(cloudpickle.dumps(_Outcome(error=stand_in, trace=self.trace)))


def _attempt(function: Callable[[Any], Any], job: Any, send: Send | None, *, alone: bool) -> _Outcome:
    tokens = _send.set(send), _alone.set(alone)
    try:
        return _Outcome(function(job))
    except (Exception, SystemExit) as error:
        # The first frame is this one.
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        return _Outcome(error=error, trace="".join(traceback.format_exception(error)))
    finally:
        _send.reset(tokens[0])
        _alone.reset(tokens[1])


def _attempt_packed(payload: bytes, send: Send, log_level: int, *, alone: bool) -> bytes:
    """Run a pickled (function, job) away from the driver; log records of `mmcore` go to it too."""
    _forward_logs(log_level)
    try:
        function, job = pickle.loads(payload)  # noqa: S301 - from our own driver
    except Exception as error:
        return _Outcome(error=error, trace=traceback.format_exc()).packed()
    return _attempt(function, job, send, alone=alone).packed()


def _raise(name: str, outcome: _Outcome, attempts: int = 1) -> None:
    error = outcome.error
    assert error is not None
    if isinstance(error, MmcoreError):
        raise error
    times = f" {attempts} times" if attempts > 1 else ""
    last = "".join(traceback.format_exception_only(error)).strip().splitlines()[0]
    lines = [line.strip() for line in outcome.trace.splitlines() if line.startswith("  File ")]
    where = f" ({lines[-1]})" if lines else ""
    if error.__traceback__ is None and outcome.trace:
        error.add_note(f"In the worker:\n{outcome.trace}")
    raise StageError(f"{name} failed{times}: {last}{where}") from error


class _Forward(logging.Handler):
    """Sends the log records of a job to the driver."""

    def emit(self, record: logging.LogRecord) -> None:
        if (send := _send.get()) is not None:
            body = {"name": record.name, "levelno": record.levelno, "levelname": record.levelname}
            text = record.getMessage()
            if record.exc_info:
                text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
            send("log", body | {"msg": text, "created": record.created, "pathname": record.pathname})


def _forward_logs(level: int) -> None:
    ours = logging.getLogger("mmcore")
    ours.setLevel(level)
    if not any(isinstance(handler, _Forward) for handler in ours.handlers):
        ours.addHandler(_Forward())
        # The driver decides where lines are shown; a worker's own stderr is the user's terminal.
        ours.propagate = False


def _log_level() -> int:
    return logging.getLogger("mmcore").getEffectiveLevel()


def _relog(body: dict[str, Json], job: str) -> None:
    logger = logging.getLogger(body["name"])
    if logger.isEnabledFor(body["levelno"]):
        logger.handle(logging.makeLogRecord({**body, "job": job}))


# In this process


class _ListenerFailed(BaseException):
    """Carries an error of `on_event` through the job that told: it is not the job's."""


class _SerialPool(Pool):
    """One job after the other in the calling thread."""

    process_per_job = False
    workers = 1

    def __init__(self, retries: int) -> None:
        self._retries = retries

    def map(
        self,
        function: Callable[[Job], Result],
        jobs: Iterable[Job],
        *,
        name: Callable[[Job], str],
        on_event: Callable[[Job, Json], None] | None = None,
    ) -> Iterator[tuple[Job, Result | Died]]:
        for job in jobs:

            def send(_kind: str, body: Json, job: Job = job) -> None:
                try:
                    if on_event is not None:
                        on_event(job, body)
                except Exception as error:
                    raise _ListenerFailed(error) from error

            for attempt in itertools.count():
                try:
                    outcome = _attempt(function, job, send, alone=False)
                except _ListenerFailed as failed:
                    raise failed.args[0] from None
                if outcome.error is None:
                    break
                if isinstance(outcome.error, MmcoreError) or attempt >= self._retries:
                    _raise(name(job), outcome, attempt + 1)
                _warn_of_retry(name(job), outcome.error, attempt, self._retries)
            yield job, outcome.result

    def close(self) -> None:
        pass


def _warn_of_retry(name: str, error: BaseException, attempt: int, retries: int) -> None:
    told = "".join(traceback.format_exception_only(error)).strip()
    _logger.warning("%s failed and is tried again (%d of %d): %s", name, attempt + 1, retries, told)


# On Dask


@dataclass
class _Flight:
    """One job on its way."""

    index: int
    job: Any
    payload: bytes
    future: Any
    attempt: int = 0
    last_told: Json | None = None


class _DaskPool(Pool):
    """Jobs on a Dask cluster that is started, or connected to, by the first of them."""

    def __init__(self, compute: ComputeConfig) -> None:
        self._dask, self._retries = compute.dask, compute.retries
        self._lock = threading.Lock()
        self._client: Any = None
        self._cluster: Any = None
        self._open = contextlib.ExitStack()
        self._topic = f"mmcore-{os.getpid()}-{time.time_ns():x}"
        self._inboxes: dict[int, queue.SimpleQueue[tuple[str, int, Json]]] = {}
        self._numbers = itertools.count()
        self._abandoned = False

    @property
    def _local(self) -> bool:
        return self._dask.address is None and self._dask.cluster_class is None

    @property
    def workers(self) -> int:
        if self._local:
            return _cores() if self._dask.workers == "auto" else self._dask.workers
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
                self._client = self._start()
                self._client.subscribe_topic(self._topic, self._deliver)
            return self._client

    def _start(self) -> Any:
        import dask
        import distributed  # noqa: F401 - first: its import puts its own settings and loggers in place

        settings = {
            # A job that kills its worker is tried once more; then it is its caller's to judge.
            "distributed.scheduler.allowed-failures": 1,
            # One job at a worker, the others wait at the scheduler: a death is blamed on the job that ran.
            "distributed.scheduler.worker-saturation": 1.0,
            # A codec that holds the interpreter for minutes is not dead; a dead local process is noticed at once.
            "distributed.scheduler.worker-ttl": None,
        }
        with contextlib.ExitStack() as opened:
            if self._dask.address is not None:
                client = opened.enter_context(_connection(self._dask.address))
            else:
                opened.enter_context(_quiet())
                with dask.config.set(settings), _main_hidden():
                    self._cluster = opened.enter_context(self._new_cluster())
                client = opened.enter_context(_client(self._cluster))
            self._open = opened.pop_all()
        return client

    def _new_cluster(self) -> Any:
        if self._dask.cluster_class is not None:
            cluster_class = _cluster_of(self._dask.cluster_class)
            try:
                return cluster_class(**self._dask.cluster_kwargs)
            except (TypeError, ValueError) as error:
                what = f"{self._dask.cluster_class} cannot be started with them ({error})."
                raise ConfigError(Problem("compute.dask.cluster_kwargs", what, "See its documentation.")) from error
        import distributed

        cluster: Any = distributed.LocalCluster
        return cluster(
            n_workers=self.workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=self._dask.memory_limit,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            silence_logs=logging.CRITICAL + 1,
            # Ctrl-C reaches the whole process group; what it means is the driver's to decide.
            preload=["import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"],
        )

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
    ) -> Iterator[tuple[Job, Result | Died]]:
        waiting = iter(jobs)
        for first in waiting:
            yield from _DaskMap(self, self._connect(), function, name, on_event).run(itertools.chain([first], waiting))

    def close(self) -> None:
        with self._lock:
            if self._local and self._cluster is not None and (self._inboxes or self._abandoned):
                # Nobody waits for what still runs, and asking a busy worker to end takes seconds.
                _kill(self._cluster.workers.values())
            self._client, self._cluster = None, None
            opened, self._open = self._open, contextlib.ExitStack()
        opened.close()


class _DaskMap:
    """One call of `map`: its jobs in flight and the inbox for what they say."""

    def __init__(
        self,
        pool: _DaskPool,
        client: Any,
        function: Callable[[Any], Any],
        name: Callable[[Any], str],
        on_event: Callable[[Any, Json], None] | None,
    ) -> None:
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
            _log_level(),
            key=(self.group, index, attempt),
            pure=False,
        )
        future.add_done_callback(lambda _: self.inbox.put(("done", index, attempt)))
        return future

    def _take(self, flight: _Flight, kind: str, body: Json) -> Iterator[tuple[Any, Any]]:
        if kind == "log":
            _relog(body, self.name(flight.job))
        elif kind == "told":
            flight.last_told = body
            if self.on_event is not None:
                self.on_event(flight.job, body)
        elif body == flight.attempt:
            yield from self._land(flight)

    def _land(self, flight: _Flight) -> Iterator[tuple[Any, Any]]:
        outcome = self._outcome(flight)
        if isinstance(outcome, _Outcome) and outcome.error is not None:
            if isinstance(outcome.error, MmcoreError) or flight.attempt >= self.pool._retries:
                _raise(self.name(flight.job), outcome, flight.attempt + 1)
            _warn_of_retry(self.name(flight.job), outcome.error, flight.attempt, self.pool._retries)
            flight.attempt += 1
            flight.future = self._submit(flight.index, flight.attempt, flight.payload)
            return
        del self.flying[flight.index]
        flight.future.release()
        yield flight.job, outcome.result if isinstance(outcome, _Outcome) else outcome

    def _outcome(self, flight: _Flight) -> _Outcome | Died:
        import distributed

        try:
            outcome: _Outcome = pickle.loads(flight.future.result())  # noqa: S301 - from our own worker
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

    return _attempt_packed(payload, send, log_level, alone=worker.state.nthreads == 1 and worker.nanny is not None)


def _kill(nannies: Iterable[Any]) -> None:
    for nanny in nannies:
        nanny.auto_restart = False
        if nanny.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(nanny.pid, signal.SIGKILL)


def _cores() -> int:
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


# Which pool

_open_pools: list[tuple[ComputeConfig, Pool, list[None]]] = []
_open_pools_lock = threading.Lock()


def serial_pool(compute: ComputeConfig) -> Pool:
    """A pool that works in the calling thread, for jobs that need this process: those on its GPU."""
    return _SerialPool(compute.retries)


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
            entry = compute, serial_pool(compute) if compute.dask.workers == 0 else _DaskPool(compute), []
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


# In a child process of its own


def run_isolated(
    function: Callable[[Job], Result],
    job: Job,
    *,
    timeout_s: float,
    name: str | None = None,
    on_event: Callable[[Json], None] | None = None,
) -> Result | Died:
    """Run one job in a fresh child process that may crash, hang or be killed without harm.

    After `timeout_s` seconds the child is killed. Raises like `Pool.map`, without trying again.
    """
    import cloudpickle

    name = name or str(getattr(function, "__name__", "job"))
    near, far = socket.socketpair()
    with tempfile.TemporaryFile() as output, Connection(near.detach()) as connection:
        with far:
            child = subprocess.Popen(
                [sys.executable, "-c", _CHILD, str(far.fileno())],
                pass_fds=[far.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            with contextlib.suppress(OSError):
                connection.send((sys.path, bytes(cloudpickle.dumps((function, job))), _log_level()))
            said = _listen(connection, time.monotonic() + timeout_s, name, on_event)
        finally:
            ended_itself = _ended(child)
            child.kill()
            child.wait()
        if said.outcome is None:
            reason = f"no end after {timeout_s:g} s" if said.late else _how_it_ended(child, ended_itself, output)
            return Died(name, reason, said.last_told)
    if said.outcome.error is not None:
        _raise(name, said.outcome)
    result: Result = said.outcome.result
    return result


_CHILD = "import sys; from mmcore.parallel import _child; _child(int(sys.argv[1]))"


@dataclass
class _Said:
    """All that came from a child."""

    outcome: _Outcome | None = None
    last_told: Json | None = None
    late: bool = False


def _listen(connection: Connection, deadline: float, name: str, on_event: Callable[[Json], None] | None) -> _Said:
    said = _Said()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            if not connection.poll(max(0.0, deadline - time.monotonic())):
                said.late = True
                return said
            kind, body = connection.recv()
            if kind == "done":
                said.outcome = pickle.loads(body)  # noqa: S301 - from our own child
                return said
            if kind == "log":
                _relog(body, name)
                continue
            said.last_told = body
            if on_event is not None:
                on_event(body)
    return said


def _ended(child: subprocess.Popen[bytes]) -> bool:
    """Whether the child ends by itself; its connection closes a moment before its process is gone."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=0.5)
        return True
    return False


def _how_it_ended(child: subprocess.Popen[bytes], ended_itself: bool, output: Any) -> str:
    status = child.returncode if ended_itself else 0
    how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    output.seek(0)
    lines = output.read().decode("utf-8", "replace").strip().splitlines()
    return f"{how}: {lines[-1]}" if lines else how


def _child(descriptor: int) -> None:
    """The life of the child: take one job, say what it says, end."""
    connection = Connection(descriptor)
    sys.path[:], payload, log_level = connection.recv()

    def end_with_the_driver() -> None:
        with contextlib.suppress(EOFError, OSError):
            connection.recv()
        os._exit(1)

    threading.Thread(target=end_with_the_driver, daemon=True).start()
    lock = threading.Lock()

    def send(kind: str, body: Json) -> None:
        with lock:
            connection.send((kind, body))

    send("done", _attempt_packed(payload, send, log_level, alone=True))
    # Not through the interpreter's end: a native library that crashes there has already given its result.
    os._exit(0)
