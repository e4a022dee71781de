"""What the linear subspace methods share: they learn from moments alone, and map each view by one matrix."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Literal

import numpy as np

from mmcore.errors import FusionError
from mmcore.fusion.base import FitRun, Rows, SharedSpace
from mmcore.fusion.data import Array, View, Views
from mmcore.fusion.from_moments import MomentsFusion
from mmcore.fusion.impute import column_means
from mmcore.fusion.moments import Moments
from mmcore.fusion.spectra import leading_eigenvectors, mean_correlations, spans, unbiased, with_fixed_signs
from mmcore.records import Json

Reads = Literal["mean", "each"]
"""What a head reads of the shared space: a row's point, or its views' points side by side, an absent one's zero."""


class LinearSubspace(MomentsFusion, SharedSpace):
    """Base of the methods whose views are mapped linearly into the shared space, x ↦ (x − μ) W.

    A method writes `_weights`, from moments of prepared views to W.

    Learned: `weights_` {view: (d, k)}, `means_` {view: (d,)}, `correlations_` (k,): of each component the mean over
    the pairs of views of the correlation between their variates. k is `n_components`, or fewer where the views do not
    have as many.
    """

    n_components: int
    reads: Reads

    def learn_moments(self, moments: Moments) -> None:
        """Learn the map from the moments of prepared (scaled) views. Raises FusionError for fewer than two views."""
        if len(moments.widths) < 2:
            raise FusionError(f"{type(self).__name__} needs at least two views, got {', '.join(moments.widths)}")
        covariance = moments.covariance() * unbiased(moments.weight, moments.rows)
        weights, means = self._weights(moments, covariance), moments.means()
        self.weights_ = {name: weights[place] for name, place in moments.spans.items()}
        self.means_ = {name: means[place] for name, place in moments.spans.items()}
        self.correlations_ = mean_correlations(covariance, list(moments.widths.values()), weights)
        self.curves_ = {**self.curves_, "correlations": self.correlations_.tolist()}

    @abstractmethod
    def _weights(self, moments: Moments, covariance: Array) -> Array:
        """The weights of all views, one below the other, (d in all, k); `covariance` (d in all) as of a sample."""

    def _learn(self, train: Rows, validation: Rows | None, run: FitRun) -> None:
        # A row that counts nothing is no row of the sample either.
        rows = train if train.weights.all() else train[train.weights > 0]
        narrow, bases = narrowed(rows.views)
        self.learn_moments(Moments.of(narrow, rows.weights))
        if not bases:
            return
        for name, basis in bases.items():
            view = rows.views[name]
            self.weights_[name] = basis @ self.weights_[name]
            self.means_[name] = column_means(view.values, view.present[:, None], rows.weights)
        # Signs are those of the views' own columns, as from moments of all of them.
        widths = [len(weights) for weights in self.weights_.values()]
        weights = with_fixed_signs(np.concatenate(list(self.weights_.values())))
        self.weights_ = {name: weights[place] for name, place in zip(self.weights_, spans(widths), strict=True)}

    def _project(self, name: str, values: Array) -> Array:
        return np.asarray((values - self.means_[name]) @ self.weights_[name])

    def _features(self, views: Views) -> Array:
        return self._fused(views) if self.reads == "mean" else side_by_side_points(self, views)

    def _map_state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        arrays = {f"map.{name}.weights": weights for name, weights in self.weights_.items()}
        arrays |= {f"map.{name}.mean": mean for name, mean in self.means_.items()}
        return {**arrays, "map.correlations": self.correlations_}, {}

    def _map_restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        self.weights_ = {name: arrays[f"map.{name}.weights"] for name in self.modalities_}
        self.means_ = {name: arrays[f"map.{name}.mean"] for name in self.modalities_}
        self.correlations_ = arrays["map.correlations"]


def side_by_side_points(model: SharedSpace, views: Views) -> Array:
    """Each view's point in the shared space, side by side (n, views · k); zero, which is the mean, where absent."""
    return np.concatenate(
        [model._project(name, view.values) * view.present[:, None] for name, view in views.items()], axis=1
    )


def narrowed(views: Views) -> tuple[Views, dict[str, Array]]:
    """Views with more columns than rows by coordinates in their rows' space, and an orthonormal basis (d, r) of each.

    Nothing that a subspace method looks for lies outside: covariances have the same non-zero directions, and a penalty
    on lengths keeps the rest at zero. Other views stay as they are.
    """
    bases, narrow = {}, {}
    for name, view in views.items():
        rows = view.values[view.present]
        if len(rows) < view.shape[0]:
            values, vectors = leading_eigenvectors(rows @ rows.T, len(rows))
            kept = values > np.finfo(float).eps * len(rows) * max(values[0], np.finfo(float).tiny)
            bases[name] = rows.T @ (vectors[:, kept] / np.sqrt(values[kept]))
        narrow[name] = View(view.values @ bases[name], view.present) if name in bases else view
    return Views(narrow), bases
