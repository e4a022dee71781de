"""Learning: it raises the exact likelihood, goes on after a kill, and says what is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmcore.errors import StageError
from mmcore.fusion.dbm.machine import Machine
from mmcore.fusion.dbm.training import Learning, LearningSettings, TrainingRows, learn
from mmcore.training import keeping
from tests.fusion.dbm.exact import log_sum_given, log_z, moments

SETTINGS = LearningSettings(
    pretrain_epochs=4,
    epochs=10,
    batch_size=50,
    learning_rate=1e-2,
    weight_decay=0.0,
    mean_field_steps=8,
    gibbs_steps=5,
    seed=0,
)


def drawn(rows: int, seed: int, kinds=("gaussian", "binary")) -> TrainingRows:
    """Rows of two kinds, of which both modalities tell; some without one modality."""
    random = torch.Generator().manual_seed(seed)
    side = (torch.rand(rows, 1, generator=random) < 0.5).float()
    visible = [
        (2 * side - 1) * torch.tensor([0.9, -0.8, 0.9]) + 0.45 * torch.randn(rows, 3, generator=random)
        if kind == "gaussian"
        else (torch.rand(rows, 3, generator=random) < 0.1 + 0.8 * side).float()
        for kind in kinds
    ]
    present = torch.rand(rows, 2, generator=random) < 0.9
    present[~present.any(dim=1), 0] = True
    return TrainingRows(visible, present, torch.ones(rows))


def fresh(kinds=("gaussian", "binary"), depth: int = 1) -> Machine:
    torch.manual_seed(0)
    return Machine([(3, kind) for kind in kinds], [2] * depth, 3)


def exact(machine: Machine, rows: TrainingRows) -> float:
    copy = fresh(tuple(machine.kinds), machine.depth)
    copy.load_state_dict(machine.state_dict())
    copy.double()
    with torch.no_grad():
        return float((log_sum_given(copy, [v.double() for v in rows.visible], [True, True]) - log_z(copy)).mean())


@pytest.mark.parametrize("depth", [1, 2])
def test_learning_raises_the_exact_likelihood_of_other_rows(depth) -> None:
    rows, held = drawn(600, 1), drawn(40, 2)
    machine = fresh(depth=depth)
    before = exact(machine, held)
    learn(machine, rows, replace(SETTINGS, pretrain_epochs=10, epochs=60))
    assert exact(machine, held) > before + 1.0
    assert not any(offset.any() for offset in machine.offsets)


def test_the_whole_machine_learns_more_than_its_layers() -> None:
    rows, held = drawn(600, 1), drawn(40, 2)
    layers, whole = fresh(), fresh()
    learn(layers, rows, replace(SETTINGS, pretrain_epochs=10, epochs=1))
    learn(whole, rows, replace(SETTINGS, pretrain_epochs=10, epochs=60))
    assert exact(whole, held) > exact(layers, held) + 0.05


def test_chains_say_what_all_states_say() -> None:
    rows = drawn(400, 1)
    machine = fresh()
    learning = Learning(machine, rows, replace(SETTINGS, batch_size=400, pretrain_epochs=5, epochs=20))
    while len(learning.curve) < learning.epochs:
        learning.epoch()
    random = torch.Generator().manual_seed(0)
    sums = [torch.zeros_like(bias) for bias in machine.biases]
    with torch.no_grad():
        expected, _ = moments(machine.double())
        chains = [values.double() for values in learning.chains]
        for _ in range(100):
            chains, means = machine.sweep(chains, random)
            for total, values in zip(sums, means, strict=True):
                total.add_(values.mean(dim=0).float() / 100)
    for found, mean in zip(sums, expected, strict=True):
        torch.testing.assert_close(found.double(), mean, atol=0.03, rtol=0.02)


@pytest.mark.parametrize("kinds", [("binary", "binary"), ("gaussian", "gaussian")])
def test_every_kind_of_visibles_is_reconstructed_better_with_time(kinds) -> None:
    curve = learn(fresh(kinds), drawn(300, 1, kinds), replace(SETTINGS, pretrain_epochs=15, learning_rate=2e-2))
    assert np.mean(curve[10:15]) < np.mean(curve[:2])


def test_rows_that_weigh_nothing_teach_nothing() -> None:
    rows = drawn(200, 1)
    other = [values.clone() for values in rows.visible]
    for values in other:
        values[100:] = 1.0
    weights = torch.cat([torch.ones(100), torch.zeros(100)])
    machines = [fresh(), fresh()]
    for machine, visible in zip(machines, (rows.visible, other), strict=True):
        # In the last phase chains begin at rows, whatever they weigh: only the layers are compared.
        learning = Learning(machine, TrainingRows(visible, rows.present, weights), SETTINGS)
        for _ in range(2 * SETTINGS.pretrain_epochs):
            learning.epoch()
    for left, right in zip(machines[0].parameters(), machines[1].parameters(), strict=True):
        torch.testing.assert_close(left, right)


class _Memory:
    def __init__(self) -> None:
        self.data: bytes | None = None

    def load(self) -> bytes | None:
        return self.data

    def save(self, data: bytes) -> None:
        self.data = data

    def clear(self) -> None:
        self.data = None

    def beside(self, name: str) -> _Memory:
        return self


@pytest.mark.parametrize("killed_at", [2, 4, 7, 12, 15])
def test_a_killed_learning_goes_on_to_the_same_bits(killed_at, monkeypatch) -> None:
    monkeypatch.setattr(keeping, "CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr(keeping, "CHECKPOINT_SHARE", 1e9)
    rows, memory, seen = drawn(150, 1), _Memory(), []

    def kill(epoch: int, epochs: int, news: dict[str, float]) -> None:
        if epoch == killed_at:
            raise KeyboardInterrupt

    def going_on(epoch: int, epochs: int, news: dict[str, float]) -> None:
        seen.append((epoch, epochs))

    with pytest.raises(KeyboardInterrupt):
        learn(fresh(), rows, SETTINGS, checkpoints=memory, on_epoch=kill)
    resumed, whole = fresh(), fresh()
    curve = learn(resumed, rows, SETTINGS, checkpoints=memory, on_epoch=going_on)
    assert seen[0] == (killed_at + 1, 18)
    assert curve == learn(whole, rows, SETTINGS)
    for left, right in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(left, right)


def test_a_checkpoint_of_something_else_is_not_gone_on_from(caplog) -> None:
    rows, memory = drawn(100, 1), _Memory()
    memory.data = b"not a checkpoint"
    whole, started = fresh(), fresh()
    learn(whole, rows, SETTINGS)
    learn(started, rows, SETTINGS, checkpoints=memory)
    memory.data = Learning(fresh(depth=2), rows, SETTINGS).packed()
    again = fresh()
    learn(again, rows, SETTINGS, checkpoints=memory)
    assert caplog.text.count("training starts anew") == 2
    for machine in (started, again):
        for left, right in zip(machine.parameters(), whole.parameters(), strict=True):
            assert torch.equal(left, right)


def test_a_machine_that_is_no_longer_finite_is_an_error_that_names_the_place() -> None:
    rows = drawn(100, 1)
    rows.visible[0][3, 1] = float("inf")
    rows.present[3, 0] = True
    with pytest.raises(StageError, match=r"no longer finite in epoch 1, batch \d of 2.*learning rate \(now 0.01\)"):
        learn(fresh(), rows, SETTINGS)
