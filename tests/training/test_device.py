"""Where networks run."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from mmcore.config import ComputeConfig
from mmcore.errors import ConfigError
from mmcore.training import device
from mmcore.training.device import device_of


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
