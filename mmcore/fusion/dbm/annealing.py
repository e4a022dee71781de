"""Annealed importance sampling: how large the sum over all states of a Boltzmann machine is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mmcore.fusion.dbm.machine import Machine, State

RAREST = 0.02
"""Units of the base are on in at least this share of states and off in as many, so that it covers the machine."""
CHAINS_OF_BASE = 200
SWEEPS_OF_BASE = 200


@dataclass(frozen=True)
class Base:
    """Independent units to begin annealing from: natural parameters per layer, (1, units) or (b, units) each."""

    linear: list[Tensor]
    """Log-odds of binary units; mean / variance of Gaussian ones."""
    precision: dict[int, Tensor]
    """1 / variance of Gaussian visibles."""

    @classmethod
    def around(cls, machine: Machine, means: State, variances: dict[int, Tensor]) -> Base:
        """With these means, and of Gaussian visibles these variances."""
        linear = [
            means[layer] / variances[layer]
            if machine.is_gaussian(layer)
            else torch.logit(means[layer].clamp(RAREST, 1 - RAREST))
            for layer in range(machine.joint + 1)
        ]
        return cls(linear, {layer: 1 / variance for layer, variance in variances.items()})


def sampled_base(machine: Machine, random: torch.Generator) -> Base:
    """The base with the means that Gibbs sampling of the machine itself finds."""
    state: State = [
        machine.draw(layer, torch.sigmoid(bias).expand(CHAINS_OF_BASE, -1), random)
        for layer, bias in enumerate(machine.biases)
    ]
    totals = [torch.zeros_like(bias) for bias in machine.biases]
    squares = {m: torch.zeros_like(machine.biases[m]) for m in range(machine.modalities) if machine.is_gaussian(m)}
    for step in range(SWEEPS_OF_BASE):
        state, _ = machine.sweep(state, random)
        if step >= SWEEPS_OF_BASE // 2:
            for layer, values in enumerate(state):
                totals[layer] += values.mean(dim=0)
            for layer, square in squares.items():
                square.add_(state[layer].square().mean(dim=0))
    kept = SWEEPS_OF_BASE - SWEEPS_OF_BASE // 2
    means = [(total / kept)[None] for total in totals]
    return Base.around(machine, means, {m: (square / kept)[None] - means[m].square() for m, square in squares.items()})


def inferred_base(machine: Machine, visible: Sequence[Tensor], present: Tensor, steps: int) -> Base:
    """The base that mean-field inference of some rows finds: one per row."""
    means = machine.mean_field(visible, present, steps)
    variances = {
        m: torch.exp(machine.log_variances[m]).expand_as(means[m])
        for m in range(machine.modalities)
        if machine.is_gaussian(m)
    }
    return Base.around(machine, means, variances)


def log_partition(  # noqa: PLR0917
    machine: Machine,
    base: Base,
    chains: int,
    temperatures: int,
    random: torch.Generator,
    visible: Sequence[Tensor] = (),
    present: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Log Z and its standard error, (1,) each; with rows of visibles, log Σ exp(−E) over all that is not present, (b,).

    Annealed importance sampling (Neal 2001; Salakhutdinov and Murray 2008, "On the quantitative analysis of deep belief
    networks"): `chains` chains per row go from `base` to the machine over `temperatures` steps of
    E_β = (1 − β) E_base + β E, with one round of Gibbs sampling each; the layers of even level are summed over exactly.
    The error follows from the spread of the weights, so few chains that all miss a mode look surer than they are.
    """
    path = _Path(machine, base, chains, visible, present)
    state = path.started(random)
    log_weights = torch.zeros(path.rows * chains, dtype=state[0].dtype, device=state[0].device)
    betas = torch.linspace(0, 1, temperatures + 1, dtype=torch.float64).tolist()
    for before, after in pairwise(betas):
        log_weights += path.log_sum(state, after) - path.log_sum(state, before)
        state = path.moved(state, after, random)
    weights = log_weights.reshape(path.rows, chains)
    top = weights.max(dim=1, keepdim=True).values
    shares = torch.exp(weights - top)
    mean = shares.mean(dim=1)
    error = shares.std(dim=1) / mean / math.sqrt(chains) if chains > 1 else torch.full_like(mean, torch.inf)
    return path.log_base() + top[:, 0] + torch.log(mean), error


