"""What the kernel methods have in common: kernels of views, weights for them, machines on their sum, probabilities."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold

from mmcore.errors import FusionError
from mmcore.fusion.base import FitRun, FusionModel, Rows
from mmcore.fusion.data import Array, Views
from mmcore.fusion.kernels import Expansion, Kernel, KernelName
from mmcore.fusion.nystrom import choose_landmarks, exact_rows, landmarks_within
from mmcore.fusion.svm import FeatureSpace, Folds, GramSpace, Loss, sigmoid
from mmcore.fusion.targets import calibrate
from mmcore.records import Json

FOLDS = 3
"""Parts that are held out in turn to calibrate probabilities where there are no validation rows."""
EPSILON = 0.1
"""Errors of numbers below this share of their deviation cost nothing."""

KernelNames = KernelName | Sequence[KernelName]
Gammas = float | Sequence[float]


class KernelFusion(FusionModel):
    """Base of the kernel methods: support vector machines on K = Σ η_m K_m, one or more kernels K_m of each view.

    The kernels are centred at the training rows' mean in their own space, scaled to a mean k(x, x) of one, and zero
    where a row lacks the view (see `CentredKernel`). Classes are told one from the rest (two classes by one machine),
    every label has a machine of its own, numbers are learned by support vector regression in units of their deviation.
    A method writes `_weights`, the η of each such problem. Class scores become probabilities by one temperature, labels
    by a sigmoid each (`sigmoid`), learned on validation rows, or without any on training rows held out in three parts.

    Where Gram matrices would take more than `memory_bytes`, weights are learned on as many rows as fit, and machines
    on Nyström features of all rows, with the loss squared.

    Learned: `kernel_weights_` (problems, kernels), kernels of the first view first; `expansions_` {view: Expansion}.
    """

    handles_missing = "native"
    contains_training_rows = True

    kernels: KernelNames
    gamma: Gammas
    degree: int
    coef0: float
    C: float
    memory_bytes: int
    landmarks: int

    def _fit(self, train: Rows, validation: Rows | None, run: FitRun) -> None:
        rows = train[train.weights > 0]
        problems, kernels, seed = self._problems(rows.targets), self._kernels(), self.random_state or 0
        count = len(kernels) * len(self.modalities_)
        landmarks = landmarks_within(self.memory_bytes, len(rows), count, self.landmarks)
        space: GramSpace | FeatureSpace
        if landmarks is None:
            space = GramSpace(kernels, rows.views, rows.weights)
            eta = self._weights(space.grams, problems, rows.weights)
        else:
            names = [str(row) for row in range(len(rows))]
            some = choose_landmarks(names, exact_rows(self.memory_bytes, count), seed)
            part = rows[some]
            grams = GramSpace(kernels, part.views, part.weights).grams
            eta = self._weights(grams, problems[some], part.weights)
            if (eta < 0).any():
                raise FusionError("nonnegative: false needs exact kernels; raise memory_bytes")
            del grams
            space = FeatureSpace(kernels, rows.views, rows.weights, landmarks, seed)
        folds = self._folds(rows) if validation is None else []
        learned = [
            space.machine(one, target, rows.weights, self._loss(), folds)
            for one, target in zip(eta, problems.T, strict=True)
        ]
        machines = [machine for machine, _ in learned]
        self.kernel_weights_ = eta
        self.expansions_ = space.expansions(eta, machines)
        self.intercepts_ = np.array([machine.intercept for machine in machines])
        if validation is not None:
            self._calibrate(self._scores(validation.views), validation.targets)
        else:
            self._calibrate(np.stack([held for _, held in learned], axis=1) if folds else None, rows.targets)
        named = dict(zip(self._kernel_names(), eta.mean(axis=0).tolist(), strict=True))
        self.curves_ = {**self.curves_, "kernel_weights": named, "landmarks": landmarks}

    @abstractmethod
    def _weights(self, grams: Array, problems: Array, weights: Array) -> Array:
        """η (problems, kernels) for Gram matrices (kernels, n, n) and targets (n, problems): ±1 or numbers."""

    def _outputs(self, views: Views) -> Array:
        scores = self._scores(views) * self.slopes_ + self.offsets_
        if self.task == "regression":
            return np.asarray(scores[:, 0])
        return self._logits(scores) if self.task == "classes" else scores

    def _state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        arrays = {
            key: array for name, machine in self.expansions_.items() for key, array in machine.arrays(name).items()
        }
        learned = {
            "kernel_weights": self.kernel_weights_,
            "intercepts": self.intercepts_,
            "slopes": self.slopes_,
            "offsets": self.offsets_,
        }
        return {f"kernels.{key}": array for key, array in arrays.items()} | learned, {}

    def _restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        kernels = self._kernels()
        self.expansions_ = {name: Expansion.restored(kernels, arrays, f"kernels.{name}") for name in self.modalities_}
        self.kernel_weights_, self.intercepts_ = arrays["kernel_weights"], arrays["intercepts"]
        self.slopes_, self.offsets_ = arrays["slopes"], arrays["offsets"]

    def _kernels(self) -> list[Kernel]:
        """The kernels that every view gets: each name, those with a γ once per γ."""
        names = [self.kernels] if isinstance(self.kernels, str) else list(self.kernels)
        gammas = list(self.gamma) if isinstance(self.gamma, Sequence) else [self.gamma]
        return [
            Kernel(name, gamma, self.degree, self.coef0)
            for name in names
            for gamma in (gammas if name not in ("linear", "cosine") else gammas[:1])
        ]

    def _kernel_names(self) -> list[str]:
        kernels = self._kernels()
        several = len({kernel.gamma for kernel in kernels}) > 1
        ends = [
            f" {kernel.name}" + (f" {kernel.gamma:g}" if several and kernel.name not in ("linear", "cosine") else "")
            for kernel in kernels
        ]
        return [name + end for name in self.modalities_ for end in (ends if len(ends) > 1 else [""])]

    def _loss(self) -> Loss:
        return Loss(self.C, EPSILON if self.task == "regression" else None)

    def _problems(self, targets: Array) -> Array:
        """One column (n, problems) per machine."""
        if self.task == "regression":
            return np.asarray((targets - self.prior_[0]) / self.target_.spread)[:, None]
        if self.task == "multilabel":
            return np.asarray(2.0 * targets - 1.0)
        codes = np.arange(len(self.classes_)) if len(self.classes_) > 2 else np.array([1])
        return np.where(targets[:, None] == codes, 1.0, -1.0)

    def _scores(self, views: Views) -> Array:
        """The machines' own values (n, problems)."""
        scores = np.tile(self.intercepts_, (len(views), 1))
        for name, view in views.items():
            scores += self.expansions_[name].of(view)
        return scores

    def _logits(self, scores: Array) -> Array:
        return np.hstack([-scores, scores]) if scores.shape[1] == 1 else scores

    def _folds(self, rows: Rows) -> Folds:
        """None where rows are too few; numbers need no calibration."""
        if self.task == "regression":
            return []
        if self.task == "classes":
            counts = np.bincount(rows.targets)
            parts = min(FOLDS, int(counts[counts > 0].min()))
            cut = StratifiedKFold if parts > 1 else None
        else:
            parts, cut = FOLDS, KFold if len(rows) >= 2 * FOLDS else None
        if cut is None:
            return []
        folds = cut(parts, shuffle=True, random_state=self.random_state or 0)
        return list(folds.split(rows.targets, rows.targets))

    def _calibrate(self, scores: Array | None, targets: Array) -> None:
        """What turns scores into outputs, from scores of rows that the machines did not learn from, if any."""
        count = len(self.intercepts_)
        self.slopes_, self.offsets_ = np.ones(count), np.zeros(count)
        if self.task == "regression":
            self.slopes_[:], self.offsets_[:] = self.target_.spread, self.prior_[0]
        elif scores is not None and self.task == "classes":
            self.slopes_[:] = calibrate(self.target_, self._logits(scores), targets)
        elif scores is not None:
            for label in range(count):
                self.slopes_[label], self.offsets_[label] = sigmoid(scores[:, label], targets[:, label])
