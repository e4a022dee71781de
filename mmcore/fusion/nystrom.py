"""Kernels of too many rows for a Gram matrix: features whose inner products approximate it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import xxhash

from mmcore.errors import FusionError
from mmcore.fusion.data import Array, View
from mmcore.fusion.kernels import Kernel, scale_of, shares

RANK_TOLERANCE = 1e-12
"""Directions of the landmarks' Gram matrix with a smaller share of its largest eigenvalue are left out."""

_logger = logging.getLogger(__name__)


class NystromKernel:
    """φ(x) with φ(x)ᵀφ(y) ≈ k̃(x, y) of a `CentredKernel`, from m landmarks Z among the training rows.

    φ(x) = (W^(−1/2) k(Z, x) − μ) / √s with W = k(Z, Z) and μ the weighted mean over the present training rows; zero
    where the view is absent (Williams and Seeger 2001, "Using the Nyström method to speed up kernel machines"). With
    every present row a landmark the inner products are the exact kernel's. Memory is n · m values, not n².
    """

    def __init__(self, kernel: Kernel, *, landmarks: int = 500, seed: int = 0, normalise: bool = True) -> None:
        self.kernel = kernel
        self.landmarks = landmarks
        self.seed = seed
        self.normalise = normalise

    def fit_transform(self, view: View, weights: Array, keys: Array | None = None) -> Array:
        """Features (n, r ≤ m) of the training rows; landmarks are drawn by `keys` (n,), or by position without them."""
        rows, weights = np.asarray(view.values, np.float64), shares(view, weights)
        self.kernel.check(rows[view.present])
        names = np.arange(len(view)) if keys is None else keys
        there = np.flatnonzero(view.present & (weights > 0))
        chosen = there[choose_landmarks(names[there].astype(np.str_).tolist(), self.landmarks, self.seed)]
        self.rows = rows[chosen]
        scale = scale_of(self.kernel, rows, weights) if self.normalise else 1.0
        values, vectors = np.linalg.eigh(self.kernel(self.rows, self.rows))
        kept = values > RANK_TOLERANCE * max(float(values.max(initial=0.0)), np.finfo(float).tiny)
        # Weights of the landmarks' kernel values; the sign and order of the columns do not matter to inner products.
        self.map = vectors[:, kept] / np.sqrt(values[kept] * scale)
        self.mean = np.zeros(kept.sum())
        features = self.transform(view)
        self.mean = np.asarray(weights @ features)
        features[view.present] -= self.mean
        return features

    def transform(self, view: View) -> Array:
        """Features (n, r) of other rows."""
        features = np.zeros((len(view), len(self.mean)))
        fresh = np.asarray(view.values[view.present], np.float64)
        features[view.present] = self.kernel(fresh, self.rows) @ self.map - self.mean
        return features

    def expanded(self, coefficients: Array) -> tuple[Array, Array, Array]:
        """φ(x)ᵀc as Σᵢ k(x, rowᵢ) bᵢ + b₀, see `CentredKernel.expanded`; `coefficients` (r, k)."""
        return self.rows, np.asarray(self.map @ coefficients), np.asarray(-self.mean @ coefficients)


def choose_landmarks(names: Sequence[str], count: int, seed: int) -> Array:
    """Positions (at most `count`, ascending) of the names whose seeded hashes are the lowest.

    A row's hash depends on nothing but its name and the seed: rows that come or go change few landmarks, and more
    landmarks contain the fewer.
    """
    hashes = np.array([xxhash.xxh3_64_intdigest(name.encode(), seed=seed) for name in names], np.uint64)
    return np.sort(np.argsort(hashes, kind="stable")[:count])


def gram_bytes(rows: int, kernels: int) -> int:
    """Memory of the Gram matrices of so many kernels, with three more for their sum and what is made meanwhile."""
    return (kernels + 3) * rows * rows * 8


def exact_rows(memory_bytes: int, kernels: int) -> int:
    """Of how many rows `memory_bytes` hold the Gram matrices."""
    return math.isqrt(memory_bytes // (8 * (kernels + 3)))


def landmarks_within(memory_bytes: int, rows: int, kernels: int, most: int) -> int | None:
    """None where exact Gram matrices fit into `memory_bytes`, else how many landmarks to take: at most `most`, logged.

    Beside features there are a weighted copy, that of the rows not held out, and one of 16 bytes a value in the linear
    machine's library.
    """
    if gram_bytes(rows, kernels) <= memory_bytes:
        return None
    fitting = memory_bytes // (48 * rows * kernels)
    if fitting < 1:
        raise FusionError(f"memory_bytes: {memory_bytes:,} is too little for {kernels} kernels of {rows:,} rows")
    taken = min(most, fitting)
    _logger.warning(
        "exact kernels of %s rows would take %.1f GiB of the %.1f GiB allowed: Nyström approximation with %s landmarks",
        f"{rows:,}",
        gram_bytes(rows, kernels) / 2**30,
        memory_bytes / 2**30,
        f"{taken:,}",
    )
    return taken
