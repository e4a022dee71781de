"""Generalised canonical correlation analysis (MAXVAR), with rows that miss some views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement

import numpy as np

from mmcore.errors import FusionError
from mmcore.fusion.base import Columns
from mmcore.fusion.data import Array
from mmcore.fusion.heads import HeadKind, Strength
from mmcore.fusion.moments import Moments
from mmcore.fusion.scaling import Scaling
from mmcore.fusion.spectra import (
    CORRELATION_TOLERANCE,
    leading_eigenvectors,
    shrunk,
    spans,
    unbiased,
    whitening,
    with_fixed_signs,
)
from mmcore.fusion.subspace import LinearSubspace, Reads
from mmcore.fusion.targets import Task


class GccaFusion(LinearSubspace):
    """Generalised canonical correlation analysis: views that each explain one set T of shared variables.

    Let K_a hold 1 for rows that have view a and 0 for others, X_a the centred rows, B_a = (1 − s) Σ_aa + s I with
    shrinkage s, N_a the rows that have a. T maximises Σ_a tr TᵀK_a X_a B_a⁻¹ X_aᵀK_a T under TᵀKT ∝ I with
    K = Σ_a K_a, and W_a = B_a⁻¹ X_aᵀK_a T / (N_a − 1) (Carroll 1968; Kettenring 1971, MAXVAR; rows that miss views as
    in van de Velden and Bijmolt 2006, "Generalized canonical correlation analysis of matrices with missing rows").
    T is never formed: the eigenvalues are those of the whitened second moments of each pattern of present views, over
    its number of views, which are as wide as all views together. T has unit variance over what is present.

    Without shrinkage and missing rows the components are those of multiset CCA, scaled otherwise. A row's point is the
    mean over its present views of (x_a − μ_a) W_a.

    Learned: see `LinearSubspace`; k may be above the narrowest view's width.
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

    def _weights(self, moments: Moments, covariance: Array) -> Array:
        return generalised_weights(moments, self.n_components, self.shrinkage)


def generalised_weights(moments: Moments, n_components: int, shrinkage: float) -> Array:
    """Weights (d in all, k) of the views, see `GccaFusion`; those of the largest eigenvalue first.

    Raises FusionError where no view varies.
    """
    widths = list(moments.widths.values())
    total = [0.0] * len(widths)
    own = [np.zeros((width, width)) for width in widths]
    for present, places, weight, scatter in _scatters(moments):
        for view, place in zip(present, places, strict=True):
            own[view] += scatter[place, place]
            total[view] += weight
    roots = [whitening(shrunk(matrix / weight, shrinkage)) for matrix, weight in zip(own, total, strict=True)]
    ranks = spans([root.shape[1] for root in roots])
    # HᵀK⁻¹H of the whitened views side by side: it has the eigenvalues of the (n, n) problem in T.
    blocks = np.zeros((ranks[-1].stop, ranks[-1].stop))
    for present, places, _, scatter in _scatters(moments):
        for (i, rows), (j, columns) in combinations_with_replacement(zip(present, places, strict=True), 2):
            blocks[ranks[i], ranks[j]] += roots[i].T @ scatter[rows, columns] @ roots[j] / len(present)
    blocks = np.triu(blocks) + np.triu(blocks, 1).T
    values, vectors = leading_eigenvectors(blocks, min(n_components, len(blocks)))
    kept = values > CORRELATION_TOLERANCE * max(values.max(initial=0.0), np.finfo(float).tiny)
    if not kept.any():
        raise FusionError("no view varies: there is nothing to correlate")
    length = np.sqrt(values[kept] * sum(total))
    weights = [
        root @ (vectors[rank][:, kept] * (length / weight))
        for root, rank, weight in zip(roots, ranks, total, strict=True)
    ]
    return with_fixed_signs(np.concatenate(weights))


def _scatters(moments: Moments) -> Iterator[tuple[list[int], list[slice], float, Array]]:
    """Of each pattern its views' numbers and places, its weight, and its scatter about the means of all rows."""
    mean, widths = moments.means(), list(moments.widths.values())
    for pattern, part in moments.patterns.items():
        present = [number for number, there in enumerate(pattern) if there]
        if present and part.weight > 0:
            apart = part.mean - mean[moments.columns(pattern)]
            scatter = unbiased(moments.weight, moments.rows) * (part.scatter + part.weight * np.outer(apart, apart))
            yield present, spans([widths[number] for number in present]), part.weight, scatter
