"""How a deep Boltzmann machine learns: layer by layer first, then as a whole; resumable after any epoch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from mmcore.errors import StageError
from mmcore.fusion.dbm.machine import SMALLEST_LOG_VARIANCE, Machine, State
from mmcore.records import Json
from mmcore.training import keeping
from mmcore.training.checkpoint import Checkpoints, pack, unpack

FILLING_STEPS = 3
"""Rounds by which the joint layer's pretraining infers the pathways that a row does not have."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LearningSettings:
    """How a machine learns."""

    pretrain_epochs: int
    """Of each layer."""
    epochs: int
    """Of the whole machine."""
    batch_size: int
    """Rows per step, and chains of Gibbs sampling."""
    learning_rate: float
    """The first of each phase; it falls to zero in a line."""
    weight_decay: float
    mean_field_steps: int
    gibbs_steps: int
    seed: int


@dataclass(frozen=True)
class TrainingRows:
    """Visibles (n, d) per modality, which rows have them (n, M), how much each counts (n,): all on the device."""

    visible: list[Tensor]
    present: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.weights)


def learn(
    machine: Machine,
    rows: TrainingRows,
    settings: LearningSettings,
    *,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[int, int, dict[str, float]], None] | None = None,
) -> list[float]:
    """Learn in place; returns the squared error of reconstruction of each epoch, see `Learning.curve`.

    Random numbers follow from (seed, epoch) alone, so that a learning resumed from `checkpoints` equals an
    uninterrupted one, on the CPU to the bit. The checkpoint stays until the caller, having published, clears it.
    Raises StageError, naming epoch and batch, where the machine is no longer finite.
    """
    learning = Learning(machine, rows, settings)
    if checkpoints is not None and (data := checkpoints.load()) is not None:
        learning.resume(data)
    due = time.monotonic() + keeping.CHECKPOINT_EVERY_S
    while len(learning.curve) < learning.epochs:
        learning.epoch()
        if checkpoints is not None and (started := time.monotonic()) >= due:
            checkpoints.save(learning.packed())
            taken = time.monotonic() - started
            due = started + max(keeping.CHECKPOINT_EVERY_S, taken / keeping.CHECKPOINT_SHARE)
        if on_epoch is not None:
            news = {"reconstruction": learning.curve[-1], "learning_rate": learning.rate()}
            on_epoch(len(learning.curve), learning.epochs, news)
    return learning.curve


