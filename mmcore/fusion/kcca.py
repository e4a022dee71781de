"""Kernel canonical correlation analysis of two or more views, exact or on Nyström features."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.linalg import solve_triangular

from mmcore.errors import FusionError
from mmcore.fusion.base import Columns, FitRun, Rows, SharedSpace
from mmcore.fusion.cca import canonical_weights
from mmcore.fusion.data import Array, View, Views
from mmcore.fusion.headed import HeadedFusion
from mmcore.fusion.heads import HeadKind, Strength
from mmcore.fusion.kernels import CentredKernel, Expansion, Kernel, KernelName
from mmcore.fusion.nystrom import NystromKernel
from mmcore.fusion.scaling import Scaling
from mmcore.fusion.spectra import gram_factor, mean_correlations, spans, unbiased
from mmcore.fusion.subspace import Reads, side_by_side_points
from mmcore.fusion.targets import Task
from mmcore.records import Json

_logger = logging.getLogger(__name__)


class KccaFusion(HeadedFusion, SharedSpace):
    """CCA of two or more views in the spaces of a kernel, with shrinkage (Hardoon et al. 2004; Bach and Jordan 2002).

    It is `CcaFusion` on vectors φ(x) with φ(x)ᵀφ(y) = k(x, y), centred at the training rows: α_a in w_a = Φ_aᵀα_a are
    the leading solutions of Σ_{b≠a} K_a K_b α_b / (N − 1) = ρ ((1 − s) K_a² / (N − 1) + s K_a) α_a with centred Gram
    matrices K. Without shrinkage (s = 0) a kernel whose Gram matrix has full rank correlates any views perfectly: s
    has to be above zero. The Gram matrices are factored, K = G Gᵀ, by Cholesky with pivots, and the rows of G are φ.
    A row that lacks a view stands at the view's mean: its row and column of K are zero, which keeps all covariances
    positive semi-definite. A row's point is the mean over its present views of Σᵢ α_ai k_a(x_a, x_ai), centred.

    Where the exact solution would take more than `memory_bytes`, φ are Nyström features of at most `landmarks`
    training rows, chosen by a seeded hash of the row's number.

    Learned: `expansions_` {view: Expansion}, which hold training rows, `correlations_` (k,) as in `LinearSubspace`,
    `landmarks_` (None: exact).
    """

    handles_missing = "native"
    contains_training_rows = True

    def __init__(
        self,
        *,
        n_components: int = 32,
        shrinkage: float = 0.1,
        kernel: KernelName = "rbf",
        gamma: float = 1.0,
        degree: int = 3,
        coef0: float = 1.0,
        memory_bytes: int = 1 << 30,
        landmarks: int = 500,
        reads: Reads = "mean",
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
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.memory_bytes = memory_bytes
        self.landmarks = landmarks
        self.reads = reads
        self.head = head
        self.C = C
        self.scaling = scaling
        self.modalities = modalities
        self.random_state = random_state
        self.task = task
        self.columns = columns

    def _learn(self, train: Rows, validation: Rows | None, run: FitRun) -> None:
        views = train.views
        if len(views.keys()) < 2:
            raise FusionError(f"KccaFusion needs at least two views, got {', '.join(views)}")
        rows = train[train.weights > 0]
        self.landmarks_ = landmarks_of(self.memory_bytes, len(rows), len(views.keys()), self.landmarks)
        spaces = [self._space(view, rows.weights) for _, view in rows.views.items()]
        ranks = [space.features.shape[1] for space in spaces]
        features = np.concatenate([space.features for space in spaces], axis=1)
        total = float(rows.weights.sum())
        covariance = features.T @ features * (unbiased(total, len(rows)) / total)
        weights = canonical_weights(covariance, ranks, self.n_components, self.shrinkage)
        self.correlations_ = mean_correlations(covariance, ranks, weights)
        self.expansions_ = {
            name: space.expansion(weights[place])
            for name, space, place in zip(views, spaces, spans(ranks), strict=True)
        }
        self.curves_ = {**self.curves_, "correlations": self.correlations_.tolist(), "landmarks": self.landmarks_}

    def _space(self, view: View, weights: Array) -> ExactSpace | NystromSpace:
        kernel = Kernel(self.kernel, self.gamma, self.degree, self.coef0)
        if self.landmarks_ is None:
            return ExactSpace(kernel, view, weights)
        return NystromSpace(kernel, view, weights, self.landmarks_, self.random_state or 0)

    def _project(self, name: str, values: Array) -> Array:
        return self.expansions_[name](values)

    def _features(self, views: Views) -> Array:
        return self._fused(views) if self.reads == "mean" else side_by_side_points(self, views)

    def _map_state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        arrays = {
            key: array for name, machine in self.expansions_.items() for key, array in machine.arrays(name).items()
        }
        named = {f"map.{key}": array for key, array in arrays.items()}
        return {**named, "map.correlations": self.correlations_}, {"landmarks": self.landmarks_}

    def _map_restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        kernels = [Kernel(self.kernel, self.gamma, self.degree, self.coef0)]
        self.expansions_ = {name: Expansion.restored(kernels, arrays, f"map.{name}") for name in self.modalities_}
        self.correlations_ = arrays["map.correlations"]
        self.landmarks_ = facts["landmarks"]


class ExactSpace:
    """`features` (n, r) of one view's training rows, each times the root of its weight: GGᵀ is the Gram matrix."""

    def __init__(self, kernel: Kernel, view: View, weights: Array) -> None:
        self._kernel = CentredKernel(kernel, normalise=False)
        self._roots = np.sqrt(weights)
        gram = self._kernel.fit_transform(view, weights) * self._roots[:, None] * self._roots
        self.features, self._spanning = gram_factor(gram)

    def expansion(self, weights: Array) -> Expansion:
        """The map φ(x) · weights (r, k), with φ(x) = k̃(x, P) G_P⁻ᵀ for the rows P that span the space."""
        on_rows = solve_triangular(self.features[self._spanning], weights, trans="T", lower=True)
        coefficients = np.zeros((len(self.features), weights.shape[1]))
        coefficients[self._spanning] = self._roots[self._spanning, None] * on_rows
        return Expansion.joined([(self._kernel, coefficients)])


