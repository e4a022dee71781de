"""The linear head: logistic regression of classes and labels, ridge regression of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_softmax

from mmcore.fusion.data import Array
from mmcore.fusion.heads.folds import folds
from mmcore.fusion.targets import Target, calibrate
from mmcore.records import Json

C_GRID = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Strengths tried for C = auto, strongest penalty first."""


class LinearHead:
    """A linear model with an L2 penalty, calibrated on validation rows where there are any.

    Minimises Σᵢ wᵢ · ℓ(W xᵢ + b, yᵢ) + ‖W‖² / (2C) over W (outputs, d) and b (not penalised), float64. For classes
    ℓ is −log softmax[y] (multinomial logistic regression), for labels the sum of their binary log losses, both by
    L-BFGS; for numbers half the squared error (ridge regression with α = 1 / C), in closed form. C = auto takes the
    value of `C_GRID` with the lowest calibrated validation loss, or, without validation rows, the lowest loss in
    cross-validation. Calibration divides W and b by one temperature, see `targets.calibrate`.
    """

    contains_training_rows = False

    def __init__(self, target: Target, *, C: float | Literal["auto"] = "auto", random_state: int | None = None) -> None:
        self.target = target
        self.C = C
        self.random_state = random_state
        self.weights = np.zeros((0, 0))
        self.intercepts = np.zeros(0)
        self.tried: dict[str, Json] = {}
        """`C` taken, and the loss of each that was tried."""

    def fit(self, X: Array, targets: Array, weights: Array, validation: tuple[Array, Array] | None = None) -> Self:
        """Learn from rows (n, d) with encoded targets; `validation` is the same for other rows."""
        counted = weights > 0
        X, targets, weights = X[counted], targets[counted], weights[counted]
        if self.C == "auto" and validation is None:
            self.C, losses = self._cross_validated(X, targets, weights)
            self.tried = {"C": self.C, "log_loss": losses}
        if self.C != "auto":
            self._take(minimise(self.target, X, targets, weights, self.C), validation)
            self.tried = self.tried or {"C": self.C}
            return self
        assert validation is not None
        best, losses, start = None, {}, None
        for C in C_GRID:
            start = minimise(self.target, X, targets, weights, C, start=start)
            loss = self._take(start, validation)
            losses[f"{C:g}"] = loss
            if best is None or loss < best[0]:
                best = loss, C, self.weights, self.intercepts
        assert best is not None
        _, self.C, self.weights, self.intercepts = best
        self.tried = {"C": self.C, "log_loss": losses}
        return self

    def outputs(self, X: Array) -> Array:
        """Logits (n, C), log-odds (n, L) or values (n,)."""
        return _linear(self.target, np.column_stack([self.weights, self.intercepts]), X)

    def arrays(self, prefix: str) -> dict[str, Array]:
        return {f"{prefix}.weights": self.weights, f"{prefix}.intercepts": self.intercepts}

    @classmethod
    def restored(cls, target: Target, arrays: Mapping[str, Array], prefix: str) -> LinearHead:
        head = cls(target)
        head.weights, head.intercepts = arrays[f"{prefix}.weights"], arrays[f"{prefix}.intercepts"]
        return head

    def _take(self, coefficients: Array, validation: tuple[Array, Array] | None) -> float:
        """Keep these coefficients, calibrated; returns the validation loss (0 without validation)."""
        self.weights, self.intercepts = coefficients[:, :-1], coefficients[:, -1]
        if validation is None:
            return 0.0
        rows, truth = validation
        outputs = _linear(self.target, coefficients, rows)
        sharpness = calibrate(self.target, outputs, truth)
        self.weights, self.intercepts = self.weights * sharpness, self.intercepts * sharpness
        return self.target.loss(outputs * sharpness, truth)

    def _cross_validated(self, X: Array, targets: Array, weights: Array) -> tuple[float, dict[str, float]]:
        parts = folds(self.target, targets, self.random_state)
        if not parts:
            return 1.0, {}
        losses = dict.fromkeys(C_GRID, 0.0)
        for fit, held in parts:
            start = None
            for C in C_GRID:
                start = minimise(self.target, X[fit], targets[fit], weights[fit], C, start=start)
                loss = self.target.loss(_linear(self.target, start, X[held]), targets[held], weights[held])
                losses[C] += loss * float(weights[held].sum() / weights.sum())
        return min(losses, key=lambda C: losses[C]), {f"{C:g}": loss for C, loss in losses.items()}


def _linear(target: Target, coefficients: Array, X: Array) -> Array:
    outputs = X @ coefficients[:, :-1].T + coefficients[:, -1]
    return np.asarray(outputs[:, 0] if target.task == "regression" else outputs)


def minimise(
    target: Target, X: Array, targets: Array, weights: Array, C: float, *, start: Array | None = None
) -> Array:
    """The minimiser (outputs, d + 1), intercepts last, of the penalised loss in `LinearHead`."""
    if target.task == "regression":
        return _ridge(X, targets, weights, C)
    total, width, outputs = weights.sum(), X.shape[1], target.n_outputs
    penalty = 1.0 / (C * total)
    truth = targets
    if target.task == "classes":
        truth = np.zeros((len(X), outputs))
        truth[np.arange(len(X)), targets] = 1.0

    def loss_and_gradient(flat: Array) -> tuple[float, Array]:
        coefficients = flat.reshape(outputs, width + 1)
        W = coefficients[:, :-1]
        logits = X @ W.T + coefficients[:, -1]
        if target.task == "classes":
            log_p = log_softmax(logits, axis=1)
            each, residual = -(truth * log_p).sum(axis=1), np.exp(log_p) - truth
        else:
            each, residual = (np.logaddexp(0.0, logits) - truth * logits).sum(axis=1), expit(logits) - truth
        loss = (weights * each).sum() / total + penalty / 2 * (W * W).sum()
        residual *= (weights / total)[:, None]
        gradient = np.empty_like(coefficients)
        gradient[:, :-1] = residual.T @ X + penalty * W
        gradient[:, -1] = residual.sum(axis=0)
        return float(loss), gradient.ravel()

    first = np.zeros((outputs, width + 1)) if start is None else start
    options: dict[str, Any] = {"maxiter": 2000, "maxfun": 4000, "gtol": 1e-6, "ftol": 1e-12}
    found = minimize(loss_and_gradient, first.ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x).reshape(outputs, width + 1)


def _ridge(X: Array, targets: Array, weights: Array, C: float) -> Array:
    mean, centre = np.average(X, axis=0, weights=weights), np.average(targets, weights=weights)
    root = np.sqrt(weights)[:, None]
    A, b = (X - mean) * root, (targets - centre) * root[:, 0]
    if A.shape[0] >= A.shape[1]:
        slopes = np.linalg.solve(A.T @ A + np.eye(A.shape[1]) / C, A.T @ b)
    else:
        slopes = A.T @ np.linalg.solve(A @ A.T + np.eye(A.shape[0]) / C, b)
    return np.append(slopes, centre - mean @ slopes)[None, :]
