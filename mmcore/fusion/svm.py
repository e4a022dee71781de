"""Support vector machines on weighted sums of kernels: on Gram matrices, or on Nyström features of too many rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR

from mmcore.fusion.data import Array, Views
from mmcore.fusion.kernels import CentredKernel, Expandable, Expansion, Kernel
from mmcore.fusion.mkl_weights import combined
from mmcore.fusion.nystrom import NystromKernel

INTERCEPT_SCALE = 10.0
"""The linear machine's library penalises the intercept over this scale as it does a weight."""

Folds = Sequence[tuple[Array, Array]]
"""Rows to learn from and rows held out, of each."""


@dataclass(frozen=True)
class Loss:
    """What a machine minimises: Σ wᵢ C ℓᵢ + ‖w‖² / 2, ℓ the hinge loss of signs, or of numbers |error| beyond ε."""

    C: float
    epsilon: float | None = None
    """Of numbers; None for signs."""


@dataclass(frozen=True, eq=False)
class Machine:
    """f(x) = Σ cᵢ k(x, xᵢ) + b, and `linear`, the linear term of its dual at the solution."""

    coefficients: Array
    intercept: float
    linear: float


def fit_machine(gram: Array, target: Array, weights: Array, loss: Loss, *, tolerance: float = 1e-4) -> Machine:
    """The support vector machine on a Gram matrix (n, n); targets (n,) are ±1 or numbers, all alike: a constant."""
    coefficients = np.zeros(len(target))
    if np.ptp(target) == 0:
        return Machine(coefficients, float(target[0]), 0.0)
    if loss.epsilon is None:
        found = SVC(C=loss.C, kernel="precomputed", tol=tolerance)
    else:
        found = SVR(C=loss.C, epsilon=loss.epsilon, kernel="precomputed", tol=tolerance)
    found.fit(gram, target, sample_weight=weights)
    coefficients[found.support_] = found.dual_coef_[0]
    size = float(np.abs(coefficients).sum())
    linear = size if loss.epsilon is None else float(target @ coefficients) - loss.epsilon * size
    return Machine(coefficients, float(found.intercept_[0]), linear)


def fit_linear(features: Array, target: Array, weights: Array, loss: Loss) -> Machine:
    """The machine on features (n, r), with the loss squared: fast where rows are many, and hardly another answer."""
    if np.ptp(target) == 0 or not features.shape[1]:
        return Machine(np.zeros(features.shape[1]), float(np.average(target, weights=weights)), 0.0)
    settings = {"C": loss.C, "dual": False, "intercept_scaling": INTERCEPT_SCALE, "max_iter": 10_000}
    if loss.epsilon is None:
        found = LinearSVC(loss="squared_hinge", **settings)
    else:
        found = LinearSVR(loss="squared_epsilon_insensitive", epsilon=loss.epsilon, **settings)
    found.fit(features, target, sample_weight=weights)
    return Machine(np.ravel(found.coef_), float(np.ravel(found.intercept_)[0]), 0.0)


class KernelSpace(ABC):
    """Several kernels on each of several views, fitted on training rows: where machines are learned."""

    fitted: dict[str, list[Expandable]]
    """Of each view, its kernels; in the order in which weights count them."""

    def machine(self, eta: Array, target: Array, weights: Array, loss: Loss, folds: Folds) -> tuple[Machine, Array]:
        """The machine on Σ η_m K_m, and the scores (n,) of rows held out by `folds` from machines without them."""
        block = self._summed(eta)
        held_out = np.zeros(len(target))
        for kept, held in folds:
            part = self._learned(block, kept, target[kept], weights[kept], loss)
            held_out[held] = self._scores(block, held, kept, part)
        return self._learned(block, np.arange(len(target)), target, weights, loss), held_out

    def expansions(self, eta: Array, machines: Sequence[Machine]) -> dict[str, Expansion]:
        """All problems' machines without their intercepts, as one expansion per view; `eta` (problems, kernels)."""
        number, found = 0, {}
        for name, kernels in self.fitted.items():
            terms = []
            for kernel in kernels:
                terms.append((kernel, self._coefficients(number, eta[:, number], machines)))
                number += 1
            found[name] = Expansion.joined(terms)
        return found

    @abstractmethod
    def _summed(self, eta: Array) -> Array:
        """What machines are learned on, for these weights (kernels,)."""

    @abstractmethod
    def _learned(self, block: Array, rows: Array, target: Array, weights: Array, loss: Loss) -> Machine:
        """The machine of some rows of `block`."""

    @abstractmethod
    def _scores(self, block: Array, rows: Array, kept: Array, machine: Machine) -> Array:
        """Scores of rows by a machine that learned from the rows `kept`."""

    @abstractmethod
    def _coefficients(self, number: int, eta: Array, machines: Sequence[Machine]) -> Array:
        """The coefficients (·, problems) that the machines put on one kernel."""


