"""Training an encoder's network and, where train is held out part by part, those without one part each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from mmcore.errors import DataError, Problem
from mmcore.features.encoders.base import WHOLE, Array, OnEpoch, Samples, scores_of
from mmcore.features.encoders.folds import Folds
from mmcore.features.encoders.objectives import Objective, Prepared, objective_of
from mmcore.records import Json
from mmcore.training.batch import Batch
from mmcore.training.checkpoint import Checkpoints
from mmcore.training.device import made_on
from mmcore.training.loop import Curves, LoopSettings, train
from mmcore.training.threads import threads_of_torch

if TYPE_CHECKING:
    from mmcore.features.encoders.network import NetworkEncoder


def learn(
    encoder: NetworkEncoder,
    train_samples: Samples,
    val_samples: Samples,
    checkpoints: Checkpoints | None,
    on_epoch: OnEpoch | None,
) -> dict[str, Json]:
    """Train `encoder.networks`; what the receipt tells of it.

    Each network's training has a checkpoint of its own, which stays when it ends, so that a killed fit does none twice.
    """
    with threads_of_torch(encoder.threads), torch.random.fork_rng([]):
        encoder.study(train_samples.values)
        prepared, in_val = (
            Prepared(encoder.made_ready(part.values), part.labels) for part in (train_samples, val_samples)
        )
        objective = objective_of(encoder.settings)(encoder, prepared, in_val)
        encoder.folds, held_out = _dealt(encoder, train_samples)
        trainings = _Trainings(encoder, objective, 1 + len(held_out), checkpoints, on_epoch)
        curves = trainings.run(WHOLE, np.arange(len(train_samples)))
        network = encoder.networks[WHOLE]
        scores = {"train": objective.scores(network, prepared), "val": objective.scores(network, in_val)}
        facts = {"curves": curves.as_json(), "scores": scores}
        if held_out:
            facts |= _cross_fitted(encoder, trainings, held_out, facts)
    # Other instruction sets give other last bits.
    return {**facts, "made_on": made_on(encoder.device)}


def _dealt(encoder: NetworkEncoder, samples: Samples) -> tuple[Folds | None, dict[int, Array]]:
    """The folds, and of each that has rows which they are."""
    count = encoder.settings.cross_fit
    if count is None:
        return None, {}
    folds = Folds.dealt(samples.keys, samples.groups, count)
    of_row = folds.of(samples.keys, samples.groups)
    held_out = {int(fold): np.flatnonzero(of_row == fold) for fold in np.unique(of_row)}
    if len(held_out) < 2:
        what = f"cross_fit {count} leaves nothing to learn from: all {len(samples)} rows of train are in one part."
        raise DataError(Problem(encoder.settings.encoder, what, "Take more rows or groups, or leave cross_fit out."))
    return folds, held_out


def _cross_fitted(
    encoder: NetworkEncoder, trainings: _Trainings, held_out: dict[int, Array], whole: dict[str, Json]
) -> dict[str, Json]:
    """Train a network without each fold; curves and scores with those of the one that learned from all rows."""
    objective, labels = trainings.objective, trainings.objective.train.labels
    curves, folds = {"all": whole["curves"]}, []
    scores = np.zeros((len(labels), len(encoder.classes)))
    for fold, rows in held_out.items():
        kept = np.setdiff1d(np.arange(len(labels)), rows)
        curves[f"without fold {fold}"] = trainings.run(fold, kept).as_json()
        network = encoder.networks[fold]
        scores[rows] = encoder.scores(network, objective.train.values, rows)
        found = {"held_out": scores_of(scores[rows], labels[rows]), "val": objective.scores(network, objective.val)}
        folds.append({"fold": fold, "rows": len(rows), "scores": found})
    of_splits = {**whole["scores"], "train_held_out": scores_of(scores, labels)}
    return {"curves": curves, "scores": of_splits, "folds": folds}


@dataclass
class _Trainings:
    """Several networks, trained one after the other in the same way."""

    encoder: NetworkEncoder
    objective: Objective
    count: int
    checkpoints: Checkpoints | None
    on_epoch: OnEpoch | None
    done: int = 0

    def run(self, part: int, rows: Array) -> Curves:
        """Train the network of this part on these rows of train."""
        settings = self.encoder.settings
        torch.manual_seed(settings.seed)
        network = self.encoder.networks[part] = self.encoder.build()
        loop = LoopSettings(
            epochs=settings.epochs,
            patience=settings.patience,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            seed=settings.seed,
            threads=self.encoder.threads,
            device=self.encoder.device,
        )

        def loss(network: nn.Module, batch: Batch) -> torch.Tensor:
            return self.objective.loss(network, rows[batch.rows], batch.random)

        checkpoints = self.checkpoints
        if checkpoints is not None and part != WHOLE:
            checkpoints = checkpoints.beside(f"fold-{part}")
        curves = train(
            network,
            len(rows),
            loss,
            self.objective.validate,
            loop,
            checkpoints=checkpoints,
            on_epoch=self._tell if self.on_epoch else None,
            keep_end=self.count > 1,
        )
        self.done += 1
        return curves

    def _tell(self, epoch: int, epochs: int, figures: dict[str, float]) -> None:
        assert self.on_epoch is not None
        self.on_epoch(self.done * epochs + epoch, self.count * epochs, figures)
