"""Where networks run."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from mmcore.config import ComputeConfig
from mmcore.config.run import DaskConfig
from mmcore.errors import ConfigError
from mmcore.training import device
from mmcore.training.device import device_of, gpus_of, is_out_of_memory, precision_of, processes_of


def compute(name: str) -> ComputeConfig:
    return ComputeConfig.model_validate({"device": name})


def test_auto_agrees_with_torch() -> None:
    gpu = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert device_of(compute("auto")) == gpu
    assert device_of(compute("cpu")) == "cpu"


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # With a driver installed it is torch that is asked.
    monkeypatch.setattr(device, "_conceivable", lambda _: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert device_of(compute("auto")) == "cpu"
    with pytest.raises(ConfigError, match=f"compute.device: {name} was asked for, and torch finds no such device"):
        device_of(compute(name))


def test_what_torch_finds_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_conceivable", lambda name: name == "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of(compute("auto")) == device_of(compute("cuda")) == "cuda"


@pytest.mark.skipif(
    torch.cuda.is_available() or torch.backends.mps.is_available(), reason="torch is asked about the GPU"
)
def test_without_a_gpu_torch_is_not_imported() -> None:
    code = (
        "import sys; from mmcore.training.device import device_of; from mmcore.config import ComputeConfig; "
        "print(device_of(ComputeConfig()), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cpu", "False"]


def test_a_cluster_is_believed_about_its_device() -> None:
    on_cluster = ComputeConfig.model_validate({"device": "cuda", "dask": {"address": "tcp://there:8786"}})
    assert device_of(on_cluster) == "cuda"


def test_gpus_are_those_that_may_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus_of("cuda") == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 6")
    assert gpus_of("cuda") == ["4", "6"]
    assert gpus_of("cpu") == gpus_of("mps") == []


def test_precision_is_what_the_device_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert precision_of(ComputeConfig(), "cpu") == "float32"
    assert precision_of(ComputeConfig(precision="bfloat16"), "cpu") == "bfloat16"
    for there, found in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda there=there: there)
        assert precision_of(ComputeConfig(), "cuda") == found


def test_memory_that_does_not_suffice_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value), "what torch itself says on the CPU"
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_processes_take_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    three = ComputeConfig(processes=3)
    assert processes_of(three, "cpu") == 3
    assert processes_of(ComputeConfig(processes=2), "cuda") == 2
    with pytest.raises(ConfigError, match=r"compute.processes: 3 processes take a GPU each, and there are 2\."):
        processes_of(three, "cuda")
    with pytest.raises(ConfigError, match=r"and there is 1\."):
        processes_of(three, "mps")
    assert processes_of(three.model_copy(update={"dask": DaskConfig(address="tcp://there:8786")}), "cuda") == 3
