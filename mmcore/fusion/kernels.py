"""Kernels of one view: their functions, their centring at the training rows, and machines on them for new rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
from sklearn.metrics import pairwise

from mmcore.errors import FusionError
from mmcore.fusion.data import Array, View

KernelName = Literal["linear", "polynomial", "rbf", "cosine", "chi2"]

BLOCK_VALUES = 1 << 22
"""A block of kernel values for new rows has at most so many (32 MiB)."""


@dataclass(frozen=True)
class Kernel:
    """k(x, y) of two vectors with d values.

    `linear` xᵀy · `polynomial` (γ xᵀy + c)^p · `rbf` exp(−γ‖x − y‖²) · `cosine` xᵀy / ‖x‖‖y‖ ·
    `chi2` exp(−γ Σ (xᵢ − yᵢ)² / (xᵢ + yᵢ)) of values that are not negative (Zhang et al. 2007, "Local features and
    kernels for classification"). γ is `gamma` / d, of χ², whose sum is over shares of one whole, `gamma` itself.
    """

    name: KernelName = "rbf"
    gamma: float = 1.0
    degree: int = 3
    coef0: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in get_args(KernelName):
            raise FusionError(f"unknown kernel {self.name!r}; there are {', '.join(get_args(KernelName))}")

    def __call__(self, X: Array, Y: Array) -> Array:
        """Values (n, m) for rows (n, d) and (m, d); χ² takes a negative value, which no training row has, as 0."""
        if not len(X) or not len(Y):
            return np.zeros((len(X), len(Y)))
        gamma = self.gamma / X.shape[1]
        if self.name == "linear":
            return np.asarray(X @ Y.T)
        if self.name == "polynomial":
            return np.asarray((gamma * (X @ Y.T) + self.coef0) ** self.degree)
        if self.name == "rbf":
            return np.asarray(pairwise.rbf_kernel(X, Y, gamma))
        if self.name == "cosine":
            return np.asarray(pairwise.cosine_similarity(X, Y))
        return np.asarray(pairwise.chi2_kernel(np.maximum(X, 0.0), np.maximum(Y, 0.0), self.gamma))

    def check(self, rows: Array) -> None:
        """Raise FusionError where the kernel is not one of these training rows (n, d): χ² of negative values."""
        if self.name == "chi2" and rows.size and rows.min() < 0:
            raise FusionError("the chi2 kernel needs features that are not negative, scaled by `none` or `l2`")

    def diagonal(self, X: Array) -> Array:
        """k(x, x) of each row: (n,)."""
        if self.name in ("rbf", "chi2"):
            return np.ones(len(X))
        squares = np.einsum("nd,nd->n", X, X)
        if self.name == "cosine":
            return np.asarray((squares > 0).astype(np.float64))
        if self.name == "linear":
            return np.asarray(squares)
        return np.asarray((self.gamma / X.shape[1] * squares + self.coef0) ** self.degree)


class Expandable(Protocol):
    """A fitted kernel on which a machine can be written without centring."""

    kernel: Kernel

    def expanded(self, coefficients: Array) -> tuple[Array, Array, Array]: ...


class CentredKernel:
    """k̃(x, y) = ⟨φ(x) − μ, φ(y) − μ⟩ / s of one view, and zero where x or y does not have it.

    μ = Σ wᵢ φ(xᵢ) is the weighted mean of the present training rows in the kernel's space (Schölkopf et al. 1998,
    "Nonlinear component analysis"), and s the weighted mean of their k(x, x), so that kernels of different kinds count
    alike (s = 1 without `normalise`). An absent view stands at μ: zero is what its row adds to any sum, so that
    sums over views stay positive semi-definite, which means over the views that two rows have in common do not.
    """

    def __init__(self, kernel: Kernel, *, normalise: bool = True) -> None:
        self.kernel = kernel
        self.normalise = normalise

    def fit_transform(self, view: View, weights: Array) -> Array:
        """The training rows' kernel values (n, n), symmetric; `weights` (n,) say how much each row counts."""
        self.rows, self.present = np.asarray(view.values, np.float64), view.present
        there = np.flatnonzero(view.present)
        self.kernel.check(self.rows[there])
        self.weights = shares(view, weights)
        self.scale = scale_of(self.kernel, self.rows, self.weights) if self.normalise else 1.0
        gram = self.kernel(self.rows[there], self.rows[there]) / self.scale
        means = gram @ self.weights[there]
        self.row_means = np.zeros(len(view))
        self.row_means[there] = means
        self.mean = float(self.weights[there] @ means)
        gram += self.mean - means[:, None] - means
        # Some kernels differ in the last bit between (x, y) and (y, x).
        gram = (gram + gram.T) / 2
        if len(there) == len(view):
            return np.asarray(gram)
        whole = np.zeros((len(view), len(view)))
        whole[np.ix_(there, there)] = gram
        return whole

    def transform(self, view: View) -> Array:
        """Kernel values (n, training rows) of other rows."""
        values = np.zeros((len(view), len(self.rows)))
        there = np.flatnonzero(self.present)
        fresh = self.kernel(np.asarray(view.values[view.present], np.float64), self.rows[there]) / self.scale
        fresh += self.mean - (fresh @ self.weights[there])[:, None] - self.row_means[there]
        values[np.ix_(view.present, there)] = fresh
        return values

    def expanded(self, coefficients: Array) -> tuple[Array, Array, Array]:
        """Σᵢ k̃(x, xᵢ) cᵢ as Σᵢ k(x, rowᵢ) bᵢ + b₀, which needs no centring: rows (n, d), b (n, k), b₀ (k,).

        `coefficients` (training rows, k). Where every row has the view and the cᵢ sum to zero, as those of a support
        vector machine do, only rows with cᵢ ≠ 0 have a bᵢ ≠ 0.
        """
        there = coefficients * self.present[:, None]
        total = there.sum(axis=0)
        # Rounding aside, a sum that should be zero is zero: else every training row would be needed.
        total[np.abs(total) <= 1e-9 * np.abs(there).sum(axis=0)] = 0.0
        constant = total * self.mean - self.row_means @ there
        found = (there - np.outer(self.weights, total)) / self.scale
        return self.rows, found, constant