class _Path:
    """The machines between the base and the one asked for. Rows come one after another, each with all its chains."""

    def __init__(
        self, machine: Machine, base: Base, chains: int, visible: Sequence[Tensor], present: Tensor | None
    ) -> None:
        self.machine, self.chains = machine, chains
        self.rows = 1 if present is None else len(present)

        def spread(values: Tensor) -> Tensor:
            return values.expand(self.rows, -1).repeat_interleave(chains, dim=0)

        self.linear = [spread(values) for values in base.linear]
        self.precision = {layer: spread(values) for layer, values in base.precision.items()}
        nothing = torch.zeros(self.rows, machine.modalities, dtype=torch.bool, device=self.linear[0].device)
        self.present = spread(nothing if present is None else present)
        self.visible = [spread(values) for values in visible] or [torch.zeros_like(v) for v in self.linear]
        self.odd, self.even = machine.alternate(odd=True), machine.alternate(odd=False)

    def started(self, random: torch.Generator) -> State:
        """A state of the base."""
        state = [torch.zeros_like(values) for values in self.linear]
        for layer in (*self.odd, *self.even):
            self._draw(state, layer, 0.0, random)
        return state

    def moved(self, state: State, beta: float, random: torch.Generator) -> State:
        """One round of Gibbs sampling of the machine at β."""
        for layer in (*self.even, *self.odd):
            self._draw(state, layer, beta, random)
        return state

    def log_sum(self, state: State, beta: float) -> Tensor:
        """Log Σ_even exp(−E_β) of the odd layers' values: (rows · chains,)."""
        found = torch.zeros(len(state[0]), dtype=state[0].dtype, device=state[0].device)
        for layer in self.odd:
            # What the odd layers have between them and the even ones is counted with the even ones.
            own = (1 - beta) * self.linear[layer] + beta * self.machine.biases[layer]
            found = found + (state[layer] * own).sum(dim=1)
        for layer in self.even:
            known = self.present[:, layer] if layer < self.machine.modalities else None
            summed = self._summed(layer, state, beta)
            found = found + (summed if known is None else torch.where(known, self._given(layer, state, beta), summed))
        return found

    def log_base(self) -> Tensor:
        """Log Z of the base: (rows,)."""
        state = [torch.zeros_like(values) for values in self.linear]
        odd = sum(softplus(self.linear[layer]).sum(dim=1) for layer in self.odd)
        return (odd + self.log_sum(state, 0.0))[:: self.chains]

    def _draw(self, state: State, layer: int, beta: float, random: torch.Generator) -> None:
        total = self._total(layer, state, beta)
        if self.machine.is_gaussian(layer):
            noise = torch.randn(total.shape, generator=random, dtype=total.dtype, device=total.device)
            precision = self._precision(layer, beta)
            values = total / precision + noise / precision.sqrt()
        else:
            chance = torch.rand(total.shape, generator=random, dtype=total.dtype, device=total.device)
            values = (chance < torch.sigmoid(total)).to(total.dtype)
        if layer < self.machine.modalities:
            values = torch.where(self.present[:, [layer]], self.visible[layer], values)
        state[layer] = values

    def _total(self, layer: int, state: State, beta: float) -> Tensor:
        """The linear natural parameter of a layer at β: log-odds, or mean · precision."""
        scale = torch.exp(-self.machine.log_variances[layer]) if self.machine.is_gaussian(layer) else 1.0
        found: Tensor = (1 - beta) * self.linear[layer] + beta * self.machine.total(layer, state) * scale
        return found

    def _precision(self, layer: int, beta: float) -> Tensor:
        found: Tensor = (1 - beta) * self.precision[layer] + beta * torch.exp(-self.machine.log_variances[layer])
        return found

    def _summed(self, layer: int, state: State, beta: float) -> Tensor:
        """Log Σ or ∫ over an even layer of exp of its part of −E_β."""
        total = self._total(layer, state, beta)
        if not self.machine.is_gaussian(layer):
            return softplus(total).sum(dim=1)
        precision, bias = self._precision(layer, beta), self.machine.biases[layer]
        constant = (1 - beta) * self.linear[layer].square() / self.precision[layer]
        constant = constant + beta * bias.square() * torch.exp(-self.machine.log_variances[layer])
        whole: Tensor = torch.log(2 * math.pi / precision) + total.square() / precision - constant
        return whole.sum(dim=1) / 2

    def _given(self, layer: int, state: State, beta: float) -> Tensor:
        """A present visible's part of −E_β: its own whole, what it has with the layer above times β."""
        values, bias = self.visible[layer], self.machine.biases[layer]
        inputs = beta * self.machine.from_above(layer, state)
        if not self.machine.is_gaussian(layer):
            each: Tensor = values * (bias + inputs)
        else:
            inverse = torch.exp(-self.machine.log_variances[layer])
            each = (values * inputs - (values - bias).square() / 2) * inverse
        return each.sum(dim=1)
