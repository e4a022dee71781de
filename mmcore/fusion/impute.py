"""Filling in absent views: the training mean, or ridge regression from the present ones."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import numpy as np

from mmcore.fusion.data import Array, View, Views

RIDGE = 0.1
"""Added to the covariance's diagonal, as a share of its mean."""


class Imputer:
    """Prepared views side by side, (n, d in all), absent ones filled in.

    `mean` is the mean of the present training rows. `ridge` is the linear regression of the absent columns on the
    present ones with an L2 penalty, E[x_a | x_p] = μ_a + Σ_ap (Σ_pp + λI)⁻¹ (x_p − μ_p), where Σ holds the
    covariances of training rows that have both views, projected on the positive semi-definite matrices (pairwise
    covariances need not be such). Σ takes 8 d² bytes.
    """

    def __init__(self, kind: Literal["mean", "ridge"]) -> None:
        self.kind = kind
        self.mean = np.zeros(0)
        self.covariance = np.zeros((0, 0))

    def fit(self, views: Views, weights: Array) -> Imputer:
        X, mask = side_by_side(views)
        self.mean = column_means(X, mask, weights)
        if self.kind == "ridge":
            self.covariance = pairwise_covariance((X - self.mean) * mask, mask, weights)
        return self

    def transform(self, views: Views) -> Array:
        X, mask = side_by_side(views)
        filled = np.where(mask, X, self.mean)
        if self.kind == "ridge":
            patterns = np.stack([view.present for _, view in views.items()], axis=1)
            for pattern in np.unique(patterns, axis=0):
                if not pattern.all() and pattern.any():
                    rows = (patterns == pattern).all(axis=1)
                    there = mask[np.flatnonzero(rows)[0]]
                    filled[np.ix_(rows, ~there)] += (X[np.ix_(rows, there)] - self.mean[there]) @ self._slopes(there)
        return filled

    def filled(self, views: Views) -> Views:
        """The same as views, every row present."""
        edges = np.cumsum([0, *(view.shape[0] for _, view in views.items())])
        X, every = self.transform(views), np.ones(len(views), bool)
        return Views({name: View(X[:, a:b], every) for name, (a, b) in zip(views, pairwise(edges), strict=True)})

    def _slopes(self, there: Array) -> Array:
        known = self.covariance[np.ix_(there, there)]
        ridge = RIDGE * max(float(np.trace(known)) / len(known), np.finfo(float).tiny)
        return np.asarray(np.linalg.solve(known + ridge * np.eye(len(known)), self.covariance[np.ix_(there, ~there)]))

    def arrays(self) -> dict[str, Array]:
        return {"impute.mean": self.mean} | ({"impute.covariance": self.covariance} if self.kind == "ridge" else {})

    @classmethod
    def restored(cls, kind: Literal["mean", "ridge"], arrays: Mapping[str, Array]) -> Imputer:
        imputer = cls(kind)
        imputer.mean = arrays["impute.mean"]
        if kind == "ridge":
            imputer.covariance = arrays["impute.covariance"]
        return imputer


def side_by_side(views: Views) -> tuple[Array, Array]:
    """Values (n, d in all), and for each whether its view is present."""
    values = np.concatenate([view.values for _, view in views.items()], axis=1)
    mask = np.concatenate(
        [np.repeat(view.present[:, None], view.shape[0], axis=1) for _, view in views.items()], axis=1
    )
    return values, mask


def column_means(X: Array, mask: Array, weights: Array) -> Array:
    """Weighted mean (d,) of each column over the rows where `mask` (n, d) is true; 0 where there is none."""
    there = mask * weights[:, None]
    total = there.sum(axis=0)
    return np.asarray((X * there).sum(axis=0) / np.where(total > 0, total, 1.0))


def pairwise_covariance(centred: Array, mask: Array, weights: Array) -> Array:
    """Weighted covariance (d, d) of each pair of columns over the rows that have both, made positive semi-definite.

    `centred` has zeros where `mask` is false.
    """
    there = mask.astype(np.float64)
    together = there.T @ (there * weights[:, None])
    covariance = centred.T @ (centred * weights[:, None]) / np.where(together > 0, together, 1.0)
    return np.asarray(covariance) if mask.all() else semidefinite(covariance)


def semidefinite(matrix: Array) -> Array:
    """The positive semi-definite matrix nearest to a symmetric one (d, d): negative eigenvalues are zero."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)
