"""What the fusion methods trained by backpropagation have in common. Imports torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmcore.fusion.base import FitRun, Rows, SharedSpace
from mmcore.fusion.data import Array, Views
from mmcore.fusion.stored import StoredRows, parts_of, read_rows
from mmcore.fusion.targets import Target, calibrate
from mmcore.records import Json
from mmcore.training.batch import Batch
from mmcore.training.loop import LoopSettings, train

HELD_OUT = 0.15
"""Share of each class that tells when to stop where `fit` is given no validation rows."""
BATCH = 4096
"""Rows at a time when predicting."""


class FusionNetwork(nn.Module):
    """Encoders into one shared space, a weighting of the present modalities, and a linear head on the fused point."""

    encoders: nn.ModuleList
    head: nn.Module

    def fused(self, points: Sequence[Tensor], present: Tensor) -> Tensor:
        """Σ_m w_m z_m: (b, k) from one (b, k) per modality and booleans (b, M); rows need something present."""
        weights = self.weights(points, present)
        return torch.stack(list(points), dim=1).mul(weights.unsqueeze(2)).sum(dim=1)

    def weights(self, points: Sequence[Tensor], present: Tensor) -> Tensor:
        """Weights (b, M) that sum to 1, 0 where absent: here equal ones."""
        return present / present.sum(dim=1, keepdim=True)

    def extra_loss(self, inputs: Sequence[Tensor], present: Tensor, fused: Tensor, weights: Tensor) -> Tensor | float:
        """What is added to the classification loss; `present` is what the rows have, hidden or not."""
        return 0.0


class NeuralFusionModel(SharedSpace):
    """Base of the neural methods: one loop, modality dropout, early stopping and calibration on validation rows.

    The loss is the mean over rows of −log softmax(head(z))[y] (of labels: the mean of their binary log losses; of
    numbers: half the squared error in units of their deviation) plus `FusionNetwork.extra_loss`. In training each
    present modality is hidden with probability `modality_dropout`, one always staying (Neverova et al. 2016,
    ModDrop), so that every subset is met. Without validation rows a part of each class is held out to stop by, and the
    probabilities stay uncalibrated.
    """

    handles_missing = "native"
    streams = True

    epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    modality_dropout: float

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Networks compute in float32, whatever they are given.
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @abstractmethod
    def _network(self) -> FusionNetwork:
        """The network with fresh weights."""

    def _built(self) -> FusionNetwork:
        with torch.random.fork_rng([]):
            torch.manual_seed(self._seed())
            return self._network()

    def _seed(self) -> int:
        return 0 if self.random_state is None else int(self.random_state)

    def _widths(self) -> list[int]:
        return [self.view_shapes_[name][0] for name in self.modalities_]

    def _fit(self, train_rows: Rows, validation: Rows | None, run: FitRun) -> None:
        learned, stopping = (train_rows, validation) if validation is not None else self._held_out(train_rows)
        inputs, held = (_Inputs(rows.views, run.device) for rows in (learned, stopping))
        targets = _targets(self.target_, learned.targets, run.device)
        weights = torch.as_tensor(learned.weights / learned.weights.mean(), dtype=torch.float32, device=run.device)
        held_targets = _targets(self.target_, stopping.targets, run.device)
        held_weights = torch.as_tensor(stopping.weights, dtype=torch.float64, device=run.device)

        def loss(network: FusionNetwork, batch: Batch) -> Tensor:
            at = torch.as_tensor(batch.rows, device=run.device)
            kept = batch.drawn(lambda random, _: hidden(learned_present[batch.whole], self.modality_dropout, random))
            values, present = inputs.at(batch.rows) if batch.data is None else batch.data
            fused = _fuse(network, values, torch.as_tensor(kept, device=run.device))
            each = losses(self.target_.task, network.head(fused), targets[at])
            return (each * weights[at]).mean() + network.extra_loss(values, present, fused, weights[at])

        def validate(network: FusionNetwork) -> float:
            outputs = [
                network.head(_fuse(network, *held.at(np.arange(start, min(start + BATCH, len(stopping))))))
                for start in range(0, len(stopping), BATCH)
            ]
            each = losses(self.target_.task, torch.cat(outputs).double(), held_targets)
            return float((each * held_weights).sum() / held_weights.sum())

        learned_present = present_of(learned.views)
        network = self._built()
        settings = LoopSettings(
            epochs=self.epochs,
            patience=self.patience,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            seed=self._seed(),
            threads=run.threads,
            device=run.device,
            precision=run.precision,
            processes=run.processes,
        )
        curves = train(
            network,
            len(learned),
            loss,
            validate,
            settings,
            load=inputs.at if inputs.stored else None,
            checkpoints=run.checkpoints,
            on_epoch=run.on_epoch,
        )
        self.network_ = network.to("cpu").eval()
        self.curves_ = curves.as_json()
        self.sharpness_ = 1.0
        if validation is not None:
            self.sharpness_ = calibrate(self.target_, self._network_outputs(validation.views), validation.targets)

    def _held_out(self, rows: Rows) -> tuple[Rows, Rows]:
        """Most of the rows to learn from and some of each class to stop by; all for both where classes are tiny."""
        random = np.random.default_rng(self._seed())
        held = np.zeros(len(rows), bool)
        kinds = rows.targets if self.task == "classes" else np.zeros(len(rows), int)
        for kind in np.unique(kinds):
            members = random.permutation(np.flatnonzero(kinds == kind))
            held[members[: int(len(members) * HELD_OUT)]] = True
        return (rows[~held], rows[held]) if held.any() else (rows, rows)

    def _project(self, name: str, values: Array) -> Array:
        encoder = self.network_.encoders[self.modalities_.index(name)]
        with predicting():
            parts = [encoder(torch.as_tensor(part, dtype=torch.float32)) for _, part in parts_of(values, BATCH)]
            # Of no rows at all, the shape that a network gives.
            return np.asarray(torch.cat(parts or [encoder(torch.zeros(values.shape))]).numpy())

    def _fused(self, views: Views) -> Array:
        points = [torch.as_tensor(self._project(name, view.values)) for name, view in views.items()]
        present = torch.as_tensor(present_of(views))
        # A row with nothing present gets equal weights here, and NaN from the caller.
        present = present | ~present.any(dim=1, keepdim=True)
        with predicting():
            return np.asarray(self.network_.fused(points, present).numpy())

    def _network_outputs(self, views: Views) -> Array:
        with predicting():
            outputs = np.asarray(self.network_.head(torch.as_tensor(self._fused(views))).double().numpy())
        return outputs[:, 0] * self.target_.spread + self.prior_[0] if self.task == "regression" else outputs

    def _outputs(self, views: Views) -> Array:
        return self.sharpness_ * self._network_outputs(views)

    def _state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        arrays = {f"network.{name}": value.numpy() for name, value in self.network_.state_dict().items()}
        return arrays, {"sharpness": self.sharpness_}

    def _restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        self.network_ = self._built()
        prefix = "network."
        state: dict[str, Any] = {
            name.removeprefix(prefix): torch.as_tensor(array)
            for name, array in arrays.items()
            if name.startswith(prefix)
        }
        self.network_.load_state_dict(state)
        self.network_.eval()
        self.sharpness_ = facts["sharpness"]


def hidden(present: Array, share: float, random: np.random.Generator) -> Array:
    """`present` (b, M) with each true value made false with probability `share`, one of each row always kept."""
    kept = present & (random.random(present.shape) >= share)
    # The one to keep where all would go: a fair choice among those present.
    chosen = (random.random(present.shape) * present).argmax(axis=1)
    lost = ~kept.any(axis=1) & present.any(axis=1)
    kept[lost, chosen[lost]] = True
    return np.asarray(kept)


@contextmanager
def predicting() -> Iterator[None]:
    """No gradients, and one thread: more would give other last bits on a machine with more cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)


