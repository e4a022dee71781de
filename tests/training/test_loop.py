"""The training loop against closed forms, and against itself interrupted."""

from __future__ import annotations

import logging
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from mmcore.errors import DataError, StageError
from mmcore.storage import Store
from mmcore.training import keeping
from mmcore.training.batch import Batch
from mmcore.training.checkpoint import StoreCheckpoints
from mmcore.training.loop import LoopSettings, rate_at, train
from tests.training.dropout_net import SETTINGS, new_network, train_it

ROOT = Path(__file__).resolve().parents[2]
NEEDS_CUDA = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


class Memory:
    """Checkpoints that outlive nothing."""

    def __init__(self) -> None:
        self.data: bytes | None = None
        self.saved = 0

    def load(self) -> bytes | None:
        return self.data

    def save(self, data: bytes) -> None:
        self.data = data
        self.saved += 1

    def clear(self) -> None:
        self.data = None


class HaltError(Exception):
    pass


def interrupt_after(epoch: int):
    def on_epoch(number: int, _epochs: int, _news: dict[str, float]) -> None:
        if number == epoch:
            raise HaltError

    return on_epoch


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def checkpoint_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr(keeping, "CHECKPOINT_SHARE", 1.0)


# What it learns


def test_linear_regression_reaches_the_closed_form() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 5))
    y = x @ [0.5, -0.4, 0.3, 0.0, 0.2] + 0.1 + random.normal(0, 0.3, 400)
    exact, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(400)]), y, rcond=None)
    network = torch.nn.Linear(5, 1).double()
    x_all, y_all = torch.from_numpy(x), torch.from_numpy(y)[:, None]

    def mse(network: torch.nn.Module, rows: np.ndarray) -> torch.Tensor:
        return torch.nn.functional.mse_loss(network(x_all[rows]), y_all[rows])

    def loss(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return mse(network, batch.rows)

    settings = LoopSettings(300, 300, 400, 0.05, 0.0, seed=0, threads=1)
    curves = train(network, 400, loss, lambda net: mse(net, np.arange(400)).item(), settings)
    found = torch.cat([network.weight[0], network.bias]).detach().numpy()
    np.testing.assert_allclose(found, exact, atol=1e-4)
    residual = y - np.column_stack([x, np.ones(400)]) @ exact
    assert min(curves.val_loss) == pytest.approx(float(residual @ residual / 400), rel=1e-6)


def test_steps_are_adamw_with_clipping() -> None:
    """One epoch of three full batches against the textbook update in float64."""
    x, y = (
        torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 5,
        torch.arange(6.0).double(),
    )
    network = torch.nn.Linear(3, 1).double()
    weight, bias = network.weight.detach().numpy().copy()[0], network.bias.item()
    batches: list[np.ndarray] = []

    def mse(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
        batches.append(rows := batch.rows)
        return ((network(x[rows])[:, 0] - y[rows]) ** 2).mean()

    train(network, 6, mse, lambda _: 1.0, LoopSettings(1, 1, 2, 0.1, 0.5, seed=0, threads=1))
    assert sorted(np.concatenate(batches)) == list(range(6))
    mean, square, clipped = np.zeros(4), np.zeros(4), 0
    for step, rows in enumerate(batches):
        rate = rate_at(step, 3, 0.1)
        error = x.numpy()[rows] @ weight + bias - y.numpy()[rows]
        gradient = np.append(2 * error @ x.numpy()[rows], 2 * error.sum()) / len(rows)
        length = np.linalg.norm(gradient)
        clipped += length > 1
        gradient *= min(1.0, 1.0 / (length + 1e-6))
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        change = rate * (mean / (1 - 0.9 ** (step + 1))) / (np.sqrt(square / (1 - 0.999 ** (step + 1))) + 1e-8)
        weight, bias = weight * (1 - rate * 0.5) - change[:3], bias - change[3]  # the bias has no decay
    assert clipped
    np.testing.assert_allclose(network.weight.detach().numpy()[0], weight, rtol=1e-9)
    np.testing.assert_allclose(network.bias.item(), bias, rtol=1e-9)


def test_the_rate_rises_and_falls_once() -> None:
    rates = [rate_at(step, 200, 0.3) for step in range(200)]
    assert rates[19] == pytest.approx(0.3)
    assert rates[0] == pytest.approx(0.3 / 20)
    assert rates[109] == pytest.approx(0.15, rel=0.02)
    assert 0 < rates[-1] < 1e-3
    assert np.all(np.diff(rates[:20]) > 0)
    assert np.all(np.diff(rates[19:]) < 0)
    assert [rate_at(0, 1, 0.3), rate_at(1, 2, 0.3)] == pytest.approx([0.3, 0.15])


def test_the_best_weights_are_kept() -> None:
    network, after = new_network(), []
    wanted = iter([3.0, 1.0, 2.0, 1.0, 4.0, 0.5])

    def validate(network: torch.nn.Module) -> float:
        assert not network.training
        assert not torch.is_grad_enabled()
        after.append({name: value.clone() for name, value in network.state_dict().items()})
        return next(wanted)

    def loss(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
        assert network.training
        values = batch.random.normal(size=(len(batch.rows), 12)).astype(np.float32)
        return network(torch.from_numpy(values)).square().mean()

    curves = train(network, 64, loss, validate, replace(SETTINGS, patience=3))
    assert curves.val_loss == [3.0, 1.0, 2.0, 1.0, 4.0]
    assert (curves.best_epoch, curves.stopped_early) == (2, True)
    assert not network.training
    assert all(torch.equal(after[1][name], value) for name, value in network.state_dict().items())


def test_on_epoch_hears_of_every_epoch() -> None:
    heard: list[tuple[int, int, dict[str, float]]] = []
    curves = train_it(new_network(), on_epoch=lambda *news: heard.append(news))
    assert [(epoch, epochs) for epoch, epochs, _ in heard] == [(n + 1, 7) for n in range(len(curves.val_loss))]
    assert [news["train_loss"] for *_, news in heard] == curves.train_loss
    assert [news["val_loss"] for *_, news in heard] == curves.val_loss
    assert curves.as_json()["best_epoch"] == curves.best_epoch


@pytest.mark.parametrize(("n", "batch_size"), [(1, 32), (33, 32), (5, 2), (64, 32)])
def test_batches_cover_every_row_once_and_are_equal_to_one(n: int, batch_size: int) -> None:
    seen: list[list[np.ndarray]] = [[], []]
    weight = torch.nn.Parameter(torch.zeros(1))
    network = torch.nn.ParameterList([weight])

    def loss(_network: torch.nn.Module, batch: Batch) -> torch.Tensor:
        seen[sum(map(len, seen[0])) >= n].append(batch.rows)
        return (weight**2).sum() + 1.0

    curves = train(network, n, loss, lambda _: 1.0, LoopSettings(2, 9, batch_size, 0.1, 0.0, seed=5, threads=1))
    for batches in seen:
        assert sorted(np.concatenate(batches)) == list(range(n))
        sizes = [len(rows) for rows in batches]
        assert max(sizes) <= batch_size
        assert max(sizes) - min(sizes) <= 1
    assert curves.train_loss == [1.0, 1.0]
    if n > 4:
        assert not np.array_equal(np.concatenate(seen[0]), np.concatenate(seen[1]))


# Resumed is uninterrupted


def test_equal_seeds_equal_bits_and_other_seeds_do_not() -> None:
    one, other, third = new_network(), new_network(), new_network()
    torch.manual_seed(123)
    curves = train_it(one)
    torch.manual_seed(456)
    assert train_it(other) == curves
    assert same(one, other)
    train_it(third, replace(SETTINGS, seed=4))
    assert not same(one, third)


@pytest.mark.parametrize("epoch", [1, 2, 4, 6, 7])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
def test_resumed_equals_uninterrupted(epoch: int, device: str, checkpoint_always: None) -> None:
    settings = replace(SETTINGS, patience=99, device=device)
    whole, parts, memory = new_network(), new_network(), Memory()
    curves = train_it(whole, settings)
    with pytest.raises(HaltError):
        train_it(parts, settings, checkpoints=memory, on_epoch=interrupt_after(epoch))
    resumed = new_network()
    epochs: list[int] = []
    again = train_it(resumed, settings, checkpoints=memory, on_epoch=lambda number, *_: epochs.append(number))
    assert epochs == list(range(epoch + 1, 8))
    if device == "cpu":
        assert again == curves
        assert same(resumed, whole)
    else:
        assert again.val_loss == pytest.approx(curves.val_loss, rel=1e-3)


def test_interrupted_at_every_epoch_in_turn(checkpoint_always: None) -> None:
    whole, memory = new_network(), Memory()
    curves = train_it(whole)
    for epoch in range(1, len(curves.val_loss) + 1):
        with pytest.raises(HaltError):
            train_it(new_network(), checkpoints=memory, on_epoch=interrupt_after(epoch))
    resumed = new_network()
    assert train_it(resumed, checkpoints=memory) == curves
    assert same(resumed, whole)


def test_a_killed_process_ends_in_the_same_bytes(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "tests.training.dropout_net", tmp_path]
    assert subprocess.run([*program, "3", "1"], cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "weights.safetensors").exists()
    subprocess.run([*program, "0", "1"], cwd=ROOT, check=True)
    whole = new_network()
    train_it(whole, replace(SETTINGS, patience=99))
    killed = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    assert all(torch.equal(killed[name], value) for name, value in whole.state_dict().items())


@pytest.mark.parametrize("change", [{"seed": 9}, {"epochs": 8}, {"learning_rate": 1e-3}, {"n": 300}])
def test_a_checkpoint_of_another_training_is_left_alone(
    change: dict[str, int], checkpoint_always: None, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory()
    train_it(new_network(), checkpoints=memory)
    n = change.get("n", 301)
    settings = replace(SETTINGS, **{name: value for name, value in change.items() if name != "n"})
    one, other = new_network(), new_network()
    curves = train_it(one, settings, n)
    assert train_it(other, settings, n, checkpoints=memory) == curves
    assert same(one, other)
    assert "its checkpoint is of other settings or another network" in caplog.text


def test_a_damaged_checkpoint_costs_time_only(checkpoint_always: None, caplog: pytest.LogCaptureFixture) -> None:
    memory, whole, other = Memory(), new_network(), new_network()
    curves = train_it(whole, checkpoints=memory)
    assert memory.data is not None
    memory.data = memory.data[:1000]
    assert train_it(other, checkpoints=memory) == curves
    assert same(whole, other)
    assert "training starts anew" in caplog.text


def test_quick_epochs_share_a_checkpoint(store: Store) -> None:
    memory = Memory()
    train_it(new_network(), checkpoints=memory)
    assert memory.saved == 0
    checkpoints = StoreCheckpoints(store, "models/x/checkpoint.safetensors")
    assert checkpoints.load() is None
    checkpoints.save(b"one")
    checkpoints.save(b"two")
    assert checkpoints.load() == b"two"
    checkpoints.clear()
    checkpoints.clear()
    assert checkpoints.load() is None


# What goes wrong


def poisoned(at_epoch: int, at_batch: int, value: float):
    batches = 4
    calls = iter(range(1000))
    weight = torch.nn.Parameter(torch.ones(2))

    def loss(_network: torch.nn.Module, _batch: Batch) -> torch.Tensor:
        bad = next(calls) == (at_epoch - 1) * batches + at_batch - 1
        return (weight**2).sum() * (value if bad else 1.0)

    return torch.nn.ParameterList([weight]), loss


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_epoch_and_batch(value: float) -> None:
    network, loss = poisoned(2, 3, value)
    with pytest.raises(StageError, match=r"the loss is (nan|inf) in epoch 2, batch 3 of 4. Lower the learning rate"):
        train(network, 8, loss, lambda _: 1.0, LoopSettings(5, 5, 2, 0.1, 0.0, seed=0, threads=1))


def test_a_gradient_that_is_not_finite_names_epoch_and_batch() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    settings = LoopSettings(5, 5, 2, 0.1, 0.0, seed=0, threads=1)
    with pytest.raises(StageError, match="the gradient is nan in epoch 1, batch 1 of 4"):
        train(
            torch.nn.ParameterList([weight]),
            8,
            lambda *_: weight.abs().sqrt().sum() + weight.sqrt().sum(),
            lambda _: 1.0,
            settings,
        )


def test_a_validation_loss_that_is_not_finite_names_the_epoch() -> None:
    network, loss = poisoned(99, 1, 1.0)
    values = iter([1.0, math.nan])
    with pytest.raises(StageError, match="the validation loss is nan after epoch 2"):
        train(network, 8, loss, lambda _: next(values), LoopSettings(5, 5, 2, 0.1, 0.0, seed=0, threads=1))


def test_no_rows() -> None:
    with pytest.raises(DataError, match="no rows to train on"):
        train_it(new_network(), n=0)


# Torch around it


def test_torch_is_left_as_it_was() -> None:
    torch.set_num_threads(2)
    try:
        state = torch.get_rng_state()
        seen: list[tuple[int, bool]] = []
        train_it(
            new_network(),
            on_epoch=lambda *_: seen.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())),
        )
        assert set(seen) == {(1, True)}
        assert torch.get_num_threads() == 2
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_num_threads(1)


def test_bfloat16_computes_in_bfloat16_and_learns_in_float32() -> None:
    network, seen = new_network(), []
    network[4].register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    curves = train_it(network, replace(SETTINGS, precision="bfloat16"))
    assert set(seen) == {torch.bfloat16}
    assert network[4].weight.dtype == torch.float32
    assert curves.train_loss[-1] < curves.train_loss[0]


def test_tied_and_frozen_weights_are_resumed(checkpoint_always: None) -> None:
    def network() -> torch.nn.Sequential:
        torch.manual_seed(0)
        first, second = torch.nn.Linear(12, 12), torch.nn.Linear(12, 12)
        second.weight = first.weight
        last = torch.nn.Linear(12, 2)
        last.bias.requires_grad_(False)
        return torch.nn.Sequential(first, torch.nn.ReLU(), second, last)

    whole, resumed, memory = network(), network(), Memory()
    frozen = whole[3].bias.clone()
    curves = train_it(whole)
    with pytest.raises(HaltError):
        train_it(network(), checkpoints=memory, on_epoch=interrupt_after(3))
    assert train_it(resumed, checkpoints=memory) == curves
    assert same(whole, resumed)
    assert torch.equal(resumed[3].bias, frozen)
    assert resumed[2].weight is resumed[0].weight


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(caplog: pytest.LogCaptureFixture) -> None:
    network = new_network()
    with caplog.at_level(logging.WARNING):
        curves = train_it(network, replace(SETTINGS, device="cuda"))
    assert next(network.parameters()).is_cuda
    on_cpu = train_it(new_network())
    assert curves.val_loss[0] == pytest.approx(on_cpu.val_loss[0], rel=0.2)
