"""What a network is trained for: the labels, or to tell which variations come from one sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmcore.config import NeuralEncoder
from mmcore.config.encoders.neural import SelfSupervised
from mmcore.features.encoders.base import Array, scores_of
from mmcore.features.encoders.draws import Draws
from mmcore.records import Json

if TYPE_CHECKING:
    from mmcore.features.encoders.network import NetworkEncoder

FIXED = 2**32 - 1
"""Seeds the variations of validation, which are the same in every epoch so that its losses can be compared."""


@dataclass(frozen=True)
class Prepared:
    """The samples of a split as a network's `inputs` cuts them, with their class numbers (n,)."""

    values: Any
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)


class Objective(ABC):
    """The loss of an encoder's networks on train, and how they are judged on val."""

    def __init__(self, encoder: NetworkEncoder, train: Prepared, val: Prepared) -> None:
        self.encoder, self.train, self.val = encoder, train, val

    @abstractmethod
    def loss(self, network: nn.Module, rows: Array, random: np.random.Generator) -> Tensor:
        """Of some rows of train."""

    @abstractmethod
    def validate(self, network: nn.Module) -> float:
        """The loss on val."""

    @abstractmethod
    def scores(self, network: nn.Module, split: Prepared, rows: Array | None = None) -> dict[str, Json]:
        """What a receipt tells of a network on rows of a split (all of them)."""


class Supervised(Objective):
    """Cross-entropy against labels, smoothed in training."""

    def loss(self, network: nn.Module, rows: Array, random: np.random.Generator) -> Tensor:
        encoder, settings = self.encoder, self.encoder.settings
        draws = Draws(random, encoder.device) if settings.augment else None
        found = network(encoder.inputs(self.train.values, rows, draws))
        wanted = torch.from_numpy(self.train.labels[rows]).to(encoder.device)
        return functional.cross_entropy(found.scores, wanted, label_smoothing=settings.label_smoothing)

    def validate(self, network: nn.Module) -> float:
        return float(self.scores(network, self.val)["log_loss"])

    def scores(self, network: nn.Module, split: Prepared, rows: Array | None = None) -> dict[str, Json]:
        rows = np.arange(len(split)) if rows is None else rows
        return dict(scores_of(self.encoder.scores(network, split.values, rows), split.labels[rows]))


class Contrastive(Objective):
    """NT-Xent between two variations of each sample of a batch; labels are not looked at."""

    def loss(self, network: nn.Module, rows: Array, random: np.random.Generator) -> Tensor:
        return self._between(network, self.train, rows, random)

    def validate(self, network: nn.Module) -> float:
        return float(self.scores(network, self.val)["contrastive_loss"])

    def scores(self, network: nn.Module, split: Prepared, rows: Array | None = None) -> dict[str, Json]:
        rows = np.arange(len(split)) if rows is None else rows
        random = np.random.default_rng([self.encoder.settings.seed, FIXED])
        parts = np.array_split(rows, -(-len(rows) // self.encoder.settings.batch_size))
        with torch.no_grad():
            found = [float(self._between(network, split, part, random)) for part in parts]
        return {"contrastive_loss": round(float(np.average(found, weights=[len(part) for part in parts])), 6)}

    def _between(self, network: nn.Module, split: Prepared, rows: Array, random: np.random.Generator) -> Tensor:
        encoder, settings = self.encoder, self.encoder.settings
        assert isinstance(settings, SelfSupervised)
        draws = Draws(random, encoder.device)
        # One pass of all variations, so that batch normalisation sees both alike.
        twice = network(encoder.inputs(split.values, np.concatenate([rows, rows]), draws)).scores
        return nt_xent(twice[: len(rows)], twice[len(rows) :], settings.temperature)


def nt_xent(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """The normalised temperature-scaled cross-entropy of projections (n, d) of two variations of n samples.

    The mean over all 2n of -log(exp(s(i, j) / T) / sum of exp(s(i, k) / T) over k other than i), where j is the other
    variation of i's sample and s the cosine (Chen, Kornblith, Norouzi and Hinton, 2020: A Simple Framework for
    Contrastive Learning of Visual Representations, equation 1).
    """
    n = len(one)
    unit = functional.normalize(torch.cat([one, other]), dim=1)
    itself = torch.eye(2 * n, dtype=torch.bool, device=unit.device)
    alike = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf)
    partner = torch.arange(2 * n, device=unit.device).roll(n)
    return functional.cross_entropy(alike, partner)


def objective_of(settings: NeuralEncoder) -> type[Objective]:
    """Which objective the settings name."""
    return Supervised if settings.reads_labels else Contrastive
