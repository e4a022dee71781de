"""What the subspace methods are solved with: whitening, leading singular and eigenvectors, correlations of variates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
from scipy.linalg import eigh, lapack, solve_triangular

from mmcore.fusion.data import Array

RANK_TOLERANCE = 1e-10
"""Directions of a view whose variance is a smaller share of its largest are left out."""
CORRELATION_TOLERANCE = 1e-8
"""Singular and eigenvalues that are a smaller share of the largest possible are rounding."""
WELL_CONDITIONED = 1e-7
"""From this reciprocal condition number on, a Cholesky factor is as good as an eigendecomposition."""


def spans(widths: Sequence[int]) -> list[slice]:
    """Where each view's columns are among all columns."""
    return [slice(int(a), int(b)) for a, b in pairwise(np.cumsum([0, *widths]))]


def whitening(matrix: Array) -> Array:
    """W (d, rank) with Wᵀ · matrix · W = I, spanning where the matrix (d, d; positive semi-definite) is not zero.

    The inverse of the Cholesky factor, or, where the matrix is nearly singular, eigenvectors over the roots of their
    values without those below `RANK_TOLERANCE` of the largest.
    """
    if matrix.any():
        factor, failed = lapack.dpotrf(matrix, lower=1)
        if not failed and lapack.dpocon(factor, np.abs(matrix).sum(axis=0).max(), uplo="L")[0] > WELL_CONDITIONED:
            return np.asarray(solve_triangular(factor, np.eye(len(matrix)), lower=True).T)
    values, vectors = eigh(matrix, driver="evd")
    kept = values > RANK_TOLERANCE * max(float(values[-1]), np.finfo(float).tiny)
    return np.asarray(vectors[:, kept] / np.sqrt(values[kept]))


def shrunk(covariance: Array, shrinkage: float) -> Array:
    """(1 − s) Σ + s I: the covariance of one view drawn towards the identity."""
    return np.asarray((1 - shrinkage) * covariance + shrinkage * np.eye(len(covariance)))


def leading_eigenvectors(matrix: Array, k: int) -> tuple[Array, Array]:
    """The k largest eigenvalues, falling, and their vectors (d, k), of a symmetric matrix (d, d)."""
    d = len(matrix)
    if k > d // 4:
        values, vectors = eigh(matrix, driver="evd")
        return values[::-1][:k], vectors[:, ::-1][:, :k]
    values, vectors = eigh(matrix, subset_by_index=[d - k, d - 1])
    return values[::-1], vectors[:, ::-1]


def leading_singular_vectors(matrix: Array, k: int) -> tuple[Array, Array, Array]:
    """U (a, k), falling singular values (k,) and V (b, k) of a matrix (a, b); k is at most the smaller side.

    Where few are wanted, the space of V comes from the eigenvectors of matrixᵀ · matrix and the values from the thin
    matrix · V, which keeps those digits that squaring would lose.
    """
    k = min(k, *matrix.shape)
    if matrix.shape[0] < matrix.shape[1]:
        right, values, left = leading_singular_vectors(matrix.T, k)
        return left, values, right
    if k > matrix.shape[1] // 4:
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        return left[:, :k], values[:k], right[:k].T
    _, near = leading_eigenvectors(matrix.T @ matrix, k)
    left, values, turned = np.linalg.svd(matrix @ near, full_matrices=False)
    return left, values, near @ turned.T


def with_fixed_signs(weights: Array) -> Array:
    """Columns of `weights` (d, k) with the largest entry positive: the sign of an eigenvector is a matter of chance."""
    largest = weights[np.abs(weights).argmax(axis=0), np.arange(weights.shape[1])]
    return np.asarray(weights * np.where(largest < 0, -1.0, 1.0))


def mean_correlations(covariance: Array, widths: Sequence[int], weights: Array) -> Array:
    """Correlation (k,) between the variates of two views, the mean over all pairs; 0 for a constant variate."""
    places = spans(widths)
    spread = [np.sqrt(np.maximum(_forms(weights[s], covariance[s, s], weights[s]), 0.0)) for s in places]
    between = []
    for (i, a), (j, b) in combinations(enumerate(places), 2):
        scale = spread[i] * spread[j]
        between.append(_forms(weights[a], covariance[a, b], weights[b]) / np.where(scale > 0, scale, 1.0))
    return np.asarray(np.mean(between, axis=0))


def _forms(left: Array, matrix: Array, right: Array) -> Array:
    """leftᵢᵀ · matrix · rightᵢ of each pair of columns: (k,)."""
    return np.asarray((left * (matrix @ right)).sum(axis=0))


def unbiased(weight: float, rows: int) -> float:
    """N / (N − 1), which makes a covariance of rows that of a sample; N is the sum of weights, or the rows if more.

    So weights may count rows, or be shares of one.
    """
    count = max(weight, float(rows))
    return count / (count - 1) if count > 1 else 1.0


def gram_factor(gram: Array) -> tuple[Array, Array]:
    """G (n, r) with G · Gᵀ = gram (n, n; positive semi-definite), and the r rows (ascending in use) that span it.

    By Cholesky factorisation with pivots (Higham 1990, "Analysis of the Cholesky decomposition of a semi-definite
    matrix"), which ends where what is left is `RANK_TOLERANCE` of the largest diagonal entry.
    """
    largest = float(gram.diagonal().max(initial=0.0))
    if largest <= 0:
        return np.zeros((len(gram), 0)), np.zeros(0, np.intp)
    lower, pivots, rank, _ = lapack.dpstrf(gram, lower=1, tol=RANK_TOLERANCE * largest)
    order = pivots - 1
    factor = np.empty((len(gram), rank))
    factor[order] = np.tril(lower)[:, :rank]
    return factor, order[:rank]
