"""Canonical correlation analysis of two or more views, then a linear classifier on the shared space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise

import numpy as np

from mmcore.errors import FusionError
from mmcore.fusion.base import Columns, SharedSpace
from mmcore.fusion.data import Array, Views
from mmcore.fusion.from_moments import MomentsFusion
from mmcore.fusion.heads import HeadKind, Strength
from mmcore.fusion.moments import Moments
from mmcore.fusion.scaling import Scaling
from mmcore.fusion.targets import Task
from mmcore.records import Json

RANK_TOLERANCE = 1e-10
"""Directions of a view whose variance is a smaller share of its largest are left out."""


class CcaFusion(MomentsFusion, SharedSpace):
    """(Multiset) canonical correlation analysis with shrinkage; the classifier reads the mean of the projections.

    Let Σ_ab be the covariance of views a and b and B_a = (1 − s) Σ_aa + s I with shrinkage s. The projections
    w = (w_1 … w_M) are the leading solutions of Σ_{b≠a} Σ_ab w_b = ρ B_a w_a (Kettenring 1971, SUMCOR/MAXVAR family;
    Nielsen 2002), solved in float64 by whitening every view, scaled to Σ_a w_aᵀ B_a w_a = M. With two views ρ are the
    canonical correlations (Hotelling 1936; ridge of Vinod 1976) where s = 0, and s = 1 is partial least
    squares. A row's point is the mean over its present views of (x_a − μ_a) w_a.

    Σ_ab is taken over the rows that have both a and b, then all of Σ is projected on the positive semi-definite
    matrices: rows with every view may be few, or none.

    Learned: `weights_` {view: (d, k)}, `means_` {view: (d,)}, `correlations_` (k,) mean over the
    pairs of views of the correlation between their variates, where k is `n_components`, or fewer
    where the views do not have as many positively correlated directions.
    """

    def __init__(
        self,
        *,
        n_components: int = 32,
        shrinkage: float = 0.1,
        head: HeadKind = "linear",
        C: Strength = "auto",
        scaling: Scaling = "standard",
        modalities: Sequence[str] | None = None,
        random_state: int | None = 0,
        task: Task = "classes",
        columns: Columns | None = None,
    ) -> None:
        self.n_components = n_components
        self.shrinkage = shrinkage
        self.head = head
        self.C = C
        self.scaling = scaling
        self.modalities = modalities
        self.random_state = random_state
        self.task = task
        self.columns = columns

    def learn_moments(self, moments: Moments) -> None:
        if len(moments.widths) < 2:
            raise FusionError(f"cca needs at least two views, got {', '.join(moments.widths)}")
        mean, covariance, widths = moments.means(), moments.covariance(), list(moments.widths.values())
        weights = canonical_weights(covariance, widths, self.n_components, self.shrinkage)
        self.correlations_ = mean_correlations(covariance, widths, weights)
        self.weights_ = {name: weights[span] for name, span in moments.spans.items()}
        self.means_ = {name: mean[span] for name, span in moments.spans.items()}
        self.curves_ = {"correlations": self.correlations_.tolist()}

    def _project(self, name: str, values: Array) -> Array:
        return np.asarray((values - self.means_[name]) @ self.weights_[name])

    def _features(self, views: Views) -> Array:
        return self._fused(views)

    def _map_state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        arrays = {f"cca.{name}.weights": weights for name, weights in self.weights_.items()}
        arrays |= {f"cca.{name}.mean": mean for name, mean in self.means_.items()}
        return {**arrays, "cca.correlations": self.correlations_}, {}

    def _map_restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        self.weights_ = {name: arrays[f"cca.{name}.weights"] for name in self.modalities_}
        self.means_ = {name: arrays[f"cca.{name}.mean"] for name in self.modalities_}
        self.correlations_ = arrays["cca.correlations"]


def canonical_weights(covariance: Array, widths: Sequence[int], n_components: int, shrinkage: float) -> Array:
    """Weights (d in all, k) of the views with these widths, see `CcaFusion`; those of the largest ρ first.

    Raises FusionError where no direction of one view goes along with any of another.
    """
    edges = np.cumsum([0, *widths])
    whitening = [
        _inverse_root((1 - shrinkage) * covariance[a:b, a:b] + shrinkage * np.eye(b - a)) for a, b in pairwise(edges)
    ]
    # Blocks of whitened cross-covariances, zeros on the diagonal: its eigenvalues are the correlations.
    ranks = np.cumsum([0, *(root.shape[1] for root in whitening)])
    blocks = np.zeros((ranks[-1], ranks[-1]))
    for i, left in enumerate(whitening):
        for j, right in enumerate(whitening):
            if i != j:
                between = covariance[edges[i] : edges[i + 1], edges[j] : edges[j + 1]]
                blocks[ranks[i] : ranks[i + 1], ranks[j] : ranks[j + 1]] = left.T @ between @ right
    values, vectors = np.linalg.eigh((blocks + blocks.T) / 2)
    values, vectors = values[::-1][:n_components], vectors[:, ::-1][:, :n_components]
    kept = values > RANK_TOLERANCE
    if not kept.any():
        raise FusionError("cca: the views have no direction in common (their cross-covariances are zero)")
    views = len(widths)
    weights = np.concatenate(
        [root @ vectors[a:b, kept] for root, (a, b) in zip(whitening, pairwise(ranks), strict=True)]
    ) * np.sqrt(views)
    # The sign of an eigenvector is a matter of chance: make the largest weight positive.
    largest = weights[np.abs(weights).argmax(axis=0), np.arange(weights.shape[1])]
    return np.asarray(weights * np.where(largest < 0, -1.0, 1.0))


def mean_correlations(covariance: Array, widths: Sequence[int], weights: Array) -> Array:
    """Correlation (k,) between the variates of two views, the mean over all pairs; 0 for a constant variate."""
    edges = np.cumsum([0, *widths])
    spans = [slice(a, b) for a, b in pairwise(edges)]
    spread = [np.sqrt(np.maximum(_forms(weights[s], covariance[s, s], weights[s]), 0.0)) for s in spans]
    between = []
    for (i, a), (j, b) in combinations(enumerate(spans), 2):
        scale = spread[i] * spread[j]
        between.append(_forms(weights[a], covariance[a, b], weights[b]) / np.where(scale > 0, scale, 1.0))
    return np.asarray(np.mean(between, axis=0))


def _forms(left: Array, matrix: Array, right: Array) -> Array:
    """leftᵢᵀ · matrix · rightᵢ of each pair of columns: (k,)."""
    return np.asarray(np.einsum("ak,ab,bk->k", left, matrix, right, optimize=True))


def _inverse_root(matrix: Array) -> Array:
    """W (d, rank) with Wᵀ · matrix · W = I, spanning where the matrix is not zero."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > RANK_TOLERANCE * max(float(values[-1]), np.finfo(float).tiny)
    return np.asarray(vectors[:, kept] / np.sqrt(values[kept]))
