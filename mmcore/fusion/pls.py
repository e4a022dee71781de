"""Partial least squares of two or more views."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import numpy as np

from mmcore.errors import FusionError
from mmcore.fusion.base import Columns
from mmcore.fusion.cca import canonical_weights
from mmcore.fusion.data import Array
from mmcore.fusion.heads import HeadKind, Strength
from mmcore.fusion.moments import Moments
from mmcore.fusion.scaling import Scaling
from mmcore.fusion.spectra import CORRELATION_TOLERANCE, RANK_TOLERANCE, leading_eigenvectors, spans, with_fixed_signs
from mmcore.fusion.subspace import LinearSubspace, Reads
from mmcore.fusion.targets import Task

Mode = Literal["svd", "canonical"]


class PlsFusion(LinearSubspace):
    """Partial least squares: directions in which the views vary together most.

    Of two views `svd` takes the singular vectors of Σ_ab (Tucker 1958, inter-battery; Bookstein 1994), of more the
    leading solutions of Σ_{b≠a} Σ_ab w_b = ρ w_a with Σ ‖w_a‖² = M: CCA at full shrinkage. `canonical` (Wold 1975,
    mode A) takes the leading solution, its parts of length one, takes off each view what the view's own variate
    t = X w explains, X − t tᵀX / tᵀt, and goes on with the rest: variates of one view are uncorrelated. Its W apply to
    the views as given: W (PᵀW)⁻¹ with the loadings P. Σ_ab is taken over the rows that have both a and b, then all of
    Σ is projected on the positive semi-definite matrices. A row's point is the mean over its present views of
    (x_a − μ_a) W_a.

    Learned: see `LinearSubspace`; of more than two views k may be above the narrowest view's width.
    """

    def __init__(
        self,
        *,
        n_components: int = 32,
        mode: Mode = "svd",
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
        self.mode = mode
        self.reads = reads
        self.head = head
        self.C = C
        self.scaling = scaling
        self.modalities = modalities
        self.random_state = random_state
        self.task = task
        self.columns = columns

    def _weights(self, moments: Moments, covariance: Array) -> Array:
        widths = list(moments.widths.values())
        if self.mode == "svd":
            return canonical_weights(covariance, widths, self.n_components, shrinkage=1.0)
        return deflated_weights(covariance, widths, self.n_components)


def deflated_weights(covariance: Array, widths: Sequence[int], n_components: int) -> Array:
    """Weights (d in all, k) of canonical PLS, see `PlsFusion`: those that apply to the views as given.

    Of two views there are at most as many as the narrower has directions; of more at most as many as the second
    widest has. Raises FusionError where no direction of one view goes along with any of another.
    """
    places = spans(widths)
    total = [float(np.trace(covariance[place, place])) for place in places]
    left = covariance.copy()
    found: list[tuple[Array, Array]] = []
    while len(found) < n_components:
        directions, shared = _together(left, places)
        if shared <= CORRELATION_TOLERANCE * max(total):
            break
        spread = left @ directions
        loadings = np.zeros_like(directions)
        for view, place in enumerate(places):
            variance = directions[place, view] @ spread[place, view]
            if variance > RANK_TOLERANCE * total[view]:
                loadings[place, view] = spread[place, view] / variance
            else:
                # Nothing is left of this view: it has no part in the component.
                directions[:, view] = spread[:, view] = 0.0
        # Each view without what its own variate explains: X − X u pᵀ.
        left = left - loadings @ spread.T - spread @ loadings.T + loadings @ (directions.T @ spread) @ loadings.T
        found.append((directions.sum(axis=1), loadings.sum(axis=1)))
    if not found:
        raise FusionError("the views have no direction in common: their cross-covariances are zero")
    W, P = (np.stack(columns, axis=1) for columns in zip(*found, strict=True))
    return with_fixed_signs(np.concatenate([W[s] @ np.linalg.pinv(P[s].T @ W[s]) for s in places]))


def _together(covariance: Array, places: Sequence[slice]) -> tuple[Array, float]:
    """Directions (d in all, views) of length one in which the views vary together most, and their covariances' sum."""
    between = covariance.copy()
    for place in places:
        between[place, place] = 0.0
    if len(places) == 2:
        # The right singular vector of the one block; the left one follows from it.
        block = between[places[0], places[1]]
        _, right = leading_eigenvectors(block.T @ block, 1)
        joint = np.concatenate([block @ right, right])
    else:
        _, joint = leading_eigenvectors(between, 1)
    directions = np.zeros((len(joint), len(places)))
    for view, place in enumerate(places):
        length = np.linalg.norm(joint[place])
        directions[place, view] = joint[place, 0] / length if length > 0 else 0.0
    shared = sum(directions[:, i] @ between @ directions[:, j] for i, j in combinations(range(len(places)), 2))
    return directions, float(shared)
