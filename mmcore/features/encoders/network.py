"""What the encoders that are neural networks share: training, encoding, saving."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmcore.config import NeuralEncoder
from mmcore.features.encoders.base import WHOLE, Array, Encoded, LearnedEncoder, OnEpoch, Samples, centred, scores_of
from mmcore.records import Json
from mmcore.training.checkpoint import Checkpoints
from mmcore.training.device import made_on
from mmcore.training.loop import LoopSettings, train
from mmcore.training.threads import threads_of_torch

ENCODING_BATCH = 256
"""Samples that go through the network at a time when it does not learn."""


class Draws:
    """Uniform and normal random numbers for augmentation, the same on every device."""

    def __init__(self, random: np.random.Generator, device: str) -> None:
        self._generator = torch.Generator().manual_seed(int(random.integers(2**63)))
        self._device = device

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return (torch.rand(shape, generator=self._generator) * (high - low) + low).to(self._device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator).to(self._device)


class ClassifierHead(nn.Module):
    """Pooled maps to hidden units (linear, batch norm, ReLU), and these to a score per class."""

    def __init__(self, inputs: int, hidden: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.to_hidden = nn.Linear(inputs, hidden, bias=False)
        self.norm = nn.BatchNorm1d(hidden)
        self.to_scores = nn.Linear(hidden, classes)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (n, classes) and hidden units (n, hidden) of (n, inputs)."""
        hidden = functional.relu(self.norm(self.to_hidden(self.dropout(pooled))))
        return self.to_scores(self.dropout(hidden)), hidden


def convolution(inputs: int, outputs: int, *, side: int = 3, stride: int = 1) -> list[nn.Module]:
    """Convolution, batch norm and ReLU."""
    layer = nn.Conv2d(inputs, outputs, side, stride=stride, padding=side // 2, bias=False)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU()]


class NetworkEncoder(LearnedEncoder):
    """A classifier of the training labels; a sample's vector is its scores and, if kept, its hidden units."""

    settings: NeuralEncoder
    network: nn.Module
    batch = ENCODING_BATCH

    @abstractmethod
    def build(self) -> nn.Module:
        """The untrained network: takes what `inputs` gives and returns scores and hidden units."""

    @abstractmethod
    def prepare(self, values: Sequence[Any]) -> Any:
        """The values as `inputs` cuts them, on the CPU, as small as can be."""

    @abstractmethod
    def inputs(self, prepared: Any, rows: Array, draws: Draws | None) -> Tensor:
        """The network's input for some rows on `self.device`; varied where `draws` are given."""

    def fit(
        self,
        train: Samples,
        val: Samples,
        *,
        checkpoints: Checkpoints | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> dict[str, Json]:
        return _fit(self, train, val, checkpoints, on_epoch)

    def collate(self, values: Sequence[Any]) -> tuple[Any, int]:
        return self.prepare(values), len(values)

    def encode(self, batch: tuple[Any, int], part: int = WHOLE) -> Encoded:
        with threads_of_torch(self.threads):
            self.network.to(self.device).eval()
            scores, hidden = self.run(*batch)
        parts = [centred(scores), hidden] if self.settings.keep_hidden else [centred(scores)]
        return Encoded(np.concatenate(parts, axis=1, dtype=np.float32))

    def run(self, prepared: Any, count: int) -> tuple[Array, Array]:
        """Scores (n, classes) and hidden units (n, hidden) of `count` prepared values."""
        scores, hidden = [], []
        with torch.no_grad():
            for start in range(0, count, ENCODING_BATCH):
                rows = np.arange(start, min(start + ENCODING_BATCH, count))
                outputs = self.network(self.inputs(prepared, rows, None))
                scores.append(outputs[0].float().cpu().numpy())
                hidden.append(outputs[1].float().cpu().numpy())
        return np.concatenate(scores), np.concatenate(hidden)

    def state(self) -> tuple[dict[str, Array], Json]:
        return {name: value.cpu().numpy() for name, value in self.network.state_dict().items()}, {}

    def restore(self, arrays: Mapping[str, Array], facts: Json) -> None:
        self.network = self.build()
        self.network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})


def _fit(
    encoder: NetworkEncoder,
    train_samples: Samples,
    val: Samples,
    checkpoints: Checkpoints | None,
    on_epoch: OnEpoch | None,
) -> dict[str, Json]:
    settings, device = encoder.settings, encoder.device
    with threads_of_torch(encoder.threads), torch.random.fork_rng([]):
        torch.manual_seed(settings.seed)
        encoder.network = encoder.build()
        prepared, val_prepared = encoder.prepare(train_samples.values), encoder.prepare(val.values)
        labels = torch.from_numpy(train_samples.labels)

        def loss(network: nn.Module, rows: Array, random: np.random.Generator) -> Tensor:
            draws = Draws(random, device) if settings.augment else None
            scores, _ = network(encoder.inputs(prepared, rows, draws))
            wanted = labels[torch.from_numpy(rows)].to(device)
            return functional.cross_entropy(scores, wanted, label_smoothing=settings.label_smoothing)

        def validate(_: nn.Module) -> float:
            return scores_of(encoder.run(val_prepared, len(val))[0], val.labels)["log_loss"]

        loop = LoopSettings(
            epochs=settings.epochs,
            patience=settings.patience,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            seed=settings.seed,
            threads=encoder.threads,
            device=device,
        )
        curves = train(
            encoder.network, len(train_samples), loss, validate, loop, checkpoints=checkpoints, on_epoch=on_epoch
        )
        scores = {
            "train": scores_of(encoder.run(prepared, len(train_samples))[0], train_samples.labels),
            "val": scores_of(encoder.run(val_prepared, len(val))[0], val.labels),
        }
    # Other instruction sets give other last bits.
    return {"curves": curves.as_json(), "scores": scores, "made_on": made_on(device)}
