"""What runs jobs, and the simplest such: the calling thread."""

from __future__ import annotations

import itertools
import logging
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from mmcore.errors import MmcoreError
from mmcore.parallel.jobs import Died, attempt_job, raise_error
from mmcore.records import Json

Job = TypeVar("Job")
Result = TypeVar("Result")

_logger = logging.getLogger("mmcore.parallel")


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
        gpu: bool = False,
    ) -> Iterator[tuple[Job, Result | Died]]:
        """Each job with its result, in the order of completion; `jobs` are drawn as workers become free.

        What a job `tell`s reaches `on_event` in the calling thread, in order and before the job's result.
        `gpu` jobs go to workers that say they have a GPU, where some do.
        An MmcoreError of a job is raised as it is. Any other is tried again `compute.retries` times and then
        raised as a StageError that names the job, caused by the original one.
        """

    @abstractmethod
    def close(self) -> None:
        """End all workers."""


class _ListenerFailed(BaseException):
    """Carries an error of `on_event` through the job that told: it is not the job's."""


class SerialPool(Pool):
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
        gpu: bool = False,
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
                    outcome = attempt_job(function, job, send, alone=False)
                except _ListenerFailed as failed:
                    raise failed.args[0] from None
                if outcome.error is None:
                    break
                if isinstance(outcome.error, MmcoreError) or attempt >= self._retries:
                    raise_error(name(job), outcome, attempt + 1)
                warn_of_retry(name(job), outcome.error, attempt, self._retries)
            yield job, outcome.result

    def close(self) -> None:
        pass


def warn_of_retry(name: str, error: BaseException, attempt: int, retries: int) -> None:
    told = "".join(traceback.format_exception_only(error)).strip()
    _logger.warning("%s failed and is tried again (%d of %d): %s", name, attempt + 1, retries, told)