class GramSpace(KernelSpace):
    """Kernels as exact Gram matrices: `grams` (kernels, n, n)."""

    def __init__(self, kernels: Sequence[Kernel], views: Views, weights: Array) -> None:
        self.fitted, grams = {}, np.empty((len(kernels) * len(views.keys()), len(views), len(views)))
        number = 0
        for name, view in views.items():
            self.fitted[name] = []
            for kernel in kernels:
                centred = CentredKernel(kernel)
                grams[number] = centred.fit_transform(view, weights)
                self.fitted[name].append(centred)
                number += 1
        self.grams = grams
        self._last: tuple[Array, Array] | None = None

    def _summed(self, eta: Array) -> Array:
        # Problems with equal weights share their sum.
        if self._last is None or not np.array_equal(self._last[0], eta):
            self._last = eta, combined(self.grams, eta)
        return self._last[1]

    def _learned(self, block: Array, rows: Array, target: Array, weights: Array, loss: Loss) -> Machine:
        part = block if len(rows) == len(block) else block[np.ix_(rows, rows)]
        return fit_machine(part, target, weights, loss)

    def _scores(self, block: Array, rows: Array, kept: Array, machine: Machine) -> Array:
        return np.asarray(block[np.ix_(rows, kept)] @ machine.coefficients + machine.intercept)

    def _coefficients(self, number: int, eta: Array, machines: Sequence[Machine]) -> Array:
        return np.stack([machine.coefficients for machine in machines], axis=1) * eta


class FeatureSpace(KernelSpace):
    """Kernels as Nyström features, √η_m φ_m side by side."""

    def __init__(self, kernels: Sequence[Kernel], views: Views, weights: Array, landmarks: int, seed: int) -> None:
        self.fitted, features = {}, []
        for name, view in views.items():
            self.fitted[name] = []
            for kernel in kernels:
                approximate = NystromKernel(kernel, landmarks=landmarks, seed=seed)
                features.append(approximate.fit_transform(view, weights))
                self.fitted[name].append(approximate)
        self.edges = np.cumsum([0, *(part.shape[1] for part in features)])
        self.features = np.concatenate(features, axis=1)

    def _summed(self, eta: Array) -> Array:
        return np.asarray(self.features * np.sqrt(np.repeat(eta, np.diff(self.edges))))

    def _learned(self, block: Array, rows: Array, target: Array, weights: Array, loss: Loss) -> Machine:
        return fit_linear(block if len(rows) == len(block) else block[rows], target, weights, loss)

    def _scores(self, block: Array, rows: Array, kept: Array, machine: Machine) -> Array:
        return np.asarray(block[rows] @ machine.coefficients + machine.intercept)

    def _coefficients(self, number: int, eta: Array, machines: Sequence[Machine]) -> Array:
        part = slice(self.edges[number], self.edges[number + 1])
        return np.stack([machine.coefficients[part] for machine in machines], axis=1) * np.sqrt(eta)


def sigmoid(scores: Array, labels: Array) -> tuple[float, float]:
    """Slope a and offset b with which σ(a s + b) tells how probable a 1 is, from scores (n,) and labels of 0 and 1.

    The maximum likelihood for labels pulled a little to the middle, (n₁ + 1) / (n₁ + 2) and 1 / (n₀ + 2), which keeps
    it finite (Platt 1999, "Probabilistic outputs for support vector machines"); the slope is never negative.
    """
    ones = float(labels.sum())
    aims = np.where(labels > 0, (ones + 1) / (ones + 2), 1 / (len(labels) - ones + 2))

    def loss(both: Array) -> tuple[float, Array]:
        odds = both[0] * scores + both[1]
        miss = expit(odds) - aims
        return float(np.mean(np.logaddexp(0.0, odds) - aims * odds)), np.array([miss @ scores, miss.sum()]) / len(aims)

    start = np.array([0.0, np.log((ones + 1) / (len(labels) - ones + 1))])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, None), (None, None)])
    return float(found.x[0]), float(found.x[1])
