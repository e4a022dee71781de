"""A Boltzmann machine of several pathways under one joint layer: energy, mean-field inference, Gibbs sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["gaussian", "binary"]
State = list[Tensor]
"""One tensor (b, units) per layer: values, or expected values."""

FIRST_WEIGHTS = 0.05
"""Standard deviation of the weights that learning begins with."""
SMALLEST_LOG_VARIANCE = -4.0
"""Gaussian visibles never get narrower than exp of this: columns that repeat others would end at 0."""


class Machine(nn.Module):
    """A deep Boltzmann machine with one pathway per modality and a joint layer on top of all.

    Layer `level * M + m` is that of modality m at a level: 0 are the visibles, 1 to `depth` the hidden layers of the
    pathway; the last layer is the joint one. Hidden units are binary. With bias b_l of layer l, weights W_e of the edge
    e from a lower layer to an upper one, and variances σ² of Gaussian visibles,

    E(x) = Σ_gaussian (v − b)²/(2σ²) − Σ_other b_l·x_l − Σ_e (x_below / σ²)ᵀ W_e x_above    (σ² = 1 where not Gaussian),

    so that a Gaussian visible given the layer above is N(b + W h, σ²), and any other unit is on with probability
    sigmoid(b + its inputs). Source: Srivastava and Salakhutdinov 2014, "Multimodal learning with deep Boltzmann
    machines"; variances are learned by their logarithms and in the form of Cho, Ilin and Raiko 2011, "Improved learning
    of Gaussian-Bernoulli restricted Boltzmann machines". Layers of odd level are independent given those of even
    level, and the other way round: both inference and sampling go by the two halves in turn.
    """

    def __init__(self, visible: Sequence[tuple[int, Kind]], hidden: Sequence[int], dim: int) -> None:
        super().__init__()
        self.modalities, self.depth = len(visible), len(hidden)
        self.kinds = [kind for _, kind in visible]
        sizes = [width for width, _ in visible] + [width for width in hidden for _ in visible] + [dim]
        self.joint = len(sizes) - 1
        self.levels = [min(layer // self.modalities, self.depth + 1) for layer in range(self.joint)] + [self.depth + 1]
        self.edges = [
            (layer, layer + self.modalities if self.levels[layer] < self.depth else self.joint)
            for layer in range(self.joint)
        ]
        """Edge e goes up from layer e: every layer but the joint one has exactly one above it."""
        self.biases = nn.ParameterList(torch.zeros(size) for size in sizes)
        self.weights = nn.ParameterList(
            torch.randn(sizes[below], sizes[above]) * FIRST_WEIGHTS for below, above in self.edges
        )
        self.log_variances = nn.ParameterList(
            torch.zeros(width if kind == "gaussian" else 0) for width, kind in visible
        )
        for layer, size in enumerate(sizes):
            self.register_buffer(f"offset_{layer}", torch.zeros(size), persistent=False)

    @property
    def offsets(self) -> list[Tensor]:
        """What is taken off the values of a layer where they meet weights, while learning; else zeros, see `centre`."""
        return [self.get_buffer(f"offset_{layer}") for layer in range(self.joint + 1)]

    def is_gaussian(self, layer: int) -> bool:
        return layer < self.modalities and self.kinds[layer] == "gaussian"

    def alternate(self, odd: bool) -> list[int]:
        """The layers of odd or of even level."""
        return [layer for layer, level in enumerate(self.levels) if level % 2 == odd]

    def drive(self, layer: int, state: State) -> Tensor:
        """What layer `layer` of these values puts into the one above it: (b, units above)."""
        values = state[layer] - self.get_buffer(f"offset_{layer}")
        if self.is_gaussian(layer):
            values = values * torch.exp(-self.log_variances[layer])
        driven: Tensor = values @ self.weights[layer]
        return driven

    def from_below(self, layer: int, state: State) -> list[Tensor]:
        """The inputs of a layer from each layer below it."""
        return [self.drive(below, state) for below, above in self.edges if above == layer]

    def from_above(self, layer: int, state: State) -> Tensor:
        """The input of a layer from the one above it, in the units of a Gaussian visible."""
        above = self.edges[layer][1]
        pulled: Tensor = (state[above] - self.get_buffer(f"offset_{above}")) @ self.weights[layer].T
        return pulled

    def total(self, layer: int, state: State) -> Tensor:
        """Bias and all inputs of a layer: the mean of Gaussian units, the log-odds of others."""
        found: Tensor = self.biases[layer]
        for part in self.from_below(layer, state):
            found = found + part
        return found if layer == self.joint else found + self.from_above(layer, state)

    def mean(self, layer: int, state: State) -> Tensor:
        """Expected values (b, units) of a layer given its neighbours."""
        total = self.total(layer, state)
        return total if self.is_gaussian(layer) else torch.sigmoid(total)

    def draw(self, layer: int, means: Tensor, random: torch.Generator) -> Tensor:
        """Values of a layer, drawn around its means."""
        if self.is_gaussian(layer):
            noise = torch.randn(means.shape, generator=random, device=means.device, dtype=means.dtype)
            return means + noise * torch.exp(self.log_variances[layer] / 2)
        return (torch.rand(means.shape, generator=random, device=means.device, dtype=means.dtype) < means).to(
            means.dtype
        )

    def energy(self, state: State, free: Sequence[Tensor]) -> Tensor:
        """Expected energy (b,) under independent units of these means.

        `free` (b,) per modality is 1 where its visibles are not known but have the model's own variance, else 0.
        """
        found = torch.zeros(len(state[0]), device=state[0].device, dtype=state[0].dtype)
        for layer, values in enumerate(state):
            if self.is_gaussian(layer):
                log_variance = self.log_variances[layer]
                squares = (values - self.biases[layer]).square() * torch.exp(-log_variance)
                spread = torch.exp(log_variance.detach() - log_variance).sum()
                found = found + (squares.sum(dim=1) + free[layer] * spread) / 2
            else:
                found = found - values @ self.biases[layer]
            if layer != self.joint:
                found = found - self.shared(layer, state)
        return found

    def shared(self, layer: int, state: State) -> Tensor:
        """What −E has (b,) of a layer's values together with those of the layer above it."""
        above = self.edges[layer][1]
        return (self.drive(layer, state) * (state[above] - self.get_buffer(f"offset_{above}"))).sum(dim=1)

    def centre(self, offsets: Sequence[Tensor]) -> None:
        """Take these offsets and move biases so that the machine stays what it is.

        Gradients are better conditioned where units are counted from their means (Montavon and Müller 2012, "Deep
        Boltzmann machines and the centering trick"). Zeros give the machine without offsets, for which log Z holds.
        """
        with torch.no_grad():
            moved = [new - old for new, old in zip(offsets, self.offsets, strict=True)]
            for below, above in self.edges:
                self.biases[below] += moved[above] @ self.weights[below].T
                scale = torch.exp(-self.log_variances[below]) if self.is_gaussian(below) else 1.0
                self.biases[above] += (moved[below] * scale) @ self.weights[below]
            for old, new in zip(self.offsets, offsets, strict=True):
                old.copy_(new)

    # Inference

    def began(self, visible: Sequence[Tensor], present: Tensor, random: torch.Generator | None = None) -> State:
        """Where inference begins: up from what is present, then down to what is not; with `random`, drawn on the way.

        A layer that has not heard of the one above takes what comes from below twice, as it was pretrained
        (Salakhutdinov and Hinton 2009, "Deep Boltzmann machines"), and the joint layer makes up for pathways that are
        absent.
        """
        there = [present[:, [m]].to(visible[0].dtype) for m in range(self.modalities)]
        state: State = [torch.where(there[m] > 0, values, 0) for m, values in enumerate(visible)]
        for layer in range(self.modalities, self.joint):
            state.append(torch.sigmoid(self.biases[layer] + 2 * self.from_below(layer, state)[0]))
        parts = self.from_below(self.joint, state)
        heard = sum(part * there[m] for m, part in enumerate(parts))
        share = self.modalities / present.sum(dim=1, keepdim=True).clamp(min=1)
        joint = torch.sigmoid(self.biases[self.joint] + share * heard)
        state.append(joint if random is None else self.draw(self.joint, joint, random))
        for layer in reversed(range(self.joint)):
            known = there[layer % self.modalities] > 0
            total = self.biases[layer] + self.from_above(layer, state) * (1 if self.levels[layer] == 0 else 2)
            down = total if self.is_gaussian(layer) else torch.sigmoid(total)
            down = down if random is None else self.draw(layer, down, random)
            state[layer] = torch.where(known, state[layer], down)
        return state

    def mean_field(self, visible: Sequence[Tensor], present: Tensor, steps: int) -> State:
        """Means of all layers given the visibles (b, d) that are present (b, M), by `steps` rounds of updates.

        Absent visibles are inferred as the hidden layers are, and their values are not read.
        """
        state = self.began(visible, present)
        for _ in range(steps):
            for odd in (True, False):
                for layer in self.alternate(odd):
                    self._set(state, layer, self.mean(layer, state), visible, present)
        return state

    def sweep(
        self, state: State, random: torch.Generator, visible: Sequence[Tensor] = (), present: Tensor | None = None
    ) -> tuple[State, State]:
        """One round of Gibbs sampling, odd levels first: the new state, and the same with means for even levels.

        Visibles that are present stay as they are; without `present` nothing is.
        """
        drawn = list(state)
        for layer in self.alternate(odd=True):
            drawn[layer] = self.draw(layer, self.mean(layer, drawn), random)
        means = list(drawn)
        for layer in self.alternate(odd=False):
            expected = self.mean(layer, drawn)
            self._set(means, layer, expected, visible, present)
            self._set(drawn, layer, self.draw(layer, expected, random), visible, present)
        return drawn, means

    def _set(self, state: State, layer: int, values: Tensor, visible: Sequence[Tensor], present: Tensor | None) -> None:
        if layer < self.modalities and present is not None:
            values = torch.where(present[:, [layer]], visible[layer], values)
        state[layer] = values

    def bound(self, state: State, present: Tensor) -> Tensor:
        """Lower bound (b,) on log Σ_h exp(−E) of the present visibles: −E plus the entropy of means `state`."""
        free = [(~present[:, m]).to(state[0].dtype) for m in range(self.modalities)]
        found = -self.energy(state, free)
        for layer, means in enumerate(state):
            if self.is_gaussian(layer):
                each = (self.log_variances[layer] + 1 + torch.log(torch.tensor(2 * torch.pi))).sum() / 2
                found = found + free[layer] * each
            else:
                # H(p) of p = sigmoid(a) is softplus(a) − p a; written in p, with 0 log 0 = 0.
                entropy = -(torch.xlogy(means, means) + torch.xlogy(1 - means, 1 - means)).sum(dim=1)
                found = found + (entropy if layer >= self.modalities else free[layer] * entropy)
        return found
