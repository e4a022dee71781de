"""Jobs for test_parallel.py, and a driver to be killed: workers import this file, so it stays light."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mmcore.config import ComputeConfig
from mmcore.errors import ConfigError, Problem
from mmcore.parallel import in_single_threaded_process_worker, open_pool, run_isolated, tell


@dataclass(frozen=True)
class Work:
    """Does `what` with `number`; `folder` counts the attempts."""

    number: int
    what: str = ""
    folder: str = ""

    @property
    def name(self) -> str:
        return f"work {self.number}"


class UnpicklableError(Exception):
    def __reduce__(self):
        raise TypeError("not this one")


class TwoArgumentsError(Exception):
    """Pickles, and cannot be made again from its message."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def square(work: Work) -> int:
    for step in range(3):
        tell({"step": step})
    return work.number**2


def count_attempts(work: Work) -> int:
    folder = Path(work.folder)
    attempt = len(list(folder.glob(f"{work.number}-*"))) + 1
    (folder / f"{work.number}-{attempt}").touch()
    return attempt


def faulty(work: Work) -> int:
    attempt = count_attempts(work) if work.folder else 1
    tell({"attempt": attempt})
    match work.what:
        case "flaky" if attempt < 3:
            raise OSError("the network is down")
        case "broken":
            raise ValueError("seven is not a shape\nsecond line")
        case "final":
            raise ConfigError([Problem("a.b", "is wrong.", "Mend it."), Problem("c", "too.")])
        case "unpicklable":
            raise UnpicklableError("nobody can send me")
        case "two":
            raise TwoArgumentsError(1, 2)
        case "exit":
            sys.exit(3)
        case "lambda":
            return (x for x in range(3))  # type: ignore[return-value]
        case "dies once" if attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        case "dies":
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        case "aborts":
            os.write(2, b"codec: corrupted state\n")
            os.abort()
    return attempt


def nap(work: Work) -> float:
    tell({"pid": os.getpid()})
    time.sleep(work.number / 10)
    return time.time()


def log(work: Work) -> None:
    logging.getLogger("mmcore.shards").info("looked at %s", work.name)
    logging.getLogger("mmcore.shards").debug("nobody asked")
    logging.getLogger("elsewhere").error("not ours")


def surroundings(_: Work) -> dict[str, object]:
    loaded = [name for name in ("torch", "prefect", "pytest", "sklearn", "pandas") if name in sys.modules]
    return {"alone": in_single_threaded_process_worker(), "loaded": loaded, "main": sys.modules["__main__"].__name__}


def drive(how: str) -> None:
    """Runs long jobs, printing the process ids they run in."""
    compute = ComputeConfig.model_validate({"dask": {"workers": 2}})
    if how == "isolated":
        run_isolated(nap, Work(600), timeout_s=60, on_event=lambda event: print(event["pid"], flush=True))
        return
    work = [Work(600)] * 8 if how == "long" else [Work(2)] * 8
    try:
        with open_pool(compute) as pool:
            pool_map = pool.map(
                nap, work, name=lambda work: work.name, on_event=lambda _, e: print(e["pid"], flush=True)
            )
            assert len(list(pool_map)) == 8
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    drive(sys.argv[1])


def visible_gpus(_: Work) -> str:
    """What this process may see, as CUDA is told; a moment later, so that every worker gets a job."""
    time.sleep(0.3)
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")
