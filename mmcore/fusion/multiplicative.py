"""Multiplicative (bilinear) fusion: all products of projected views, then a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from mmcore.fusion.base import AnyViews, Columns, FitRun, Rows
from mmcore.fusion.data import Array, Views
from mmcore.fusion.headed import HeadedFusion
from mmcore.fusion.heads import HeadKind, Strength
from mmcore.fusion.scaling import Scaling
from mmcore.fusion.targets import Task
from mmcore.records import Json

MAX_PRODUCTS = 4096
"""Features at most; projections are made narrower where there would be more."""
RANK_TOLERANCE = 1e-10
"""Directions of a view whose variance is a smaller share of its largest are left out."""


class MultiplicativeFusion(HeadedFusion):
    """A head on ⊗_m [1; z_m]: the products of every subset of views, each view by its leading principal components.

    z_m = (x_m − μ_m) W_m are the first components of view m, each of variance 1; the outer product of all [1; z_m], but
    for the product of all ones, are the features (bilinear models, Tenenbaum and Freeman 2000; the tensor fusion of
    Zadeh et al. 2017 without a network). Their inner products are Π_m (1 + z_m·z'_m) − 1. Absent views are imputed:
    with `impute: mean` z_m = 0, so that the products that the view is part of vanish and those of the others stay. A
    head that met few such rows is lost on them, and the default, ridge regression from the present views, is not.
    Views are projected to `dim` components, or to as many as keep the features within `MAX_PRODUCTS`.

    What a linear head on this can learn and on views side by side cannot: a label that depends on how two views go
    together, as exclusive or. There is no space that modalities share, hence no `transform`; `fuse` gives the features.
    Learned: `projections_` {view: (d, k_m)}, `means_` {view: (d,)}.
    """

    handles_missing = "imputed"

    def __init__(
        self,
        *,
        dim: int = 16,
        head: HeadKind = "linear",
        C: Strength = "auto",
        impute: Literal["mean", "ridge"] = "ridge",
        scaling: Scaling = "standard",
        modalities: Sequence[str] | None = None,
        random_state: int | None = 0,
        task: Task = "classes",
        columns: Columns | None = None,
    ) -> None:
        self.dim = dim
        self.head = head
        self.C = C
        self.impute = impute
        self.scaling = scaling
        self.modalities = modalities
        self.random_state = random_state
        self.task = task
        self.columns = columns

    def fuse(self, X: AnyViews) -> Array:
        """The products (n, features) of each row."""
        return self._features(self._filled(self._prepared(X)))

    def _learn(self, train: Rows, validation: Rows | None, run: FitRun) -> None:
        self.means_, found = {}, {}
        for name, view in train.views.items():
            self.means_[name], found[name] = components(view.values, train.weights)
        width = products_width([part.shape[1] for part in found.values()], self.dim)
        self.projections_ = {name: part[:, :width] for name, part in found.items()}
        widths = {name: part.shape[1] for name, part in self.projections_.items()}
        self.curves_ = {"widths": widths, "products": int(np.prod([1 + k for k in widths.values()])) - 1}

    def _features(self, views: Views) -> Array:
        products = np.ones((len(views), 1))
        for name, view in views.items():
            z = (view.values - self.means_[name]) @ self.projections_[name]
            factor = np.concatenate([np.ones((len(views), 1)), z], axis=1)
            products = (products[:, :, None] * factor[:, None, :]).reshape(len(views), -1)
        # The first is the product of all ones.
        return np.ascontiguousarray(products[:, 1:])

    def _map_state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        arrays = {f"projection.{name}.mean": mean for name, mean in self.means_.items()}
        return arrays | {f"projection.{name}.weights": part for name, part in self.projections_.items()}, {}

    def _map_restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        self.means_ = {name: arrays[f"projection.{name}.mean"] for name in self.modalities_}
        self.projections_ = {name: arrays[f"projection.{name}.weights"] for name in self.modalities_}


def components(X: Array, weights: Array) -> tuple[Array, Array]:
    """Mean (d,) of rows (n, d), and W (d, rank) so that (X − mean) W are their principal components of variance 1."""
    mean = np.average(X, axis=0, weights=weights)
    values, vectors = np.linalg.eigh((X - mean).T @ ((X - mean) * (weights / weights.sum())[:, None]))
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > RANK_TOLERANCE * max(float(values[0]), np.finfo(float).tiny)
    projection = vectors[:, kept] / np.sqrt(values[kept])
    # The sign of an eigenvector is a matter of chance: make the largest weight positive.
    largest = projection[np.abs(projection).argmax(axis=0), np.arange(projection.shape[1])]
    return mean, np.asarray(projection * np.where(largest < 0, -1.0, 1.0))


def products_width(ranks: Sequence[int], dim: int) -> int:
    """The largest width up to `dim` with no more than `MAX_PRODUCTS` products of views of these ranks; at least 1."""
    fitting = (
        width for width in range(dim, 1, -1) if np.prod([1.0 + min(width, rank) for rank in ranks]) <= MAX_PRODUCTS
    )
    return next(fitting, 1)
