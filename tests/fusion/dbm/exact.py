"""Small Boltzmann machines by brute force: all states of the binary units, Gaussian visibles in closed form."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from mmcore.fusion.dbm.machine import Machine


def random_machine(kinds: tuple[str, ...] = ("gaussian", "binary"), depth: int = 1, strength: float = 0.7) -> Machine:
    """Pathways of 3 visibles and 2 hidden units per layer under 3 joint units, in float64."""
    machine = Machine([(3, kind) for kind in kinds], [2] * depth, 3).double()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in machine.parameters():
            parameter.copy_(strength * torch.randn(parameter.shape, generator=random, dtype=torch.float64))
    return machine


def binary_layers(machine: Machine) -> list[int]:
    return [layer for layer in range(machine.joint + 1) if not machine.is_gaussian(layer)]


def all_states(machine: Machine) -> list[Tensor]:
    """Every setting of the binary units, Gaussian visibles at their means given those."""
    layers = binary_layers(machine)
    sizes = [len(machine.biases[layer]) for layer in layers]
    assert sum(sizes) <= 20
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=sum(sizes))), dtype=torch.float64)
    state = [torch.zeros(len(every), len(bias), dtype=torch.float64) for bias in machine.biases]
    for layer, values in zip(layers, every.split(sizes, dim=1), strict=True):
        state[layer] = values
    for m in range(machine.modalities):
        if machine.is_gaussian(m):
            state[m] = machine.mean(m, state)
    return state


def log_weights(machine: Machine, state: list[Tensor], given: set[int] = frozenset()) -> Tensor:
    """log of each state's unnormalised probability, written out unit by unit; Gaussians not `given` integrated."""
    total = torch.zeros(len(state[0]), dtype=torch.float64)
    for layer, values in enumerate(state):
        if not machine.is_gaussian(layer):
            total = total + (values * machine.biases[layer]).sum(dim=1)
            if layer != machine.joint:
                total = total + torch.einsum(
                    "bi,ij,bj->b", values, machine.weights[layer], state[machine.edges[layer][1]]
                )
            continue
        variance, bias = machine.log_variances[layer].exp(), machine.biases[layer]
        pull = state[machine.edges[layer][1]] @ machine.weights[layer].T
        if layer in given:
            total = total + ((-((values - bias) ** 2) / 2 + values * pull) / variance).sum(dim=1)
        else:
            # ∫ exp(−(v−b)²/2σ² + v s/σ²) dv = √(2πσ²) exp((b s + s²/2)/σ²)
            total = total + (torch.log(2 * math.pi * variance) / 2 + (bias * pull + pull**2 / 2) / variance).sum(dim=1)
    return total


def log_z(machine: Machine) -> Tensor:
    return torch.logsumexp(log_weights(machine, all_states(machine)), dim=0)


def log_sum_given(machine: Machine, visible: list[Tensor], present: list[bool]) -> Tensor:
    """log Σ exp(−E) over all states in which the present visibles have these values: (b,)."""
    every, found = all_states(machine), []
    for row in range(len(visible[0])):
        state = list(every)
        keep = torch.ones(len(every[0]), dtype=torch.bool)
        for m, there in enumerate(present):
            if there and machine.is_gaussian(m):
                state[m] = visible[m][row].expand(len(keep), -1)
            elif there:
                keep &= (every[m] == visible[m][row]).all(dim=1)
        given = {m for m, there in enumerate(present) if there}
        found.append(torch.logsumexp(log_weights(machine, state, given)[keep], dim=0))
    return torch.stack(found)


def moments(machine: Machine) -> tuple[list[Tensor], list[Tensor]]:
    """E[x] of every layer, and E[x_below x_aboveᵀ] of every edge."""
    state = all_states(machine)
    shares = torch.softmax(log_weights(machine, state), dim=0)
    means = [shares @ values for values in state]
    # A Gaussian's mean given the rest stands for its values: what is averaged is linear in them.
    pairs = [state[below].T @ (shares[:, None] * state[above]) for below, above in machine.edges]
    return means, pairs
