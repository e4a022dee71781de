"""What a fit costs is measured, in a process that has worked before too."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from mmcore.fusion import costs
from mmcore.fusion.costs import Meter, count_parameters, read_costs
from mmcore.storage import Store

SIZE = 80_000_000


def _work() -> None:
    block = np.ones(SIZE, dtype=np.uint8)
    del block


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "sampled"])
def test_the_peak_is_of_the_fit_alone(kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernel and not costs._KernelPeak.there():
        pytest.skip("this system does not keep the highest resident size of a process")
    monkeypatch.setattr(costs._KernelPeak, "there", lambda: kernel)
    _work()
    idle = Meter().stop()["peak_bytes"]
    assert idle < SIZE / 4, "what was freed before is not counted"
    for _ in range(2):
        meter = Meter()
        block = np.ones(SIZE, dtype=np.uint8)
        deadline = time.monotonic() + 30
        # A thread looks late where the machine is busy; the kernel misses nothing.
        while not kernel and meter._peak._highest - meter._peak._began < 0.95 * SIZE and time.monotonic() < deadline:
            time.sleep(0.01)
        del block
        assert 0.9 * SIZE < meter.stop()["peak_bytes"] < 2 * SIZE


def test_only_learning_is_timed() -> None:
    meter = Meter()
    assert meter.stop()["fit_seconds"] == 0
    with meter.learning():
        _work()
    assert meter.stop()["fit_seconds"] > 0


def test_parameters_are_the_numbers_in_the_file(tmp_path: Path) -> None:
    arrays = {"weights": np.zeros((3, 4)), "bias": np.zeros(3), "one": np.array(2.0)}
    file = tmp_path / "model.safetensors"
    file.write_bytes(safetensors.numpy.save(arrays))
    assert count_parameters(file) == 12 + 3 + 1


def test_costs_that_are_gone_or_damaged_are_no_fault(store: Store) -> None:
    assert read_costs(store, "models/x") == {}
    store.publish_bytes("models/x/costs.json", b"{")
    assert read_costs(store, "models/x") == {}
    store.publish_json("models/x/costs.json", {"fit_seconds": 1.5})
    assert read_costs(store, "models/x") == {"fit_seconds": 1.5}