class NystromSpace:
    """The same by features whose inner products approximate the kernel."""

    def __init__(self, kernel: Kernel, view: View, weights: Array, landmarks: int, seed: int) -> None:
        self._kernel = NystromKernel(kernel, landmarks=landmarks, seed=seed, normalise=False)
        self.features = self._kernel.fit_transform(view, weights) * np.sqrt(weights)[:, None]

    def expansion(self, weights: Array) -> Expansion:
        return Expansion.joined([(self._kernel, weights)])


def exact_bytes(rows: int, views: int) -> int:
    """Memory that the exact solution takes: factors, their covariance and whitening, the eigenproblem and its copy."""
    return 8 * rows * rows * (3 * views * views + 6 * views)


def landmarks_of(memory_bytes: int, rows: int, views: int, most: int) -> int | None:
    """How many landmarks to take, at most `most`, logged; None where the exact solution fits into `memory_bytes`."""
    if exact_bytes(rows, views) <= memory_bytes:
        return None
    fitting = memory_bytes // (24 * rows * views)
    if fitting < 1:
        raise FusionError(f"memory_bytes: {memory_bytes:,} is too little for kernels of {rows:,} rows")
    taken = min(most, fitting)
    _logger.warning(
        "exact kernel CCA of %s rows would take %.1f GiB of the %.1f GiB allowed: "
        "Nyström approximation with %s landmarks",
        f"{rows:,}",
        exact_bytes(rows, views) / 2**30,
        memory_bytes / 2**30,
        f"{taken:,}",
    )
    return taken