@dataclass(frozen=True, eq=False)
class Expansion:
    """f(x) = Σ_q Σᵢ k_q(x, rowᵢ) b_qi + b₀ of one view: a machine on several kernels, ready for new rows.

    `rows` (m, d), `coefficients` (kernels, m, k), `constant` (k,).
    """

    kernels: tuple[Kernel, ...]
    rows: Array
    coefficients: Array
    constant: Array

    @classmethod
    def joined(cls, machines: Sequence[tuple[Expandable, Array]]) -> Expansion:
        """The sum of machines on kernels of one view, given as the fitted kernel and its coefficients.

        Rows on which nothing depends are left out.
        """
        parts = [kernel.expanded(coefficients) for kernel, coefficients in machines]
        stacked = np.stack([found for _, found, _ in parts])
        kept = (stacked != 0).any(axis=(0, 2))
        constant = np.sum([constant for _, _, constant in parts], axis=0)
        return cls(tuple(kernel.kernel for kernel, _ in machines), parts[0][0][kept], stacked[:, kept], constant)

    def __call__(self, values: Array) -> Array:
        """Values (n, k) for rows (n, d), in blocks of bounded memory."""
        out = np.tile(self.constant, (len(values), 1))
        step = max(1, BLOCK_VALUES // max(1, len(self.rows)))
        for start in range(0, len(values), step):
            block = np.asarray(values[start : start + step], np.float64)
            for kernel, coefficients in zip(self.kernels, self.coefficients, strict=True):
                out[start : start + step] += kernel(block, self.rows) @ coefficients
        return out

    def of(self, view: View) -> Array:
        """Values (n, k) for a view's rows, zero where absent."""
        out = np.zeros((len(view), len(self.constant)))
        out[view.present] = self(view.values[view.present])
        return out

    def arrays(self, prefix: str) -> dict[str, Array]:
        return {
            f"{prefix}.rows": self.rows,
            f"{prefix}.coefficients": self.coefficients,
            f"{prefix}.constant": self.constant,
        }

    @classmethod
    def restored(cls, kernels: Sequence[Kernel], arrays: Mapping[str, Array], prefix: str) -> Expansion:
        named = (arrays[f"{prefix}.{part}"] for part in ("rows", "coefficients", "constant"))
        return cls(tuple(kernels), *named)


def shares(view: View, weights: Array) -> Array:
    """Weights (n,) of present rows, summing to one (to zero where no row has the view); absent rows have zero."""
    there = np.where(view.present, weights, 0.0)
    return np.asarray(there / (there.sum() or 1.0))


def scale_of(kernel: Kernel, rows: Array, weights: Array) -> float:
    """The weighted mean of k(x, x), 1 where that is zero."""
    there = weights > 0
    return float(weights[there] @ kernel.diagonal(rows[there])) or 1.0
