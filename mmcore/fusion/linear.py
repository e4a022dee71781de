"""The linear classifier under the closed-form methods, and the calibration of log probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax
from sklearn.model_selection import StratifiedKFold

from mmcore.fusion.data import Array
from mmcore.records import Json

C_GRID = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Strengths tried for C = auto, strongest penalty first."""

MAX_FOLDS = 5


class LinearHead:
    """Multinomial logistic regression with an L2 penalty, calibrated on validation rows where there are any.

    Minimises Σᵢ wᵢ · −log softmax(W xᵢ + b)[yᵢ] + ‖W‖² / (2C) over W (classes, d) and b (not penalised) by L-BFGS,
    float64. C = auto takes the value of `C_GRID` with the lowest calibrated validation log loss, or, without
    validation rows, the lowest log loss in stratified cross-validation. Calibration divides W and b by the temperature
    of Guo et al. 2017, "On calibration of modern neural networks".
    """

    def __init__(self, C: float | Literal["auto"] = "auto", random_state: int | None = None) -> None:
        self.C = C
        self.random_state = random_state
        self.weights = np.zeros((0, 0))
        self.intercepts = np.zeros(0)
        self.tried: dict[str, Json] = {}
        """`C` taken, and the log loss of each that was tried."""

    def fit(
        self, X: Array, codes: Array, n_classes: int, weights: Array, validation: tuple[Array, Array] | None = None
    ) -> LinearHead:
        """Learn from rows (n, d) with class codes (n,); `validation` is the same for other rows."""
        if self.C == "auto" and validation is None:
            self.C, losses = self._cross_validated(X, codes, n_classes, weights)
            self.tried = {"C": self.C, "log_loss": losses}
        if self.C != "auto":
            self._take(minimise(X, codes, n_classes, weights, self.C), validation)
            self.tried = self.tried or {"C": self.C}
            return self
        assert validation is not None
        best, losses, start = None, {}, None
        for C in C_GRID:
            start = minimise(X, codes, n_classes, weights, C, start=start)
            loss = self._take(start, validation)
            losses[f"{C:g}"] = loss
            if best is None or loss < best[0]:
                best = loss, C, self.weights, self.intercepts
        assert best is not None
        _, self.C, self.weights, self.intercepts = best
        self.tried = {"C": self.C, "log_loss": losses}
        return self

    def log_proba(self, X: Array) -> Array:
        """Log probabilities (n, classes)."""
        return np.asarray(log_softmax(X @ self.weights.T + self.intercepts, axis=1))

    def arrays(self, prefix: str) -> dict[str, Array]:
        return {f"{prefix}.weights": self.weights, f"{prefix}.intercepts": self.intercepts}

    @classmethod
    def restored(cls, arrays: Mapping[str, Array], prefix: str) -> LinearHead:
        head = cls()
        head.weights, head.intercepts = arrays[f"{prefix}.weights"], arrays[f"{prefix}.intercepts"]
        return head

    def _take(self, coefficients: Array, validation: tuple[Array, Array] | None) -> float:
        """Keep these coefficients, calibrated; returns the validation log loss (0 without validation)."""
        self.weights, self.intercepts = coefficients[:, :-1], coefficients[:, -1]
        if validation is None:
            return 0.0
        rows, codes = validation
        logits = rows @ self.weights.T + self.intercepts
        sharpness = calibrate(logits, codes)
        self.weights, self.intercepts = self.weights * sharpness, self.intercepts * sharpness
        return log_loss(logits * sharpness, codes)

    def _cross_validated(
        self, X: Array, codes: Array, n_classes: int, weights: Array
    ) -> tuple[float, dict[str, float]]:
        counts = np.bincount(codes, minlength=n_classes)
        folds = min(MAX_FOLDS, int(counts[counts > 0].min()))
        if folds < 2:
            return 1.0, {}
        losses = dict.fromkeys(C_GRID, 0.0)
        seed = 0 if self.random_state is None else self.random_state
        for fit, held in StratifiedKFold(folds, shuffle=True, random_state=seed).split(X, codes):
            start = None
            for C in C_GRID:
                start = minimise(X[fit], codes[fit], n_classes, weights[fit], C, start=start)
                logits = X[held] @ start[:, :-1].T + start[:, -1]
                losses[C] += log_loss(logits, codes[held]) * len(held) / len(codes)
        return min(losses, key=lambda C: losses[C]), {f"{C:g}": loss for C, loss in losses.items()}


def minimise(X: Array, codes: Array, n_classes: int, weights: Array, C: float, *, start: Array | None = None) -> Array:
    """The minimiser (classes, d + 1), intercepts last, of the penalised log loss in `LinearHead`."""
    total, width = weights.sum(), X.shape[1]
    target = np.zeros((len(X), n_classes))
    target[np.arange(len(X)), codes] = 1.0
    penalty = 1.0 / (C * total)

    def loss_and_gradient(flat: Array) -> tuple[float, Array]:
        coefficients = flat.reshape(n_classes, width + 1)
        W = coefficients[:, :-1]
        log_p = log_softmax(X @ W.T + coefficients[:, -1], axis=1)
        loss = -(weights * log_p[np.arange(len(X)), codes]).sum() / total + penalty / 2 * (W * W).sum()
        residual = (np.exp(log_p) - target) * (weights / total)[:, None]
        gradient = np.empty_like(coefficients)
        gradient[:, :-1] = residual.T @ X + penalty * W
        gradient[:, -1] = residual.sum(axis=0)
        return float(loss), gradient.ravel()

    first = np.zeros((n_classes, width + 1)) if start is None else start
    options: dict[str, Any] = {"maxiter": 2000, "maxfun": 4000, "gtol": 1e-6, "ftol": 1e-12}
    found = minimize(loss_and_gradient, first.ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x).reshape(n_classes, width + 1)


def log_loss(logits: Array, codes: Array) -> float:
    """Mean negative log probability (natural) of the true classes under softmax(logits)."""
    return float(-log_softmax(logits, axis=1)[np.arange(len(codes)), codes].mean())


def calibrate(logits: Array, codes: Array) -> float:
    """The factor on the logits with the lowest log loss on these rows: one over the temperature.

    A standard normal prior on its logarithm keeps it finite where all rows are classified rightly.
    """

    def loss(log_factor: float) -> float:
        return log_loss(np.exp(log_factor) * logits, codes) + log_factor**2 / (2 * len(codes))

    found = minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))
