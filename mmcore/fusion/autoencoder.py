"""A multimodal autoencoder: one code from the present modalities reconstructs them all; a head predicts the class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mmcore.fusion.base import AnyViews, Columns, any_present
from mmcore.fusion.data import Array
from mmcore.fusion.neural import FusionNetwork, NeuralFusionModel, predicting
from mmcore.fusion.scaling import Scaling
from mmcore.fusion.targets import Task

DROPOUT = 0.2


class AutoencoderFusion(NeuralFusionModel):
    """Per-modality encoders f_m, their mean as the shared code, per-modality decoders g_m, and a linear head.

    z = Σ_{m∈P'} f_m(x_m) / |P'|, and the loss of one row is
    −log softmax(head(z))[y] + λ Σ_{m∈P} ‖x_m − g_m(z)‖² / (d_m |P|),
    where P are the row's present modalities and P' ⊆ P those that modality dropout left: the code has to tell of
    modalities that were hidden from it (Ngiam et al. 2011, "Multimodal deep learning", the bimodal deep autoencoder,
    trained with inputs zeroed out), and absent ones are neither read nor asked for. Encoders and decoders
    have one hidden layer of GELUs. x_m is the scaled view.
    """

    def __init__(
        self,
        *,
        dim: int = 32,
        hidden: int = 128,
        reconstruction: float = 1.0,
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
        self.dim = dim
        self.hidden = hidden
        self.reconstruction = reconstruction
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

    def reconstruct(self, X: AnyViews) -> dict[str, Array]:
        """Every modality, absent ones too, as the code of the present ones has it: (n, d) each, unscaled but for l2.

        NaN in rows with nothing present.
        """
        views = self._prepared(X)
        assert isinstance(self.network_, _Autoencoder)
        with predicting():
            code = torch.as_tensor(self._fused(views))
            found = [decoder(code).double().numpy() for decoder in self.network_.decoders]
        known = any_present(views)[:, None]
        return {
            name: np.where(known, self.scaler_.undone(name, values), np.nan)
            for name, values in zip(self.modalities_, found, strict=True)
        }

    def _network(self) -> _Autoencoder:
        return _Autoencoder(self._widths(), self.target_.n_outputs, self.dim, self.hidden, self.reconstruction)


class _Autoencoder(FusionNetwork):
    decoders: nn.ModuleList

    def __init__(self, widths: Sequence[int], classes: int, dim: int, hidden: int, reconstruction: float) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(
            nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, dim))
            for width in widths
        )
        self.decoders = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, width)) for width in widths
        )
        self.head = nn.Linear(dim, classes)
        self.reconstruction = reconstruction

    def extra_loss(self, inputs: Sequence[Tensor], present: Tensor, fused: Tensor, weights: Tensor) -> Tensor:
        errors = [
            (decoder(fused) - values).square().mean(dim=1)
            for decoder, values in zip(self.decoders, inputs, strict=True)
        ]
        each = (torch.stack(errors, dim=1) * present).sum(dim=1) / present.sum(dim=1)
        return self.reconstruction * (each * weights).mean()
