"""Several processes that train one network: the result of one, whatever is drawn and normalised on the way."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import safetensors.torch
import torch
from torch.nn import functional

from mmcore.errors import StageError
from mmcore.training import keeping
from mmcore.training.batch import Batch
from mmcore.training.loop import Curves, LoopSettings, Training, train
from tests.training.dropout_net import SETTINGS, rows
from tests.training.test_loop import HaltError, Memory, interrupt_after, same

ROOT = Path(__file__).resolve().parents[2]
TWO = replace(SETTINGS, epochs=2, patience=99, processes=2)
X, Y = rows(101, 1)


def network_with_all() -> torch.nn.Sequential:
    """Normalisation, dropout, a parameter that no loss reaches, and one that does not learn."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        # A bias before batch normalisation has no gradient but rounding, which AdamW makes steps of.
        torch.nn.Linear(12, 16, bias=False),
        torch.nn.BatchNorm1d(16),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.3),
        torch.nn.Linear(16, 2),
    )
    network.unused = torch.nn.Parameter(torch.ones(3))
    network[4].bias.requires_grad_(False)
    return network


def noisy(network: torch.nn.Sequential, batch: Batch) -> torch.Tensor:
    noise = batch.drawn(lambda random, count: random.normal(0, 0.05, (count, 12)))
    x = X[batch.rows] + torch.from_numpy(noise.astype(np.float32))
    hidden = network[:4](x)
    return functional.cross_entropy(network[4](hidden + 0.1 * torch.randn_like(hidden)), Y[batch.rows])


def validate(network: torch.nn.Sequential) -> float:
    return float(functional.cross_entropy(network(X), Y))


def trained(settings: LoopSettings, n: int = 101, **options: object) -> tuple[torch.nn.Module, Curves]:
    network = network_with_all()
    return network, train(network, n, noisy, validate, settings, **options)  # type: ignore[arg-type]


def far(one: torch.nn.Module, other: torch.nn.Module) -> float:
    a, b = one.state_dict(), other.state_dict()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


@pytest.mark.parametrize(("processes", "n"), [(2, 101), (3, 50)])
def test_several_processes_learn_what_one_does(processes: int, n: int) -> None:
    """Of batches that do not divide evenly."""
    before = psutil.Process().children()
    one, alone = trained(replace(TWO, processes=1), n)
    several, together = trained(replace(TWO, processes=processes), n)
    # Those that other tests started may live on.
    assert set(psutil.Process().children()) <= set(before)
    assert far(one, several) < 1e-5
    np.testing.assert_allclose(together.train_loss, alone.train_loss, atol=1e-5)
    np.testing.assert_allclose(together.val_loss, alone.val_loss, atol=1e-5)


def test_two_processes_resume_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "CHECKPOINT_EVERY_S", 0.0)
    whole, curves = trained(TWO)
    memory, epochs = Memory(), []
    with pytest.raises(HaltError):
        trained(TWO, checkpoints=memory, on_epoch=interrupt_after(1))
    assert memory.data is not None
    resumed, again = trained(TWO, checkpoints=memory, on_epoch=lambda number, *_: epochs.append(number))
    assert epochs == [2]
    assert again == curves
    assert same(whole, resumed)


def test_what_one_alone_left_is_not_what_two_go_on_from(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Their last bits differ, so that the result would follow from when a run was killed."""
    monkeypatch.setattr(keeping, "CHECKPOINT_EVERY_S", 0.0)
    memory = Memory()
    trained(replace(TWO, processes=1, epochs=1), checkpoints=memory)
    run = Training(network_with_all(), 101, noisy, replace(TWO, epochs=1), validate=validate, load=None)
    keeping.Keeper(run, memory).resume()
    assert not run.ended()
    assert "its checkpoint is of other settings" in caplog.text


def test_there_are_no_more_processes_than_rows_in_a_batch() -> None:
    settings, sizes = LoopSettings(1, 1, 1, 0.1, 0.0, seed=0, threads=1, processes=2), []

    def loss(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
        # In another process it would be another list.
        sizes.append(len(batch.rows))
        return network.weight.sum()

    train(torch.nn.Linear(1, 1), 3, loss, lambda _: 1.0, settings)
    assert sizes == [1, 1, 1]


# What goes wrong


def failing(how: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.nn.Module, Batch], torch.Tensor]:
    """A loss that goes wrong in the second process only, in the first batch whose first row is odd."""

    def loss(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
        value = network(X[batch.rows]).square().mean()
        return how(value) if batch.part.start and batch.whole[0] % 2 else value

    return loss


def killed(value: torch.Tensor) -> torch.Tensor:
    os.kill(os.getpid(), signal.SIGKILL)
    return value


def wrong(value: torch.Tensor) -> torch.Tensor:
    raise ValueError("no such thing")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (killed, "training: process 2 of 2: killed by SIGKILL"),
        (wrong, "process 2 of 2 failed: ValueError: no such thing"),
        (lambda value: value * math.nan, r"the loss is nan in epoch 1, batch \d of 4"),
    ],
)
def test_another_process_that_fails_ends_the_training(how: Callable[..., torch.Tensor], said: str) -> None:
    before = psutil.Process().children()
    with pytest.raises(StageError, match=said):
        train(torch.nn.Linear(12, 1), 101, failing(how), lambda _: 1.0, TWO)
    assert set(psutil.Process().children()) <= set(before)
    assert not torch.distributed.is_initialized()


@pytest.mark.chaos
def test_killed_with_all_its_processes_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "tests.training.dropout_net"]
    for folder, kills in (("killed", ("1", "3", "0")), ("whole", ("0",))):
        (tmp_path / folder).mkdir()
        for kill_after in kills:
            done = subprocess.run([*program, tmp_path / folder, kill_after, "2"], cwd=ROOT, check=False)
            assert done.returncode == (0 if kill_after == "0" else -signal.SIGKILL)
    killed_, whole = (
        safetensors.torch.load_file(tmp_path / name / "weights.safetensors") for name in ("killed", "whole")
    )
    assert all(torch.equal(killed_[name], value) for name, value in whole.items())
