"""The one training loop: encoders and neural fusion models learn here."""

from __future__ import annotations

import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from mmcore.errors import DataError, Problem, StageError
from mmcore.records import Json
from mmcore.training.checkpoint import Checkpoints, pack, unpack

CLIP_NORM = 1.0
"""Gradients longer than this (L2 over all parameters) are cut to it."""
WARM_UP = 0.1
"""Share of all steps in which the learning rate rises; a cosine to 0 follows."""
CHECKPOINT_EVERY_S = 2.0
"""Epochs that follow each other faster share a checkpoint."""
CHECKPOINT_SHARE = 0.1
"""At most this share of the time goes to checkpoints, however slow the store."""

_logger = logging.getLogger(__name__)


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


Loss = Callable[[Any, np.ndarray, np.random.Generator], torch.Tensor]
"""Takes the network, the row indices (b,) of a batch and a generator for augmentation; gives a scalar to descend."""


def train(
    network: torch.nn.Module,
    n_train: int,
    loss: Loss,
    validate: Callable[[Any], float],
    settings: LoopSettings,
    *,
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

    Raises DataError without rows and StageError, naming epoch and batch, where a loss or gradient is not finite.
    """
    if n_train < 1:
        raise DataError(Problem("training", "no rows to train on.", "The train split needs at least one."))
    with _torch_as_set(settings):
        run = _Training(network, n_train, loss, validate, settings)
        keeper = _Keeper(run, checkpoints)
        keeper.resume()
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


class _Training:
    """A training between two epochs."""

    def __init__(
        self,
        network: torch.nn.Module,
        n_train: int,
        loss: Loss,
        validate: Callable[[Any], float],
        settings: LoopSettings,
    ) -> None:
        self.network = network.to(settings.device)
        self.n_train, self.loss, self.validate, self.settings = n_train, loss, validate, settings
        self.batches = math.ceil(n_train / settings.batch_size)
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        decayed = {"params": [p for p in self.parameters if p.ndim > 1], "weight_decay": settings.weight_decay}
        free = {"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0}
        self.optimiser = torch.optim.AdamW(
            [g for g in (decayed, free) if g["params"]], settings.learning_rate, fused=True
        )
        self.curves = Curves()
        self.best: dict[str, torch.Tensor] = {}

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
        batches = np.array_split(random.permutation(self.n_train), self.batches)
        self.network.train()
        found = [self._step(number * self.batches + i, rows, random) for i, rows in enumerate(batches)]
        # One look at the device's numbers per epoch: it need not wait after every batch.
        numbers = torch.stack([torch.stack(pair) for pair in found]).cpu().double().numpy()
        self._demand_finite(numbers, number + 1)
        sizes = np.array([len(rows) for rows in batches])
        self.curves.train_loss.append(float(numbers[:, 0] @ sizes / self.n_train))
        self.curves.val_loss.append(self._validated(number + 1))
        if not self.best or self.curves.val_loss[-1] < self.curves.val_loss[self.curves.best_epoch - 1]:
            self.curves.best_epoch = number + 1
            self.best = {name: value.clone() for name, value in self.network.state_dict().items()}

    def _step(self, step: int, rows: np.ndarray, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        for group in self.optimiser.param_groups:
            group["lr"] = rate_at(step, self.settings.epochs * self.batches, self.settings.learning_rate)
        self.optimiser.zero_grad()
        with self._precision():
            value = self.loss(self.network, rows, random)
        value.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
        self.optimiser.step()
        return value.detach().float(), norm.float()

    def _precision(self) -> Any:
        if self.settings.precision == "float32":
            return nullcontext()
        return torch.autocast(self.settings.device, dtype=getattr(torch, self.settings.precision))

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
        self.network.eval()
        with torch.no_grad(), self._precision():
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

    def restore(self, tensors: dict[str, torch.Tensor], curves: Curves) -> None:
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
        self.curves = curves


class _Keeper:
    """Writes and reads the checkpoint of a training, not more often than pays."""

    def __init__(self, run: _Training, checkpoints: Checkpoints | None) -> None:
        self.run, self.checkpoints = run, checkpoints
        self.next = time.monotonic() + CHECKPOINT_EVERY_S
        self.kept = 0
        """Epochs that the checkpoint holds."""

    def keep(self) -> None:
        if time.monotonic() < self.next:
            return
        started = time.monotonic()
        self._save()
        taken = time.monotonic() - started
        self.next = started + max(CHECKPOINT_EVERY_S, taken / CHECKPOINT_SHARE)

    def keep_end(self) -> None:
        if self.kept < len(self.run.curves.val_loss):
            self._save()

    def _save(self) -> None:
        if self.checkpoints is not None:
            state = {"identity": self.run.identity(), "curves": self.run.curves.as_json()}
            self.checkpoints.save(pack(self.run.tensors(), state))
            self.kept = len(self.run.curves.val_loss)

    def resume(self) -> None:
        data = None if self.checkpoints is None else self.checkpoints.load()
        if data is None:
            return
        try:
            tensors, state = unpack(data)
        except ValueError as error:
            _logger.warning("training starts anew: of its checkpoint, %s", error)
            return
        if state["identity"] != self.run.identity():
            _logger.warning("training starts anew: its checkpoint is of other settings or another network")
            return
        self.run.restore(tensors, Curves(**state["curves"]))
        self.kept = len(self.run.curves.val_loss)
        _logger.info("training goes on after epoch %d of %d", len(self.run.curves.val_loss), self.run.settings.epochs)


def rate_at(step: int, steps: int, highest: float) -> float:
    """The learning rate of `step` (from 0): up a line in the first tenth, down a cosine to 0 (one cycle)."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return highest * (step + 1) / warm
    return highest * 0.5 * (1 + math.cos(math.pi * (step - warm + 1) / (steps - warm + 1)))


@contextmanager
def _torch_as_set(settings: LoopSettings) -> Iterator[None]:
    """Threads, determinism and random state of torch for one training; put back as they were after it."""
    if settings.device == "cuda":
        # cuBLAS is deterministic only with a workspace of fixed size, fixed before its first use.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    devices = [torch.cuda.current_device()] if settings.device == "cuda" else []
    with torch.random.fork_rng(devices), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")
        torch.set_num_threads(settings.threads)
        # On a GPU some operations have no deterministic form; there, as near as torch comes.
        torch.set_deterministic_debug_mode("error" if settings.device == "cpu" else "warn")
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_deterministic_debug_mode(mode)
