"""Multimodal variational autoencoders: products, mixtures and mixtures of products of one posterior per modality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from mmcore.fusion.autoencoder import DROPOUT
from mmcore.fusion.base import AnyViews, Columns, any_present
from mmcore.fusion.data import Array, Views
from mmcore.fusion.neural import FusionNetwork, NeuralFusionModel, predicting, present_of
from mmcore.fusion.scaling import Scaling
from mmcore.fusion.targets import Task

Posterior = Literal["product", "mixture", "product-mixture"]
Gaussian = tuple[Tensor, Tensor]
"""Means and log variances of independent normal variables, (..., k) each."""

LOG_VARIANCES = (-8.0, 8.0)
"""Bounds of the logarithms of variances of codes."""
SMALLEST_NOISE = -6.0
"""Lower bound of the logarithms of decoders' variances: columns that are constant would end at minus infinity."""
DRAWN_AT_ONCE = 2**19
"""Codes at a time in importance sampling: rows times samples."""


class VaeFusion(NeuralFusionModel):
    """Variational autoencoder with one encoder and one decoder per modality, and a linear head on the code.

    p(z) = N(0, I), p(x_m | z) = N(g_m(z), diag s_m²) with s_m learned, and q_m(z | x_m) = N(μ_m(x_m), diag σ_m²(x_m)).
    What the present modalities P say together, q(z | x_P), is by `posterior`

    - `product`: N(0, I) · Π_{m∈P} q_m, normalised: its precision is 1 + Σ 1/σ_m², its mean Σ μ_m/σ_m² over that. The
      loss is −ELBO of P, of each m ∈ P alone and of one random subset of P (Wu and Goodman 2018, "Multimodal
      generative models for scalable weakly-supervised learning", MVAE);
    - `mixture`: Σ_{m∈P} q_m / |P|. The loss is −Σ_{m∈P} E_{q_m}[log p(z) + Σ_n log p(x_n | z) − log q(z | x_P)] / |P|
      (Shi et al. 2019, "Variational mixture-of-experts autoencoders", MMVAE, with Gaussians and one sample);
    - `product-mixture`: the mean over all subsets S of P of their Π_{m∈S} q_m, normalised. The loss is that of a random
      S, −E_{q_S}[Σ_n log p(x_n | z)] + KL(q_S ‖ p(z)) (Sutter et al. 2021, "Generalized multimodal ELBO", MoPoE).

    The loss of one row is −log softmax(head(E[z]))[y] + λ · (that loss, KL terms times β) / Σ_{m∈P} d_m. A row's point
    is the mean of q(z | x_P), for `product-mixture` that of the product of all of P. x_m is the scaled view.
    """

    def __init__(
        self,
        *,
        posterior: Posterior = "product",
        dim: int = 32,
        hidden: int = 128,
        generation: float = 1.0,
        beta: float = 1.0,
        epochs: int = 100,
        patience: int = 20,
        batch_size: int = 128,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-2,
        modality_dropout: float = 0.5,
        scaling: Scaling = "standard",
        modalities: Sequence[str] | None = None,
        random_state: int | None = 0,
        task: Task = "classes",
        columns: Columns | None = None,
    ) -> None:
        self.posterior = posterior
        self.dim = dim
        self.hidden = hidden
        self.generation = generation
        self.beta = beta
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.modality_dropout = modality_dropout
        self.scaling = scaling
        self.modalities = modalities
        self.random_state = random_state
        self.task = task
        self.columns = columns

    def fill_in(self, X: AnyViews) -> dict[str, Array]:
        """Every modality: as given where present, else decoded from the code of what is; (n, d) each.

        In the units of the views (l2: of the scaled views); NaN in rows with nothing present.
        """
        views = self._prepared(X)
        given = (self._checked(self._views(X)) if self.scaling != "l2" else views).read()
        known = any_present(views)[:, None]
        with predicting():
            code = torch.as_tensor(self._fused(views))
            decoded = [decoder(code).double().numpy() for decoder in self._network_parts().decoders]
        filled = {}
        for name, values in zip(self.modalities_, decoded, strict=True):
            found = np.where(known, self.scaler_.undone(name, values), np.nan)
            found[given[name].present] = given[name].values[given[name].present]
            filled[name] = found
        return filled

    def log_likelihood(self, X: AnyViews, *, samples: int = 1000, seed: int = 0) -> Array:
        """Log p (n,) of what each row has, in nats, as density of the scaled views; 0 where nothing is present.

        Estimated by importance sampling: log mean of p(z) Π_m p(x_m | z) / q(z | x_P) over `samples` codes of
        q(z | x_P), a lower bound on average (Burda et al. 2016) that is tight for many samples.
        """
        views = self._prepared(X).read()
        network = self._network_parts()
        present = torch.as_tensor(present_of(views))
        inputs = [torch.as_tensor(view.values, dtype=torch.float32) for _, view in views.items()]
        known = present.any(dim=1)
        rows = max(1, DRAWN_AT_ONCE // (samples * self.dim))
        found = torch.zeros(len(present))
        with predicting(), torch.random.fork_rng([]):
            torch.manual_seed(seed)
            for part in torch.split(torch.nonzero(known)[:, 0], rows):
                found[part] = network.log_likelihood([values[part] for values in inputs], present[part], samples)
        return found.double().numpy()

    def _network_parts(self) -> VaeNetwork:
        assert isinstance(self.network_, VaeNetwork)
        return self.network_

    def _project(self, name: str, values: Array) -> Array:
        own = torch.as_tensor(self._encoded(name, values))
        alone = torch.tensor([other == name for other in self.modalities_]).expand(len(own), -1)
        with predicting():
            points = [own if other == name else torch.zeros_like(own) for other in self.modalities_]
            return np.asarray(self._network_parts().fused(points, alone).numpy())

    def _fused(self, views: Views) -> Array:
        points = [torch.as_tensor(self._encoded(name, view.values)) for name, view in views.items()]
        with predicting():
            return np.asarray(self._network_parts().fused(points, torch.as_tensor(present_of(views))).numpy())

    def _encoded(self, name: str, values: Array) -> Array:
        """Means and log variances (n, 2k) of one modality's own posterior."""
        return super()._project(name, values)

    def _network(self) -> VaeNetwork:
        return VaeNetwork(
            self._widths(),
            self.target_.n_outputs,
            self.dim,
            self.hidden,
            posterior=self.posterior,
            generation=self.generation,
            beta=self.beta,
        )


class VaeNetwork(FusionNetwork):
    """The networks of `VaeFusion`: encoders to means beside log variances (b, 2k), decoders, head."""

    decoders: nn.ModuleList

    def __init__(
        self,
        widths: Sequence[int],
        outputs: int,
        dim: int,
        hidden: int,
        *,
        posterior: Posterior,
        generation: float = 1.0,
        beta: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(
            nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, 2 * dim))
            for width in widths
        )
        self.decoders = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, width)) for width in widths
        )
        self.noise = nn.ParameterList(torch.zeros(width) for width in widths)
        """log s_m² of each column."""
        self.head = nn.Linear(dim, outputs)
        self.posterior, self.generation, self.beta = posterior, generation, beta

    def fused(self, points: Sequence[Tensor], present: Tensor) -> Tensor:
        """The mean of q(z | x_P): (b, k)."""
        experts = _experts(points)
        if self.posterior == "mixture":
            means, there = experts[0], present.unsqueeze(2)
            return torch.where(there, means, 0).sum(dim=1) / there.sum(dim=1).clamp(min=1)
        return product(experts, present, prior=self.posterior == "product")[0]

    def extra_loss(self, inputs: Sequence[Tensor], present: Tensor, fused: Tensor, weights: Tensor) -> Tensor:
        # Whatever stands in the place of an absent view is not read, not even NaN.
        inputs = [torch.where(present[:, [m]], values, 0) for m, values in enumerate(inputs)]
        experts = _experts([encoder(values) for encoder, values in zip(self.encoders, inputs, strict=True)])
        widths = torch.tensor([values.shape[1] for values in inputs], device=present.device)
        each = self.negative_bound(inputs, experts, present) / (present * widths).sum(dim=1)
        return self.generation * (each * weights).mean()

    def negative_bound(self, inputs: Sequence[Tensor], experts: Gaussian, present: Tensor) -> Tensor:
        """The loss (b,) of the class's docstring in nats, from one sample of each posterior in it."""
        if self.posterior == "mixture":
            return self._mixture_bound(inputs, experts, present)
        if self.posterior == "product-mixture":
            return self._subset_bound(inputs, experts, random_subsets(present), present)
        total = self._subset_bound(inputs, experts, present, present)
        subset = random_subsets(present)
        total = total + self._subset_bound(inputs, experts, subset, subset)
        for m in range(present.shape[1]):
            alone = torch.zeros_like(present)
            alone[:, m] = present[:, m]
            total = total + torch.where(present[:, m], self._subset_bound(inputs, experts, alone, alone), 0)
        return total

    def log_joint(self, inputs: Sequence[Tensor], code: Tensor, present: Tensor) -> Tensor:
        """Σ_m log p(x_m | z) of the present modalities: (b,) of codes (b, k), or (s, b) of (s, b, k)."""
        found = torch.zeros(code.shape[:-1], device=code.device, dtype=code.dtype)
        for m, values in enumerate(inputs):
            log_variance = self.noise[m].clamp(min=SMALLEST_NOISE)
            each = log_normal(values, (self.decoders[m](code), log_variance))
            found = found + torch.where(present[:, m], each, 0)
        return found

    def log_likelihood(self, inputs: Sequence[Tensor], present: Tensor, samples: int) -> Tensor:
        """Log p(x_P) (b,) by importance sampling from q(z | x_P)."""
        inputs = [torch.where(present[:, [m]], values, 0) for m, values in enumerate(inputs)]
        experts = _experts([encoder(values) for encoder, values in zip(self.encoders, inputs, strict=True)])
        subsets, shares = self._components(present)
        chosen = torch.multinomial(shares, samples, replacement=True).T
        means, log_variances = self._component_gaussians(experts, subsets)
        picked = chosen[:, :, None].expand(-1, -1, means.shape[-1])
        mean, log_variance = (torch.gather(values, 0, picked) for values in (means, log_variances))
        code = mean + torch.randn_like(mean) * torch.exp(log_variance / 2)
        log_q = torch.stack(
            [log_normal(code, (means[i], log_variances[i])) + torch.log(shares[:, i]) for i in range(len(subsets))]
        ).logsumexp(dim=0)
        log_p = self.log_joint(inputs, code, present) + log_normal(code, _standard(code))
        return torch.logsumexp(log_p - log_q, dim=0) - math.log(samples)

    def _components(self, present: Tensor) -> tuple[Tensor, Tensor]:
        """Which modalities (C, b, M) each component of q(z | x_P) multiplies, and the components' shares (b, C)."""
        if self.posterior == "mixture":
            alone = torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
            subsets = present & alone[:, None, :]
        else:
            # Of a mixture of products the largest one is taken: it is where `fused` is, and wide enough to sample from.
            subsets = present[None]
        there = subsets.any(dim=2).T.to(torch.get_default_dtype())
        return subsets, there / there.sum(dim=1, keepdim=True)

    def _component_gaussians(self, experts: Gaussian, subsets: Tensor) -> Gaussian:
        found = [product(experts, subset, prior=self.posterior == "product") for subset in subsets]
        return torch.stack([mean for mean, _ in found]), torch.stack([log_variance for _, log_variance in found])

    def _subset_bound(self, inputs: Sequence[Tensor], experts: Gaussian, known: Tensor, asked: Tensor) -> Tensor:
        """−E_{q(z | x_known)}[log p(x_asked | z)] + β KL(q(z | x_known) ‖ p(z)): (b,)."""
        mean, log_variance = product(experts, known, prior=self.posterior == "product")
        code = mean + torch.randn_like(mean) * torch.exp(log_variance / 2)
        return -self.log_joint(inputs, code, asked) + self.beta * divergence((mean, log_variance))

    def _mixture_bound(self, inputs: Sequence[Tensor], experts: Gaussian, present: Tensor) -> Tensor:
        means, log_variances = experts
        total = torch.zeros(len(present), device=present.device)
        for m in range(present.shape[1]):
            code = means[:, m] + torch.randn_like(means[:, m]) * torch.exp(log_variances[:, m] / 2)
            each = log_normal(code[:, None], experts).masked_fill(~present, -torch.inf)
            counts = present.sum(dim=1).clamp(min=1)
            log_q = torch.logsumexp(torch.where(present.any(dim=1, keepdim=True), each, 0), dim=1) - torch.log(counts)
            excess = log_q - log_normal(code, _standard(code))
            bound = -self.log_joint(inputs, code, present) + self.beta * excess
            total = total + torch.where(present[:, m], bound, 0) / counts
        return total


