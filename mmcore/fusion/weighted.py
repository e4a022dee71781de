"""A weighted sum of per-modality projections: weights given, learned for all rows, or gated by each row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mmcore.errors import FusionError
from mmcore.fusion.base import Columns
from mmcore.fusion.neural import FusionNetwork, NeuralFusionModel
from mmcore.fusion.scaling import Scaling
from mmcore.fusion.targets import Task

DROPOUT = 0.3


class WeightedFusion(NeuralFusionModel):
    """z = Σ_{m∈P} w_m z_m with z_m = GELU(A_m x_m + a_m), over the present modalities P; a linear head reads z.

    `fixed`: w are the numbers given (a positive one for every modality) or equal ones, divided by their sum over P.
    `learned`: w = softmax over P of one learned number per modality. `gated`: the number is v_mᵀ z_m / √k + c_m,
    so each row weighs its own views (as the gates of Arevalo et al. 2017, "Gated multimodal units", with a
    softmax in place of the sigmoid). Softmax over P alone renormalises where modalities are absent.
    """

    def __init__(
        self,
        *,
        weights: Literal["fixed", "learned", "gated"] = "learned",
        fixed: Mapping[str, float] | None = None,
        dim: int = 64,
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
        self.weights = weights
        self.fixed = fixed
        self.dim = dim
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

    def _network(self) -> FusionNetwork:
        given = self._given() if self.weights == "fixed" else None
        return _WeightedNetwork(
            self._widths(), self.target_.n_outputs, self.dim, given=given, gated=self.weights == "gated"
        )

    def _given(self) -> list[float]:
        """Fixed weights in the order of the modalities. Raises FusionError for names or numbers that do not fit."""
        given = dict.fromkeys(self.modalities_, 1.0) if self.fixed is None else self.fixed
        if set(given) != set(self.modalities_) or not all(0 < number < math.inf for number in given.values()):
            raise FusionError(
                f"fixed: needs a positive number for each of {', '.join(self.modalities_)}, got {dict(given)}"
            )
        return [float(given[name]) for name in self.modalities_]


class _WeightedNetwork(FusionNetwork):
    def __init__(
        self, widths: Sequence[int], outputs: int, dim: int, *, given: Sequence[float] | None, gated: bool
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(
            nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(width, dim), nn.GELU()) for width in widths
        )
        # The softmax of logarithms over some modalities is their numbers by the sum of these.
        start = torch.zeros(len(widths)) if given is None else torch.tensor(given).log()
        self.scores = nn.Parameter(start, requires_grad=given is None)
        self.gates = nn.Parameter(torch.zeros(len(widths), dim)) if gated else None
        self.head = nn.Linear(dim, outputs)

    def weights(self, points: Sequence[Tensor], present: Tensor) -> Tensor:
        scores = self.scores.expand(present.shape)
        if self.gates is not None:
            scores = (
                scores
                + torch.stack([z @ v for z, v in zip(points, self.gates, strict=True)], 1) / len(self.gates[0]) ** 0.5
            )
        return torch.softmax(scores.masked_fill(~present, -torch.inf), dim=1)
