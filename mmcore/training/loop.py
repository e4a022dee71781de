"""The one training loop: encoders and neural fusion models learn here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from mmcore.errors import DataError, Problem, StageError
from mmcore.parallel.ahead import Ahead
from mmcore.records import Json
from mmcore.training.batch import Batch
from mmcore.training.checkpoint import Checkpoints
from mmcore.training.engine import Engine, Loss, engine_of
from mmcore.training.keeping import Keeper
from mmcore.training.processes import ALONE, Place, joined
from mmcore.training.threads import torch_for_training

CLIP_NORM = 1.0
"""Gradients longer than this (L2 over all parameters) are cut to it."""
WARM_UP = 0.1
"""Share of all steps in which the learning rate rises; a cosine to 0 follows."""


@dataclass(frozen=True)
class LoopSettings:
    """How a network is trained; `device` is `cpu`, `cuda` or `mps`."""

    epochs: int
    patience: int
    """Stop after this many epochs without a better validation loss."""
    batch_size: int
    """At most this many rows; an epoch's batches are equal to one row."""
    learning_rate: float
    """The highest of the schedule."""
    weight_decay: float
    """Of matrices; biases, gains and other vectors have none."""
    seed: int
    threads: int
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` computes the forward pass under autocast; weights stay float32."""
    processes: int = 1
    """So many compute each batch together, of a GPU's machine one per GPU; at most one per row of a batch."""


@dataclass
class Curves:
    """How a training went: losses per epoch."""

    train_loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0
    """The epoch whose weights were kept, counted from 1."""
    stopped_early: bool = False

    def as_json(self) -> dict[str, Json]:
        return asdict(self)


Load = Callable[[np.ndarray], Any]
"""Fetches what some rows hold, in a thread of its own while the batch before is computed."""


def train(
    network: torch.nn.Module,
    n_train: int,
    loss: Loss,
    validate: Callable[[Any], float],
    settings: LoopSettings,
    *,
    load: Load | None = None,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[int, int, dict[str, float]], None] | None = None,
    keep_end: bool = False,
) -> Curves:
    """Train `network` in place and leave it on its device, in eval mode, with the weights of its best epoch.

    AdamW under a one-cycle learning rate; `validate` gives the loss to lower, without gradients and in eval mode.
    After each epoch `on_epoch` takes its number from 1, their most possible number and the epoch's losses and rate.
    Random numbers follow from (seed, epoch) alone, so that a training resumed from `checkpoints` equals an
    uninterrupted one, on the CPU to the bit. The checkpoint stays until the caller, having published, clears it; with
    `keep_end` the trained network is in it, for a caller who trains others before anything is published.

    Several processes meet the same batches, and each computes a part of every one: the result is that of one process
    but for rounding. `network`, `loss` and `load` are pickled for them; only this one validates, keeps and reports.

    Raises DataError without rows and StageError, naming epoch and batch, where a loss or gradient is not finite, or
    where another process dies.
    """
    if n_train < 1:
        raise DataError(Problem("training", "no rows to train on.", "The train split needs at least one."))
    with torch_for_training(settings.threads, settings.device):
        run = Training(network, n_train, loss, settings, validate=validate, load=load)
        keeper = Keeper(run, checkpoints)
        keeper.resume()
        with joined(run, 1 if run.ended() else run.processes, settings.device) as place:
            run.begin(place)
            while not run.ended():
                run.epoch()
                keeper.keep()
                if on_epoch is not None:
                    on_epoch(len(run.curves.val_loss), settings.epochs, run.news())
        if keep_end:
            keeper.keep_end()
        network.load_state_dict(run.best)
        network.eval()
    return run.curves


class Training:
    """A training between two epochs."""

    engine: Engine

    def __init__(
        self,
        network: torch.nn.Module,
        n_train: int,
        loss: Loss,
        settings: LoopSettings,
        *,
        validate: Callable[[Any], float] | None,
        load: Load | None,
    ) -> None:
        self.network = network.to(settings.device)
        self.n_train, self.loss, self.validate, self.settings, self.load = n_train, loss, validate, settings, load
        self.batches = math.ceil(n_train / settings.batch_size)
        # The smallest batch has a row for each.
        self.processes = min(settings.processes, n_train // self.batches)
        self.place = ALONE
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        decayed = {"params": [p for p in self.parameters if p.ndim > 1], "weight_decay": settings.weight_decay}
        free = {"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0}
        self.optimiser = torch.optim.AdamW(
            [g for g in (decayed, free) if g["params"]], settings.learning_rate, fused=True
        )
        self.curves = Curves()
        self.best: dict[str, torch.Tensor] = {}

    def begin(self, place: Place) -> None:
        """Know which process this is; epochs follow."""
        self.place = place
        self.engine = engine_of(self.network, self.loss, self.settings.device, self.settings.precision, place)

    def join(self, place: Place) -> None:
        """Go through all epochs as another process than the first."""
        with torch_for_training(self.settings.threads, self.settings.device):
            self.begin(place)
            while not self.ended():
                self.epoch()

    def __getstate__(self) -> dict[str, Any]:
        """For another process: it neither validates nor keeps the best weights."""
        return {**self.__dict__, "validate": None, "best": {}}

    def ended(self) -> bool:
        done = len(self.curves.val_loss)
        self.curves.stopped_early = (
            done < self.settings.epochs and done - self.curves.best_epoch >= self.settings.patience
        )
        return done >= self.settings.epochs or (done > 0 and self.curves.stopped_early)

    def epoch(self) -> None:
        number = len(self.curves.val_loss)
        random = np.random.default_rng([self.settings.seed, number])
        torch.manual_seed(int(random.integers(2**63)))
        # Equal to one row, so that none is a single row that batch normalisation cannot take.
        wholes = np.array_split(random.permutation(self.n_train), self.batches)
        rank, processes = self.place.rank, self.place.processes
        batches = [Batch(whole, random, rank=rank, processes=processes) for whole in wholes]
        self.network.train()
        with self._loaded(batches) as loaded:
            found = [self._step(number * self.batches + i, batch) for i, batch in enumerate(loaded)]
        # One look at the device's numbers per epoch: it need not wait after every batch.
        numbers = torch.stack([torch.stack(pair) for pair in found]).cpu().double().numpy()
        numbers[:, 0] = self.engine.summed(numbers[:, 0] * [batch.share for batch in batches])
        self._demand_finite(numbers, number + 1)
        sizes = np.array([len(whole) for whole in wholes])
        self.curves.train_loss.append(float(numbers[:, 0] @ sizes / self.n_train))
        self.curves.val_loss.append(self.engine.agreed(self._validated(number + 1) if rank == 0 else 0.0))
        if (
            len(self.curves.val_loss) == 1
            or self.curves.val_loss[-1] < self.curves.val_loss[self.curves.best_epoch - 1]
        ):
            self.curves.best_epoch = number + 1
            if rank == 0:
                self.best = {name: value.clone() for name, value in self.network.state_dict().items()}

    @contextmanager
    def _loaded(self, batches: list[Batch]) -> Iterator[Iterator[Batch]]:
        """The batches in turn, each with its data, which are fetched while the one before is computed."""
        if (load := self.load) is None:
            yield iter(batches)
            return

        def data() -> Iterator[Any]:
            return (load(batch.rows) for batch in batches)

        with Ahead(data, 1) as ahead:

            def each() -> Iterator[Batch]:
                for batch, found in zip(batches, ahead, strict=True):
                    batch.data = found
                    yield batch
                    batch.data = None

            yield each()

    def _step(self, step: int, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        for group in self.optimiser.param_groups:
            group["lr"] = rate_at(step, self.settings.epochs * self.batches, self.settings.learning_rate)
        self.optimiser.zero_grad()
        value = self.engine.value(batch)
        self.engine.backward(value, batch)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
        self.optimiser.step()
        return value.detach().float(), norm.float()

    def _demand_finite(self, numbers: np.ndarray, epoch: int) -> None:
        bad = np.argwhere(~np.isfinite(numbers))
        if len(bad):
            batch, column = bad[0]
            raise StageError(
                f"training: the {('loss', 'gradient')[column]} is {numbers[batch, column]} in epoch {epoch}, "
                f"batch {batch + 1} of {self.batches}. Lower the learning rate (now {self.settings.learning_rate:g}), "
                "and see that the training data hold no infinite values."
            )

    def _validated(self, epoch: int) -> float:
        assert self.validate is not None
        self.network.eval()
        with torch.no_grad(), self.engine.precision():
            value = float(self.validate(self.network))
        if not math.isfinite(value):
            raise StageError(
                f"training: the validation loss is {value} after epoch {epoch}. Lower the learning rate "
                f"(now {self.settings.learning_rate:g}), and see that the validation data hold no infinite values."
            )
        return value

    def news(self) -> dict[str, float]:
        rate = self.optimiser.param_groups[0]["lr"]
        return {"train_loss": self.curves.train_loss[-1], "val_loss": self.curves.val_loss[-1], "learning_rate": rate}

    # What a checkpoint holds

    def identity(self) -> Json:
        """What must be equal for a checkpoint to be this training's."""
        shapes = {name: list(value.shape) for name, value in self.network.state_dict().items()}
        return {"settings": asdict(self.settings), "n_train": self.n_train, "shapes": shapes}

    def tensors(self) -> dict[str, torch.Tensor]:
        found = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        found |= {f"best/{name}": value for name, value in self.best.items()}
        for index, values in self.optimiser.state_dict()["state"].items():
            found |= {f"optimiser/{index}/{name}": value for name, value in values.items()}
        return found

    def restore(self, tensors: dict[str, torch.Tensor], curves: dict[str, Json]) -> None:
        parts: dict[str, dict[str, torch.Tensor]] = {"network": {}, "best": {}, "optimiser": {}}
        for path, value in tensors.items():
            part, _, name = path.partition("/")
            parts[part][name] = value
        self.network.load_state_dict(parts["network"])
        self.best = {name: value.to(self.settings.device) for name, value in parts["best"].items()}
        state: dict[int, dict[str, torch.Tensor]] = {}
        for path, value in parts["optimiser"].items():
            index, _, name = path.partition("/")
            state.setdefault(int(index), {})[name] = value
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})
        self.curves = Curves(**curves)


def rate_at(step: int, steps: int, highest: float) -> float:
    """The learning rate of `step` (from 0): up a line in the first tenth, down a cosine to 0 (one cycle)."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return highest * (step + 1) / warm
    return highest * 0.5 * (1 + math.cos(math.pi * (step - warm + 1) / (steps - warm + 1)))
