"""A multimodal deep Boltzmann machine: a joint density of all views; a head predicts from its joint layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mmcore.errors import FusionError
from mmcore.fusion.base import AnyViews, Columns, FitRun, Rows, SharedSpace, any_present
from mmcore.fusion.data import Array, View, Views
from mmcore.fusion.dbm.annealing import inferred_base, log_partition, sampled_base
from mmcore.fusion.dbm.machine import Kind, Machine
from mmcore.fusion.dbm.training import LearningSettings, TrainingRows, learn
from mmcore.fusion.headed import HeadedFusion
from mmcore.fusion.heads import HeadKind, Strength
from mmcore.fusion.neural import predicting
from mmcore.fusion.scaling import Scaling
from mmcore.fusion.targets import Task
from mmcore.records import Json
from mmcore.training.threads import threads_of_torch

BATCH = 4096
"""Rows at a time when inferring."""
STATES = 20_000
"""States at a time when annealing: rows times chains."""
ROW_SHARE = 10
"""A row's own sum is over fewer units and begins from what is inferred for it: it gets this part of the chains."""


class DbmFusion(HeadedFusion, SharedSpace):
    """Multimodal deep Boltzmann machine: pathways of restricted Boltzmann machines under one joint layer.

    The energy is in `mmcore.fusion.dbm.machine`; learning, layer by layer and then as a whole, in `dbm.training`
    (Srivastava and Salakhutdinov 2014, "Multimodal learning with deep Boltzmann machines"). A row's point is the vector
    of the joint units' probabilities, by mean-field inference from what is present: absent visibles are inferred like
    hidden units, in learning too. The head reads that vector. Labels are not looked at before.

    `visibles`: Gaussian for any numbers, standardised first whatever the `scaling`; binary for columns of 0 and 1, or
    of probabilities (l2: the largest of each row counts as 1); `auto` takes binary for views of nothing but 0 and 1.

    Learned: `machine_`, `kinds_` {view: kind of visibles}.
    """

    handles_missing = "native"

    def __init__(
        self,
        *,
        hidden: int = 128,
        depth: int = 1,
        dim: int = 128,
        visibles: Literal["auto", "gaussian", "binary"] = "auto",
        pretrain_epochs: int = 20,
        epochs: int = 40,
        batch_size: int = 100,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-2,
        mean_field_steps: int = 10,
        gibbs_steps: int = 5,
        head: HeadKind = "linear",
        C: Strength = "auto",
        scaling: Scaling = "standard",
        modalities: Sequence[str] | None = None,
        random_state: int | None = 0,
        task: Task = "classes",
        columns: Columns | None = None,
    ) -> None:
        self.hidden = hidden
        self.depth = depth
        self.dim = dim
        self.visibles = visibles
        self.pretrain_epochs = pretrain_epochs
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.mean_field_steps = mean_field_steps
        self.gibbs_steps = gibbs_steps
        self.head = head
        self.C = C
        self.scaling = scaling
        self.modalities = modalities
        self.random_state = random_state
        self.task = task
        self.columns = columns

    # What users call beside the interface of all methods

    def fill_in(self, X: AnyViews) -> dict[str, Array]:
        """Every modality: as given where present, else its mean-field expectation given what is; (n, d) each.

        In the units of the views (l2: of the scaled views); NaN in rows with nothing present.
        """
        views = self._prepared(X)
        visible, present = self._visible(views)
        with predicting():
            parts = zip(*(torch.split(part, BATCH) for part in (*visible, present)), strict=True)
            found = [self.machine_.mean_field(part[:-1], part[-1], self.mean_field_steps) for part in parts]
        filled = self._undone([torch.cat(layers) for layers in list(zip(*found, strict=True))[: len(visible)]])
        unknown = ~any_present(views)
        for values in filled.values():
            values[unknown] = np.nan
        return self._with_given(X, filled)

    def sample(self, X: AnyViews, *, sweeps: int = 200, seed: int = 0) -> dict[str, Array]:
        """Every modality: as given where present, else drawn by `sweeps` rounds of Gibbs sampling given what is.

        (n, d) each, in the units of the views (l2: of the scaled views). A row with nothing present is a sample of the
        machine itself.
        """
        visible, present = self._visible(self._prepared(X))
        random = torch.Generator().manual_seed(seed)
        with predicting():
            machine = self.machine_
            # Not from mean-field means: where several things are possible, they settle on one for all rows.
            state = machine.began(visible, present, random)
            for _ in range(sweeps):
                state, _ = machine.sweep(state, random, visible, present)
        return self._with_given(X, self._undone(state[: len(visible)]))

    def log_partition(self, *, chains: int = 100, temperatures: int = 1000, seed: int = 0) -> tuple[float, float]:
        """Log Z of the machine and the standard error of this estimate, by annealed importance sampling."""
        random = torch.Generator().manual_seed(seed)
        with predicting():
            machine = _exact(self.machine_)
            value, error = log_partition(machine, sampled_base(machine, random), chains, temperatures, random)
        return float(value), float(error)

    def log_likelihood(
        self, X: AnyViews, *, chains: int = 100, temperatures: int = 1000, seed: int = 0
    ) -> tuple[Array, float]:
        """Log p (n,) of what each row has, in nats, and the standard error that all share by log Z.

        Both log Z and each row's own sum over what it does not have are estimated by annealed importance sampling.
        Gaussian visibles are densities per standard deviation of their column. 0 where nothing is present.
        """
        whole, error = self.log_partition(chains=chains, temperatures=temperatures, seed=seed)
        visible, present = self._visible(self._prepared(X))
        random = torch.Generator().manual_seed(seed + 1)
        each = max(1, chains // ROW_SHARE)
        found = []
        with predicting():
            machine = _exact(self.machine_)
            for part in zip(*(torch.split(v, max(1, STATES // each)) for v in (*visible, present)), strict=True):
                known = [values.double() for values in part[:-1]]
                base = inferred_base(machine, known, part[-1], self.mean_field_steps)
                found.append(log_partition(machine, base, each, temperatures, random, known, part[-1])[0])
        values = torch.cat(found).numpy() - whole
        return np.where(present.any(dim=1).numpy(), values, 0.0), error

    # What a method writes

    def _learn(self, train: Rows, validation: Rows | None, run: FitRun) -> None:
        self.kinds_ = {name: self._kind(name, view) for name, view in train.views.items()}
        self.moments_ = {
            name: _moments(view, train.weights) for name, view in train.views.items() if self.kinds_[name] == "gaussian"
        }
        seed = 0 if self.random_state is None else int(self.random_state)
        machine = self._machine(seed).to(run.device)
        visible, present = self._visible(train.views)
        rows = TrainingRows(
            [values.to(run.device) for values in visible],
            present.to(run.device),
            torch.as_tensor(train.weights / train.weights.mean(), dtype=torch.float32, device=run.device),
        )
        settings = LearningSettings(
            pretrain_epochs=self.pretrain_epochs,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            mean_field_steps=self.mean_field_steps,
            gibbs_steps=self.gibbs_steps,
            seed=seed,
        )
        with threads_of_torch(run.threads):
            curve = learn(machine, rows, settings, checkpoints=run.checkpoints, on_epoch=run.on_epoch)
        self.machine_ = machine.to("cpu")
        self.curves_ = {"reconstruction": curve}

    def _features(self, views: Views) -> Array:
        return self._fused(views)

    def _project(self, name: str, values: Array) -> Array:
        alone = {
            other: View(values, np.ones(len(values), bool))
            if other == name
            else View.absent(len(values), self.view_shapes_[other])
            for other in self.modalities_
        }
        return self._fused(Views(alone))

    def _fused(self, views: Views) -> Array:
        visible, present = self._visible(views)
        with predicting():
            parts = zip(*(torch.split(part, BATCH) for part in (*visible, present)), strict=True)
            found = [self.machine_.mean_field(part[:-1], part[-1], self.mean_field_steps)[-1] for part in parts]
            return torch.cat(found).double().numpy()

    def _map_state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        arrays: dict[str, Array] = {
            f"machine.{name}": value.detach().numpy() for name, value in self.machine_.state_dict().items()
        }
        for name, (mean, deviation) in self.moments_.items():
            arrays |= {f"visibles.{name}.mean": mean, f"visibles.{name}.deviation": deviation}
        return arrays, {"visibles": self.kinds_}

    def _map_restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        self.kinds_ = facts["visibles"]
        self.moments_ = {
            name: (arrays[f"visibles.{name}.mean"], arrays[f"visibles.{name}.deviation"])
            for name, kind in self.kinds_.items()
            if kind == "gaussian"
        }
        self.machine_ = self._machine(0)
        prefix = "machine."
        state: dict[str, Any] = {
            name.removeprefix(prefix): torch.as_tensor(array)
            for name, array in arrays.items()
            if name.startswith(prefix)
        }
        self.machine_.load_state_dict(state)

    # Visibles

    def _machine(self, seed: int) -> Machine:
        visible = [(self.view_shapes_[name][0], self.kinds_[name]) for name in self.modalities_]
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            return Machine(visible, [self.hidden] * self.depth, self.dim)

    def _kind(self, name: str, view: View) -> Kind:
        if self.visibles == "gaussian":
            return "gaussian"
        values = self._as_given(name, view.values[view.present])
        if self.visibles == "auto":
            return "binary" if np.isin(values, (0.0, 1.0)).all() else "gaussian"
        if values.min(initial=0) < 0 or values.max(initial=0) > 1:
            raise FusionError(
                f"view {name}: binary visibles need values from 0 to 1, and it has {values.min():g} to "
                f"{values.max():g}; set visibles to auto or gaussian"
            )
        return "binary"

    def _as_given(self, name: str, scaled: Array) -> Array:
        """Scaled rows as what they were before; of unit rows (l2), with a largest value of 1."""
        if self.scaling == "l2":
            largest = np.abs(scaled).max(axis=1, keepdims=True, initial=0.0)
            return np.asarray(np.round(scaled / np.where(largest > 0, largest, 1.0), 9))
        return np.asarray(np.round(self.scaler_.undone(name, scaled), 9))

    def _visible(self, views: Views) -> tuple[list[Tensor], Tensor]:
        """Prepared rows as the machine reads them: (n, d) float32 per modality, and which are present (n, M)."""
        found = []
        for name, view in views.items():
            values = np.zeros(view.values.shape)
            if self.kinds_[name] == "gaussian":
                mean, deviation = self.moments_[name]
                values[view.present] = (view.values[view.present] - mean) / deviation
            else:
                values[view.present] = np.clip(self._as_given(name, view.values[view.present]), 0.0, 1.0)
            found.append(torch.as_tensor(values, dtype=torch.float32))
        return found, torch.as_tensor(np.stack([view.present for _, view in views.items()], axis=1))

    def _undone(self, visible: Sequence[Tensor]) -> dict[str, Array]:
        """Visibles in the units of the views."""
        found = {}
        for name, values in zip(self.modalities_, visible, strict=True):
            rows = values.double().numpy()
            if self.kinds_[name] == "gaussian":
                mean, deviation = self.moments_[name]
                rows = self.scaler_.undone(name, rows * deviation + mean)
            found[name] = np.array(rows)
        return found

    def _with_given(self, X: AnyViews, filled: dict[str, Array]) -> dict[str, Array]:
        """The present rows in place of what the machine makes of them."""
        views = self._checked(self._views(X)) if self.scaling != "l2" else self._prepared(X)
        for name, view in views.items():
            filled[name][view.present] = view.values[view.present]
        return filled


def _moments(view: View, weights: Array) -> tuple[Array, Array]:
    """Mean and deviation (d,) of the present rows; 1 for constant columns."""
    shares = weights[view.present] / weights[view.present].sum()
    rows = view.values[view.present]
    mean = shares @ rows
    deviation = np.sqrt(shares @ (rows - mean) ** 2)
    return mean, np.where(deviation > 1e-9 * np.maximum(1.0, np.abs(mean)), deviation, 1.0)


def _exact(machine: Machine) -> Machine:
    """The machine in float64: sums of thousands of small steps."""
    copy = Machine(
        [(len(machine.biases[m]), kind) for m, kind in enumerate(machine.kinds)],
        [len(machine.biases[machine.modalities * (level + 1)]) for level in range(machine.depth)],
        len(machine.biases[machine.joint]),
    )
    copy.load_state_dict(machine.state_dict())
    return copy.double()
