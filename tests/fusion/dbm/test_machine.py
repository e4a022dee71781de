"""The Boltzmann machine against all of its states: energy, sampling, inference, and the gradient of the likelihood."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from mmcore.fusion.dbm.machine import Machine
from tests.fusion.dbm.exact import (
    all_states,
    log_sum_given,
    log_weights,
    log_z,
    moments,
    random_machine,
)

KINDS = [("gaussian", "binary"), ("binary", "binary"), ("gaussian", "gaussian")]
MACHINES = pytest.mark.parametrize(("kinds", "depth"), [(kinds, depth) for kinds in KINDS for depth in (1, 2)])


def visibles(machine: Machine, rows: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    return [
        torch.randn(rows, 3, generator=random, dtype=torch.float64)
        if machine.is_gaussian(m)
        else (torch.rand(rows, 3, generator=random) < 0.5).double()
        for m in range(machine.modalities)
    ]


def known(machine: Machine, rows: int) -> list[torch.Tensor]:
    return [torch.zeros(rows, dtype=torch.float64)] * machine.modalities


@MACHINES
def test_the_energy_is_the_formula(kinds, depth) -> None:
    machine = random_machine(kinds, depth)
    with torch.no_grad():
        state = [values[:500] for values in all_states(machine)]
        rows = visibles(machine, len(state[0]))
        for m in range(machine.modalities):
            state[m] = rows[m] if machine.is_gaussian(m) else state[m]
        written_out = log_weights(machine, state, given=set(range(machine.modalities)))
        torch.testing.assert_close(-machine.energy(state, known(machine, len(state[0]))), written_out)


@MACHINES
def test_samples_have_the_moments_of_all_states(kinds, depth) -> None:
    machine = random_machine(kinds, depth, strength=0.5)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        means, pairs = moments(machine)
        state = [
            machine.draw(layer, torch.full((4000, len(bias)), 0.5).double(), random)
            for layer, bias in enumerate(machine.biases)
        ]
        for _ in range(50):
            state, _ = machine.sweep(state, random)
        found = [torch.zeros_like(mean) for mean in means]
        found_pairs = [torch.zeros_like(pair) for pair in pairs]
        for _ in range(50):
            state, _ = machine.sweep(state, random)
            for total, values in zip(found, state, strict=True):
                total.add_(values.mean(dim=0) / 50)
            for total, (below, above) in zip(found_pairs, machine.edges, strict=True):
                total.add_(state[below].T @ state[above] / len(state[0]) / 50)
    for got, expected in zip(found + found_pairs, means + pairs, strict=True):
        torch.testing.assert_close(got, expected, atol=0.02, rtol=0.01)


@MACHINES
def test_conditional_samples_have_the_moments_of_the_states_that_agree(kinds, depth) -> None:
    machine = random_machine(kinds, depth, strength=0.5)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        given = [values.repeat(4000, 1) for values in visibles(machine, 1)]
        present = torch.tensor([[True, False]]).repeat(4000, 1)
        every = all_states(machine)
        if machine.is_gaussian(0):
            every[0] = given[0][:1].expand(len(every[0]), -1)
        shares = log_weights(machine, every, {0})
        if not machine.is_gaussian(0):
            shares = shares.masked_fill((every[0] != given[0][0]).any(dim=1), -torch.inf)
        expected = torch.softmax(shares, dim=0) @ every[1]
        state = machine.mean_field(given, present, 5)
        state = [machine.draw(layer, values, random) for layer, values in enumerate(state)]
        state[0] = given[0]
        found = torch.zeros_like(expected)
        for step in range(80):
            state, means = machine.sweep(state, random, given, present)
            assert torch.equal(state[0], given[0])
            found += means[1].mean(dim=0) / 40 if step >= 40 else 0.0
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.01)


@MACHINES
def test_mean_field_bounds_the_sum_from_below_and_each_round_raises_the_bound(kinds, depth) -> None:
    machine = random_machine(kinds, depth)
    with torch.no_grad():
        rows = visibles(machine, 6)
        for pattern in ([True, True], [True, False], [False, True]):
            present = torch.tensor([pattern]).repeat(6, 1)
            bounds = [machine.bound(machine.mean_field(rows, present, steps), present) for steps in range(1, 12)]
            exact = log_sum_given(machine, rows, pattern)
            assert (bounds[-1] <= exact + 1e-9).all()
            assert (exact - bounds[-1] < 1.0).all()
            for before, after in pairwise(bounds):
                assert (after >= before - 1e-9).all()


def test_inference_does_not_read_what_is_absent() -> None:
    machine = random_machine()
    rows, present = visibles(machine, 4), torch.tensor([[True, False]] * 4)
    other = [rows[0], torch.full_like(rows[1], float("nan"))]
    with torch.no_grad():
        for left, right in zip(
            machine.mean_field(rows, present, 8), machine.mean_field(other, present, 8), strict=True
        ):
            assert torch.equal(left, right)


@MACHINES
def test_offsets_leave_the_machine_as_it_is(kinds, depth) -> None:
    machine = random_machine(kinds, depth)
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        state = [values[::7] for values in all_states(machine)]
        before = machine.energy(state, known(machine, len(state[0])))
        totals = [machine.total(layer, state) for layer in range(machine.joint + 1)]
        machine.centre(
            [
                torch.zeros(3) if machine.is_gaussian(layer) else torch.rand(len(bias), generator=random)
                for layer, bias in enumerate(machine.biases)
            ]
        )
        shift = machine.energy(state, known(machine, len(state[0]))) - before
        torch.testing.assert_close(shift, shift[:1].expand_as(shift))
        for layer, expected in enumerate(totals):
            torch.testing.assert_close(machine.total(layer, state), expected)


@MACHINES
def test_the_gradient_is_that_of_the_exact_likelihood(kinds, depth) -> None:
    machine = random_machine(kinds, depth)
    rows = visibles(machine, 2)

    def likelihood() -> torch.Tensor:
        return log_sum_given(machine, rows, [True, True]).mean() - log_z(machine)

    # What learning descends, with exact expectations in place of mean-field and chains.
    every = all_states(machine)
    every = [values.detach() for values in every]
    loss = torch.zeros((), dtype=torch.float64)
    for row in range(2):
        state = list(every)
        keep = torch.ones(len(every[0]), dtype=torch.bool)
        for m in range(machine.modalities):
            if machine.is_gaussian(m):
                state[m] = rows[m][row].expand(len(keep), -1)
            else:
                keep &= (every[m] == rows[m][row]).all(dim=1)
        state = [values[keep] for values in state]
        shares = torch.softmax(log_weights(machine, state, {0, 1}), dim=0).detach()
        loss = loss + (shares * machine.energy(state, known(machine, len(shares)))).sum() / 2
    shares = torch.softmax(log_weights(machine, every), dim=0).detach()
    free = [torch.ones(len(shares), dtype=torch.float64)] * machine.modalities
    loss = loss - (shares * machine.energy(every, free)).sum()
    loss.backward()
    step = 1e-5
    for name, parameter in machine.named_parameters():
        for index in range(0, parameter.numel(), 2):
            with torch.no_grad():
                flat = parameter.view(-1)
                kept = flat[index].item()
                flat[index] = kept + step
                up = likelihood()
                flat[index] = kept - step
                down = likelihood()
                flat[index] = kept
            slope = (up - down) / (2 * step)
            assert -parameter.grad.view(-1)[index].item() == pytest.approx(slope.item(), abs=1e-6), name