class Learning:
    """The learning of one machine, between two epochs.

    Phase l of the first `depth` + 1 is the contrastive divergence of the restricted machines between levels l and
    l + 1, in which a layer hears those that will have another neighbour twice (Salakhutdinov and Hinton 2009, "Deep
    Boltzmann machines"); the last phase is that of the whole machine: the gradient of the variational bound, with
    mean-field expectations of the data and persistent chains for the model's own (Tieleman 2008, "Training restricted
    Boltzmann machines using approximations to the likelihood gradient"). Steps are taken by AdamW.
    """

    def __init__(self, machine: Machine, rows: TrainingRows, settings: LearningSettings) -> None:
        self.machine, self.rows, self.settings = machine, rows, settings
        self.device = rows.weights.device
        self.phases = machine.depth + 1
        self.batches = math.ceil(len(rows) / settings.batch_size)
        self.curve: list[float] = []
        """Mean squared error between present visibles and what the layer above them makes of its own means."""
        self.chains: State = []
        self.totals: State = []
        """Sums over an epoch's rows of the means of each layer."""
        self.optimiser = self._fresh()

    @property
    def epochs(self) -> int:
        return self.phases * self.settings.pretrain_epochs + self.settings.epochs

    def phase(self) -> tuple[int, int, int]:
        """Which phase the next epoch belongs to, which of its epochs that is, and of how many."""
        done, each = len(self.curve), self.settings.pretrain_epochs
        if done < self.phases * each:
            return done // each, done % each, each
        return self.phases, done - self.phases * each, self.settings.epochs

    def rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimiser.param_groups[0]["lr"])

    def epoch(self) -> None:
        number = len(self.curve)
        phase, at, of = self.phase()
        order = np.random.default_rng([self.settings.seed, number])
        random = torch.Generator(self.device).manual_seed(int(order.integers(2**62)))
        batches = np.array_split(order.permutation(len(self.rows)), self.batches)
        if at == 0:
            self.optimiser = self._fresh()
            self.chains = self._first_chains(random) if phase == self.phases else []
            if phase == self.phases:
                self.machine.centre(self._first_offsets())
        self.totals = [torch.zeros_like(bias) for bias in self.machine.biases]
        found = []
        for number_of_batch, batch in enumerate(batches):
            left = 1 - (at * self.batches + number_of_batch) / (of * self.batches)
            for group in self.optimiser.param_groups:
                group["lr"] = self.settings.learning_rate * left
            index = torch.as_tensor(batch, device=self.device)
            rows = TrainingRows(
                [values[index] for values in self.rows.visible], self.rows.present[index], self.rows.weights[index]
            )
            step = self._whole if phase == self.phases else self._layer
            found.append(self._step(*step(rows, random, phase)))
        errors = torch.stack(found).cpu().double().numpy()
        if len(bad := np.flatnonzero(~np.isfinite(errors))):
            raise StageError(
                f"training: the machine is no longer finite in epoch {number + 1}, batch {int(bad[0]) + 1} of "
                f"{self.batches}. Lower the learning rate (now {self.settings.learning_rate:g})."
            )
        self.curve.append(float(errors.mean()))
        if phase == self.phases:
            self._centre()

    def _centre(self) -> None:
        """Count units from what they were on average; at the very end from zero, and Gaussian visibles always."""
        machine = self.machine
        ended = len(self.curve) == self.epochs
        machine.centre(
            [
                torch.zeros_like(total) if ended or machine.is_gaussian(layer) else total / len(self.rows)
                for layer, total in enumerate(self.totals)
            ]
        )

    def _step(self, loss: Tensor, error: Tensor) -> Tensor:
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        with torch.no_grad():
            for log_variance in self.machine.log_variances:
                log_variance.clamp_(min=SMALLEST_LOG_VARIANCE)
        return error

    def _fresh(self) -> torch.optim.AdamW:
        machine = self.machine
        free = [*machine.biases, *(each for each in machine.log_variances if len(each))]
        # What is not part of a phase gets no gradient, and AdamW leaves it.
        groups = [
            {"params": list(machine.weights), "weight_decay": self.settings.weight_decay},
            {"params": free, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, self.settings.learning_rate)

    # One layer

    def _layer(self, rows: TrainingRows, random: torch.Generator, phase: int) -> tuple[Tensor, Tensor]:
        """Loss whose gradient is that of one step of contrastive divergence at this level, and the error."""
        machine = self.machine
        lower = [layer for layer in range(machine.joint) if machine.levels[layer] == phase]
        uppers = sorted({machine.edges[layer][1] for layer in lower})
        # The joint layer has nothing above it, the visibles nothing below.
        up, down = (1 if phase == machine.depth else 2), (1 if phase == 0 else 2)
        with torch.no_grad():
            data = self._inputs(rows, phase)
            positive = self._filled(data, rows.present, lower, uppers, up, down)
            state = list(positive)
            for upper in uppers:
                state[upper] = machine.draw(upper, state[upper], random)
            for layer in lower:
                state[layer] = _mean_below(machine, layer, state, down)
            for upper in uppers:
                state[upper] = _mean_above(machine, upper, state, up)
        loss = torch.zeros((), device=self.device)
        for layer in lower:
            upper = machine.edges[layer][1]
            counted = rows.weights
            if upper != machine.joint:
                counted = counted * rows.present[:, layer % machine.modalities]
            each = _pair_energy(machine, layer, positive) - _pair_energy(machine, layer, state, free=True)
            loss = loss + (each * counted).sum() / rows.weights.sum()
        for upper in uppers:
            counted = rows.weights
            if upper != machine.joint:
                counted = counted * rows.present[:, upper % machine.modalities]
            each = (state[upper] - positive[upper]) @ machine.biases[upper]
            loss = loss + (each * counted).sum() / rows.weights.sum()
        return loss, self._error(positive, rows, phase)

    def _inputs(self, rows: TrainingRows, phase: int) -> State:
        """Means of all layers up to this level, by the pretrained machines below."""
        machine = self.machine
        state = [*rows.visible, *(torch.zeros(0) for _ in range(machine.joint + 1 - machine.modalities))]
        for layer in range(machine.modalities, machine.joint):
            if machine.levels[layer] <= phase:
                state[layer] = _mean_above(machine, layer, state, 2)
        return state

    def _filled(  # noqa: PLR0917
        self, state: State, present: Tensor, lower: Sequence[int], uppers: Sequence[int], up: int, down: int
    ) -> State:
        """Upper layers inferred; under the joint one, pathways that rows do not have are inferred with it."""
        machine, found = self.machine, list(state)
        joint = uppers[0] == machine.joint
        if joint:
            for layer in lower:
                known = present[:, [layer % machine.modalities]]
                alone = machine.biases[layer] if machine.is_gaussian(layer) else torch.sigmoid(machine.biases[layer])
                found[layer] = torch.where(known, state[layer], alone)
        for upper in uppers:
            found[upper] = _mean_above(machine, upper, found, up)
        for _ in range(FILLING_STEPS if joint else 0):
            for layer in lower:
                known = present[:, [layer % machine.modalities]]
                found[layer] = torch.where(known, state[layer], _mean_below(machine, layer, found, down))
            found[machine.joint] = _mean_above(machine, machine.joint, found, up)
        return found

    # The whole machine

    def _first_chains(self, random: torch.Generator) -> State:
        """States to sample on from: those that some of the data have."""
        count = self.settings.batch_size
        index = torch.randint(len(self.rows), (count,), generator=random, device=self.device)
        with torch.no_grad():
            visible = [values[index] for values in self.rows.visible]
            means = self.machine.mean_field(visible, self.rows.present[index], self.settings.mean_field_steps)
            return [self.machine.draw(layer, values, random) for layer, values in enumerate(means)]

    def _first_offsets(self) -> State:
        """Hidden units begin by being counted from what they are on average in the states of the chains."""
        machine = self.machine
        return [
            torch.zeros_like(values[0]) if machine.is_gaussian(layer) else values.mean(dim=0)
            for layer, values in enumerate(self.chains)
        ]

    def _whole(self, rows: TrainingRows, random: torch.Generator, phase: int) -> tuple[Tensor, Tensor]:
        """Loss whose gradient is that of the variational bound, and the error."""
        machine = self.machine
        with torch.no_grad():
            positive = machine.mean_field(rows.visible, rows.present, self.settings.mean_field_steps)
            for total, values in zip(self.totals, positive, strict=True):
                total.add_(values.sum(dim=0))
            for _ in range(self.settings.gibbs_steps):
                self.chains, means = machine.sweep(self.chains, random)
        absent = (~rows.present).to(rows.weights.dtype)
        data = machine.energy(positive, list(absent.T))
        model = machine.energy(means, [torch.ones(len(means[0]), device=self.device)] * machine.modalities)
        loss = (data * rows.weights).sum() / rows.weights.sum() - model.mean()
        return loss, self._error(positive, rows, 0)

    def _error(self, positive: State, rows: TrainingRows, phase: int) -> Tensor:
        machine = self.machine
        total, count = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        with torch.no_grad():
            for layer in range(machine.joint):
                if machine.levels[layer] == phase:
                    expected = _mean_below(machine, layer, positive, 1 if phase == 0 else 2)
                    there = rows.present[:, layer % machine.modalities]
                    total += ((positive[layer] - expected).square().mean(dim=1) * there).sum()
                    count += there.sum()
        return total / count.clamp(min=1)

    # Checkpoints

    def _identity(self) -> Json:
        shapes = {name: list(value.shape) for name, value in self.machine.state_dict().items()}
        return {"settings": asdict(self.settings), "rows": len(self.rows), "shapes": shapes}

    def packed(self) -> bytes:
        """All that the next epoch needs."""
        found = {f"machine/{name}": value for name, value in self.machine.state_dict().items()}
        found |= {f"chains/{number}": values for number, values in enumerate(self.chains)}
        found |= {f"offsets/{number}": values for number, values in enumerate(self.machine.offsets)}
        for index, values in self.optimiser.state_dict()["state"].items():
            found |= {f"optimiser/{index}/{name}": value for name, value in values.items()}
        return pack(found, {"identity": self._identity(), "curve": self.curve})

    def resume(self, data: bytes) -> None:
        """Go on from a checkpoint; from the beginning, with a warning, where it is not this learning's."""
        try:
            tensors, state = unpack(data)
        except ValueError as error:
            _logger.warning("training starts anew: of its checkpoint, %s", error)
            return
        if state["identity"] != self._identity():
            _logger.warning("training starts anew: its checkpoint is of other settings or another machine")
            return
        parts: dict[str, dict[str, Tensor]] = {"machine": {}, "chains": {}, "offsets": {}, "optimiser": {}}
        for path, value in tensors.items():
            part, _, name = path.partition("/")
            parts[part][name] = value
        self.machine.load_state_dict(parts["machine"])
        self.chains = [parts["chains"][str(number)].to(self.device) for number in range(len(parts["chains"]))]
        for number, offset in enumerate(self.machine.offsets):
            offset.copy_(parts["offsets"][str(number)])
        of_parameters: dict[int, dict[str, Tensor]] = {}
        for path, value in parts["optimiser"].items():
            index, _, name = path.partition("/")
            of_parameters.setdefault(int(index), {})[name] = value
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": of_parameters})
        self.curve = state["curve"]
        _logger.info("training goes on after epoch %d of %d", len(self.curve), self.epochs)


def _mean_above(machine: Machine, upper: int, state: State, times: int) -> Tensor:
    """Means of a layer from those below it alone, which it hears so many times."""
    total: Tensor = machine.biases[upper]
    for part in machine.from_below(upper, state):
        total = total + times * part
    return torch.sigmoid(total)


def _mean_below(machine: Machine, layer: int, state: State, times: int) -> Tensor:
    """Means of a layer from the one above it alone, which it hears so many times."""
    total: Tensor = machine.biases[layer] + times * machine.from_above(layer, state)
    return total if machine.is_gaussian(layer) else torch.sigmoid(total)


def _pair_energy(machine: Machine, layer: int, state: State, *, free: bool = False) -> Tensor:
    """The part of the energy (b,) of a layer and of what it shares with the one above it; `free`: as in `energy`."""
    shared = machine.shared(layer, state)
    if not machine.is_gaussian(layer):
        alone: Tensor = state[layer] @ machine.biases[layer]
        return -alone - shared
    log_variance: Tensor = machine.log_variances[layer]
    squares = (state[layer] - machine.biases[layer]).square() * torch.exp(-log_variance)
    total: Tensor = squares.sum(dim=1) / 2 - shared
    return total + torch.exp(log_variance.detach() - log_variance).sum() / 2 if free else total
