"""Canonical correlation analysis of two or more views, then a head on the shared space."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np

from mmcore.errors import FusionError
from mmcore.fusion.base import Columns
from mmcore.fusion.canonical import CanonicalTests, canonical_tests
from mmcore.fusion.data import Array
from mmcore.fusion.heads import HeadKind, Strength
from mmcore.fusion.moments import Moments
from mmcore.fusion.scaling import Scaling
from mmcore.fusion.spectra import (
    CORRELATION_TOLERANCE,
    leading_eigenvectors,
    leading_singular_vectors,
    shrunk,
    spans,
    whitening,
    with_fixed_signs,
)
from mmcore.fusion.subspace import LinearSubspace, Reads
from mmcore.fusion.targets import Task
from mmcore.records import Json


class CcaFusion(LinearSubspace):
    """(Multiset) canonical correlation analysis with shrinkage; the head reads the mean of the projections, or each.

    Let Σ_ab be the covariance of views a and b and B_a = (1 − s) Σ_aa + s I with shrinkage s. The projections
    w = (w_1 … w_M) are the leading solutions of Σ_{b≠a} Σ_ab w_b = ρ B_a w_a (Kettenring 1971, SUMCOR/MAXVAR family;
    Nielsen 2002), solved in float64 by whitening every view, scaled to Σ_a w_aᵀ B_a w_a = M. With two views ρ are the
    canonical correlations (Hotelling 1936; ridge of Vinod 1976) where s = 0, and s = 1 is partial least
    squares. A row's point is the mean over its present views of (x_a − μ_a) w_a.

    Σ_ab is taken over the rows that have both a and b, then all of Σ is projected on the positive semi-definite
    matrices: rows with every view may be few, or none.

    Learned: see `LinearSubspace`; of more than two views k may be above the narrowest view's width. For the tests also
    `rows_`, `complete_` (whether every row has every view) and `ranks_`, how many directions each view has.
    """

    def __init__(
        self,
        *,
        n_components: int = 32,
        shrinkage: float = 0.1,
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
        self.reads = reads
        self.head = head
        self.C = C
        self.scaling = scaling
        self.modalities = modalities
        self.random_state = random_state
        self.task = task
        self.columns = columns

    def canonical_tests(self) -> CanonicalTests:
        """Wilks' lambda and the other tests of the canonical correlations of two views.

        Raises FusionError where `correlations_` are not all of them: more than two views, shrinkage, rows that
        miss a view, or fewer components than the narrower view has directions.
        """
        wrong = {
            "shrinkage: 0": self.shrinkage > 0,
            "two views": len(self.modalities_) != 2,
            "rows that have both": not self.complete_,
            f"n_components: at least {min(self.ranks_)}": self.n_components < min(self.ranks_),
        }
        if needed := [what for what, fails in wrong.items() if fails]:
            raise FusionError(f"tests of canonical correlations need {', '.join(needed)}")
        # Those that are zero have no direction of their own.
        r = np.zeros(min(self.ranks_))
        r[: len(self.correlations_)] = self.correlations_
        return canonical_tests(r, self.rows_, *self.ranks_)

    def _weights(self, moments: Moments, covariance: Array) -> Array:
        self.rows_, self.complete_ = moments.rows, moments.complete
        weights, self.ranks_ = _solved(covariance, list(moments.widths.values()), self.n_components, self.shrinkage)
        return weights

    def _map_state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        arrays, facts = super()._map_state()
        return arrays, {**facts, "rows": self.rows_, "complete": self.complete_, "ranks": self.ranks_}

    def _map_restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        super()._map_restore(arrays, facts)
        self.rows_, self.complete_, self.ranks_ = facts["rows"], facts["complete"], facts["ranks"]


def canonical_weights(covariance: Array, widths: Sequence[int], n_components: int, shrinkage: float) -> Array:
    """Weights (d in all, k) of the views with these widths, see `CcaFusion`; those of the largest ρ first.

    Two views have at most as many as the narrower has directions; more views may have more than that, as long as ρ
    is positive. Raises FusionError where no direction of one view goes along with any of another.
    """
    return _solved(covariance, widths, n_components, shrinkage)[0]


def _solved(covariance: Array, widths: Sequence[int], n_components: int, shrinkage: float) -> tuple[Array, list[int]]:
    """`canonical_weights`, and how many directions each view has."""
    places = spans(widths)
    own = [shrunk(covariance[s, s], shrinkage) for s in places]
    roots = [whitening(matrix) for matrix in own]
    ranks = [root.shape[1] for root in roots]
    values, directions = common_directions(
        lambda i, j: roots[i].T @ covariance[places[i], places[j]] @ roots[j], ranks, n_components
    )
    # ρ is a correlation, or at full shrinkage a covariance: what is rounding depends on the units.
    ratios = [np.trace(covariance[s, s]) / (np.trace(b) or 1.0) for s, b in zip(places, own, strict=True)]
    kept = values > CORRELATION_TOLERANCE * max(ratios)
    if not kept.any():
        raise FusionError("the views have no direction in common: their cross-covariances are zero")
    weights = [root @ direction[:, kept] for root, direction in zip(roots, directions, strict=True)]
    return with_fixed_signs(np.concatenate(weights)), ranks


def common_directions(
    between: Callable[[int, int], Array], ranks: Sequence[int], n_components: int
) -> tuple[Array, list[Array]]:
    """The largest ρ (k,) of whitened views and the directions (rank, k) of each, of squared length one on average.

    `between(i, j)` is the covariance (rank i, rank j) of whitened views i < j. ρ are the eigenvalues of all of them as
    blocks with zeros on the diagonal; of two views the singular values of the one block.
    """
    if len(ranks) == 2:
        left, values, right = leading_singular_vectors(between(0, 1), n_components)
        return values, [left, right]
    places = spans(ranks)
    blocks = np.zeros((sum(ranks), sum(ranks)))
    for (i, rows), (j, columns) in combinations(enumerate(places), 2):
        blocks[rows, columns] = between(i, j)
        blocks[columns, rows] = blocks[rows, columns].T
    values, vectors = leading_eigenvectors(blocks, min(n_components, len(blocks)))
    return values, [vectors[place] * np.sqrt(len(ranks)) for place in places]
