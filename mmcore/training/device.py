"""Where networks run."""

from __future__ import annotations

import ctypes
import os
import platform
import sys

from mmcore.config import ComputeConfig
from mmcore.errors import ConfigError, Problem

_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def device_of(compute: ComputeConfig) -> str:
    """The device that `compute.device` stands for: `cpu`, `cuda` or `mps`; `auto` takes a GPU where there is one.

    A device that is named for the workers of a cluster is believed. Torch is imported only on a machine that seems to
    have a GPU. Raises ConfigError for a GPU that is not there.
    """
    if compute.device == "cpu":
        return "cpu"
    if compute.device != "auto" and (compute.dask.address or compute.dask.cluster_class):
        # It is the workers' device, and this process may have none.
        return compute.device
    found = [device for device in ("cuda", "mps") if _works(device)]
    if compute.device == "auto":
        return found[0] if found else "cpu"
    if compute.device not in found:
        what = f"{compute.device} was asked for, and torch finds no such device here."
        fix = "Set it to auto or cpu, or install the driver and a torch build for it."
        raise ConfigError(Problem("compute.device", what, fix))
    return compute.device


def gpus_of(device: str) -> list[str]:
    """The GPUs of this machine as CUDA_VISIBLE_DEVICES names them; none where `device` is no CUDA."""
    if device != "cuda":
        return []
    import torch

    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return given[:count] if len(given) >= count else [str(number) for number in range(count)]


def processes_of(compute: ComputeConfig, device: str) -> int:
    """How many processes train a network together.

    Raises ConfigError where there is no GPU for each; those of a cluster are believed to be there.
    """
    count = compute.processes
    if count == 1 or device == "cpu" or compute.dask.address or compute.dask.cluster_class:
        return count
    # Of an MPS device there is one.
    there = len(gpus_of(device)) or 1
    if count > there:
        what = f"{count} processes take a GPU each, and there {'is' if there == 1 else 'are'} {there}."
        raise ConfigError(Problem("compute.processes", what, "Lower it, or set compute.device to cpu."))
    return count


def precision_of(compute: ComputeConfig, device: str) -> str:
    """What `compute.precision` stands for on a device: `float32`, `bfloat16` or `float16`."""
    if compute.precision != "auto":
        return compute.precision
    if device != "cuda":
        return "float32"
    import torch

    return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of the device, or of this process, did not suffice."""
    if isinstance(error, MemoryError):
        return True
    told = str(error)
    # CUDA has a class of its own, which is a RuntimeError like all others of torch.
    return isinstance(error, RuntimeError) and any(words in told for words in _OUT_OF_MEMORY)


def is_device_lost(error: BaseException) -> bool:
    """Whether the device itself failed, after which nothing computes there any more in this process."""
    told = f"{type(error).__name__}: {error}"
    return isinstance(error, RuntimeError) and any(words in told for words in ("CUDA error", "AcceleratorError"))


def made_on(device: str) -> dict[str, str]:
    """What the last bits of a training depend on beside its recipe; loads torch."""
    import torch

    return {"device": device, "cpu": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__}


def _works(device: str) -> bool:
    if not _conceivable(device):
        return False
    import torch

    return torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()


def _conceivable(device: str) -> bool:
    """Whether asking torch (seconds to import) is worth while: a GPU's driver is installed."""
    if device == "mps":
        return sys.platform == "darwin" and platform.machine() == "arm64"
    if os.path.exists("/dev/kfd"):  # AMD, which torch also calls cuda
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def warm_up() -> None:
    """Have torch import what its first optimiser needs (a second and 90 MB), so that no fit is charged for it."""
    import torch

    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
