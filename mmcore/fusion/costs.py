"""What a fit costs: seconds and memory as measured where it ran, beside the numbers that its model holds.

Measured costs differ from run to run, so they lie in a file of their own, which no receipt names.
"""

from __future__ import annotations

import ctypes
import gc
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import psutil

from mmcore.errors import DamagedError
from mmcore.records import Json
from mmcore.storage import Store

FILE = "costs.json"
SAMPLED_EVERY_S = 0.01

MEMORY = (
    "the highest resident memory of the fit's process while it read the features and learned, above what the process "
    "held before"
)
"""What `peak_bytes` is. In a process with other threads at work, theirs is in it."""

_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Meter:
    """Costs of one fit: memory from its making to `stop`, seconds within `learning`."""

    def __init__(self) -> None:
        _release()
        self._peak: _Peak = _KernelPeak() if _KernelPeak.there() else _SampledPeak()
        self._seconds = 0.0

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Times the block."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - began

    def stop(self) -> dict[str, Json]:
        """`fit_seconds` and `peak_bytes` (see `MEMORY`)."""
        return {"fit_seconds": round(self._seconds, 4), "peak_bytes": self._peak.stop()}


def read_costs(store: Store, folder: str) -> dict[str, Json]:
    """What was measured while the output in `folder` was made; empty where nothing is known."""
    try:
        found: dict[str, Json] = store.read_json(f"{folder}/{FILE}")
        return found
    except (FileNotFoundError, DamagedError):
        return {}


def count_parameters(file: Path) -> int:
    """How many numbers a model's safetensors file holds: weights, scaling, and training rows where it keeps some."""
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as arrays:
        return sum(math.prod(arrays.get_slice(name).get_shape()) for name in arrays.keys())  # noqa: SIM118


class _Peak(Protocol):
    def stop(self) -> int:
        """The most bytes since the beginning, above those of the beginning."""


class _KernelPeak:
    """Linux keeps the highest resident size of a process, and takes it back to the present one when asked (proc(5))."""

    def __init__(self) -> None:
        _CLEAR_REFS.write_text("5", encoding="ascii")
        self._began = self._read("VmRSS")

    @staticmethod
    def there() -> bool:
        with suppress(OSError):
            _CLEAR_REFS.write_text("5", encoding="ascii")
            return True
        return False

    @staticmethod
    def _read(field: str) -> int:
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        return 0

    def stop(self) -> int:
        return max(0, self._read("VmHWM") - self._began)


class _SampledPeak:
    """Elsewhere a thread looks a hundred times a second; what comes and goes between two looks is missed."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._began = self._highest = self._process.memory_info().rss
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(SAMPLED_EVERY_S):
            self._highest = max(self._highest, self._process.memory_info().rss)

    def stop(self) -> int:
        self._highest = max(self._highest, self._process.memory_info().rss)
        self._over.set()
        self._thread.join()
        return int(self._highest - self._began)


def _release() -> None:
    """Give what earlier fits freed back to the system, so that this one is not taken for small for reusing it."""
    gc.collect()
    with suppress(OSError, AttributeError):  # the C library of Linux alone has it
        ctypes.CDLL(None).malloc_trim(0)