def product(experts: Gaussian, chosen: Tensor, *, prior: bool) -> Gaussian:
    """The normalised product of the chosen (b, M) of experts (b, M, k), and of N(0, I) where `prior`: (b, k) each.

    Its precision is the sum of theirs, and its mean that of theirs weighted by precision. N(0, I) where none is chosen.
    """
    means, log_variances = experts
    precisions = torch.where(chosen.unsqueeze(2), torch.exp(-log_variances), 0)
    means = torch.where(chosen.unsqueeze(2), means, 0)
    own = 1.0 if prior else (~chosen.any(dim=1, keepdim=True)).to(means.dtype)
    precision = precisions.sum(dim=1) + own
    return (means * precisions).sum(dim=1) / precision, -torch.log(precision)


def random_subsets(present: Tensor) -> Tensor:
    """One subset (b, M) of each row's present modalities, each that is not empty as likely as any other."""
    counts = present.sum(dim=1, keepdim=True)
    # Not of a shape of its own: processes that share a batch draw for all of it.
    drawn = torch.rand_like(counts, dtype=torch.float64)
    number = 1 + (drawn * (2.0**counts - 1)).long()
    # Bit i of the number says whether the i-th present modality is in it.
    place = (present.cumsum(dim=1) - 1).clamp(min=0)
    return present & (torch.bitwise_right_shift(number, place) % 2 == 1)


def log_normal(values: Tensor, gaussian: Gaussian) -> Tensor:
    """Log density of independent normal variables, summed over the last axis."""
    mean, log_variance = gaussian
    each = (values - mean).square() * torch.exp(-log_variance) + log_variance + math.log(2 * math.pi)
    return -each.sum(dim=-1) / 2


def divergence(gaussian: Gaussian) -> Tensor:
    """KL(N(μ, diag σ²) ‖ N(0, I)) in nats, summed over the last axis."""
    mean, log_variance = gaussian
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=-1) / 2


def _experts(points: Sequence[Tensor]) -> Gaussian:
    """Encoders' outputs (b, 2k) as means and log variances (b, M, k)."""
    means, log_variances = torch.stack(list(points), dim=1).chunk(2, dim=2)
    return means, log_variances.clamp(*LOG_VARIANCES)


def _standard(code: Tensor) -> Gaussian:
    return torch.zeros_like(code), torch.zeros_like(code)