def losses(task: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """Each row's loss (b,): outputs as `Target` has them, numbers and their targets in units of the deviation."""
    if task == "classes":
        return functional.cross_entropy(outputs, targets, reduction="none")
    targets = targets.to(outputs.dtype)
    if task == "multilabel":
        return functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(dim=1)
    return (outputs[:, 0] - targets).square() / 2


def _targets(target: Target, targets: Array, device: str) -> Tensor:
    if target.task == "regression":
        targets = (targets - target.prior[0]) / target.spread
    return torch.as_tensor(targets, device=device)


def _fuse(network: FusionNetwork, inputs: Sequence[Tensor], present: Tensor) -> Tensor:
    points = [encoder(values) for encoder, values in zip(network.encoders, inputs, strict=True)]
    return network.fused(points, present)


def present_of(views: Views) -> Array:
    """Which modalities each row has: booleans (n, M)."""
    return np.stack([view.present for _, view in views.items()], axis=1)


class _Inputs:
    """What a network reads of some rows: kept on its device, or read from the feature store whenever asked for."""

    def __init__(self, views: Views, device: str) -> None:
        values = [view.values for _, view in views.items()]
        self.stored = any(isinstance(one, StoredRows) for one in values)
        self.device, self.present = device, present_of(views)
        self.values: list[Any] = values if self.stored else [self._tensor(one) for one in values]

    def at(self, rows: Array) -> tuple[list[Tensor], Tensor]:
        """Scaled values (m, d) float32 per modality, and which modalities these rows have (m, M)."""
        present = torch.as_tensor(self.present[rows], device=self.device)
        if self.stored:
            return [self._tensor(read_rows(one, rows)) for one in self.values], present
        index = torch.as_tensor(rows, device=self.device)
        return [one[index] for one in self.values], present

    def _tensor(self, values: Array) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)
