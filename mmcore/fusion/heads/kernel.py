"""The kernel head: support vector machines with a Gaussian kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

import numpy as np
from sklearn.svm import SVC, SVR

from mmcore.errors import FusionError
from mmcore.fusion.data import Array
from mmcore.fusion.heads.folds import folds
from mmcore.fusion.targets import Target, calibrate
from mmcore.records import Json

C_GRID = (0.1, 1.0, 10.0, 100.0)
"""Strengths tried for C = auto."""
EPSILON = 0.1
"""Errors of numbers that cost nothing, in deviations of the training numbers."""
MAX_GRAM_BYTES = 2**30
BATCH = 1024
"""Rows at a time when predicting."""


class KernelHead:
    """Support vector machines with k(x, z) = exp(−γ‖x − z‖²): one per class against the rest, one per label, or SVR.

    Outputs are f(x) = Σᵢ aᵢ k(xᵢ, x) + b of each machine. Classes and labels minimise
    ½‖f‖² + C Σᵢ wᵢ max(0, 1 − yᵢ f(xᵢ)) with y = ±1 (Cortes and Vapnik 1995), numbers
    ½‖f‖² + C Σᵢ wᵢ max(0, |yᵢ − f(xᵢ)| − ε) with y in units of its deviation (Drucker et al. 1997); by libsvm.
    γ = 1 / (d · the mean variance of the columns), 1/d on scaled views.

    C = auto takes the value of `C_GRID` with the lowest calibrated loss on validation rows, or out of fold on training
    rows; the same rows set the sharpness β that makes logits (softmax of all classes) or log-odds of β f.
    The Gram matrix takes 8 n² bytes and is refused above `MAX_GRAM_BYTES`. The model contains training rows.
    """

    contains_training_rows = True

    def __init__(self, target: Target, *, C: float | Literal["auto"] = "auto", random_state: int | None = None) -> None:
        self.target = target
        self.C = C
        self.random_state = random_state
        self.support = np.zeros((0, 0))
        self.dual = np.zeros((0, 0))
        self.intercepts = np.zeros(0)
        self.gamma = 1.0
        self.tried: dict[str, Json] = {}

    def fit(self, X: Array, targets: Array, weights: Array, validation: tuple[Array, Array] | None = None) -> Self:
        """Learn from rows (n, d) with encoded targets; `validation` is the same for other rows.

        Raises FusionError for more rows than the Gram matrix has room for.
        """
        counted = weights > 0
        X, targets, weights = X[counted], targets[counted], weights[counted]
        if 8 * len(X) ** 2 > MAX_GRAM_BYTES:
            most = int((MAX_GRAM_BYTES / 8) ** 0.5)
            raise FusionError(f"the kernel head learns from {most} rows at most, got {len(X)}; take another head")
        self.gamma = _gamma(X, weights)
        gram = gaussian(X, X, self.gamma)
        held = None if validation is None else (gaussian(validation[0], X, self.gamma), validation[1])
        grid = C_GRID if self.C == "auto" else (self.C,)
        found = [self._tried_with(C, gram, targets, weights, held) for C in grid]
        losses = [loss for *_, loss in found]
        best = int(np.argmin(losses))
        self.C = grid[best]
        (dual, self.intercepts), sharpness, _ = found[best]
        dual, self.intercepts = dual * sharpness, self.intercepts * sharpness
        used = (dual != 0).any(axis=0)
        self.support, self.dual = X[used], dual[:, used]
        self.tried = {"C": self.C, "log_loss": {f"{C:g}": loss for C, loss in zip(grid, losses, strict=True)}}
        return self

    def outputs(self, X: Array) -> Array:
        """Logits (n, C), log-odds (n, L) or values (n,)."""
        parts = [
            gaussian(X[start : start + BATCH], self.support, self.gamma) @ self.dual.T + self.intercepts
            for start in range(0, len(X), BATCH)
        ]
        values = np.concatenate(parts) if parts else np.zeros((0, len(self.intercepts)))
        return np.asarray(values[:, 0] if self.target.task == "regression" else values)

    def arrays(self, prefix: str) -> dict[str, Array]:
        return {
            f"{prefix}.support": self.support,
            f"{prefix}.dual": self.dual,
            f"{prefix}.intercepts": self.intercepts,
            f"{prefix}.gamma": np.array([self.gamma]),
        }

    @classmethod
    def restored(cls, target: Target, arrays: Mapping[str, Array], prefix: str) -> KernelHead:
        head = cls(target)
        head.support, head.dual = arrays[f"{prefix}.support"], arrays[f"{prefix}.dual"]
        head.intercepts, head.gamma = arrays[f"{prefix}.intercepts"], float(arrays[f"{prefix}.gamma"][0])
        return head

    def _tried_with(
        self, C: float, gram: Array, targets: Array, weights: Array, held: tuple[Array, Array] | None
    ) -> tuple[tuple[Array, Array], float, float]:
        """Machines learned from all rows, their sharpness, and their loss on rows that they did not learn from."""
        machines = support_vectors(self.target, gram, targets, weights, C)
        if held is not None:
            outputs, truth = self._values(held[0], machines), held[1]
        else:
            parts = folds(self.target, targets, self.random_state)
            if not parts:
                return machines, 1.0, 0.0
            outputs, truth = self._out_of_fold(C, gram, targets, weights, parts), targets
        sharpness = calibrate(self.target, outputs, truth)
        return machines, sharpness, self.target.loss(sharpness * outputs, truth)

    def _out_of_fold(
        self, C: float, gram: Array, targets: Array, weights: Array, parts: list[tuple[Array, Array]]
    ) -> Array:
        shape = (len(targets),) if self.target.task == "regression" else (len(targets), self.target.n_outputs)
        outputs = np.zeros(shape)
        for fit, held in parts:
            machines = support_vectors(self.target, gram[np.ix_(fit, fit)], targets[fit], weights[fit], C)
            outputs[held] = self._values(gram[np.ix_(held, fit)], machines)
        return outputs

    def _values(self, gram: Array, machines: tuple[Array, Array]) -> Array:
        values = gram @ machines[0].T + machines[1]
        return np.asarray(values[:, 0] if self.target.task == "regression" else values)


def support_vectors(target: Target, gram: Array, targets: Array, weights: Array, C: float) -> tuple[Array, Array]:
    """Coefficients (outputs, n) and intercepts (outputs,) of the machines in `KernelHead`, from a Gram matrix (n, n).

    A class or label that every row has, or none, is the constant ±1.
    """
    if target.task == "regression":
        machine = SVR(kernel="precomputed", C=C, epsilon=EPSILON)
        machine.fit(gram, (targets - target.prior[0]) / target.spread, weights)
        dual, intercept = _dense(machine, len(gram))
        return dual[None] * target.spread, np.array([intercept * target.spread + target.prior[0]])
    truth = targets[:, None] == np.arange(target.n_outputs) if target.task == "classes" else targets > 0
    duals, intercepts = np.zeros((target.n_outputs, len(gram))), np.zeros(target.n_outputs)
    for number, one in enumerate(truth.T):
        if one.all() or not one.any():
            intercepts[number] = 1.0 if one.all() else -1.0
        else:
            machine = SVC(kernel="precomputed", C=C).fit(gram, one, weights)
            duals[number], intercepts[number] = _dense(machine, len(gram))
    return duals, intercepts


def gaussian(A: Array, B: Array, gamma: float) -> Array:
    """exp(−γ‖a − b‖²) of each row of A (n, d) with each of B (m, d): (n, m)."""
    distances = (A * A).sum(axis=1)[:, None] + (B * B).sum(axis=1) - 2 * A @ B.T
    return np.asarray(np.exp(-gamma * np.maximum(distances, 0.0)))


def _dense(machine: SVC | SVR, rows: int) -> tuple[Array, float]:
    dual = np.zeros(rows)
    dual[machine.support_] = machine.dual_coef_[0]
    return dual, float(machine.intercept_[0])


def _gamma(X: Array, weights: Array) -> float:
    mean = np.average(X, axis=0, weights=weights)
    variance = float(np.average(((X - mean) ** 2).mean(axis=1), weights=weights))
    return 1.0 / (float(X.shape[1]) * (variance if variance > 0 else 1.0))
