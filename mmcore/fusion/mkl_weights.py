"""How much each kernel counts in a sum of kernels: EasyMKL, lp-norm multiple kernel learning, centred alignment.

All take Gram matrices (kernels, n, n), symmetric and positive semi-definite, and one problem's targets (n,).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from mmcore.fusion.data import Array
from mmcore.fusion.hulls import closest_in_hulls

ROUNDS = 200
"""At most so many alternations of machine and weights."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LpMkl:
    """Weights (kernels,) with ‖η‖_p = 1, and their duality gap as a share of the dual objective."""

    weights: Array
    gap: float
    rounds: int


def easymkl_weights(grams: Array, signs: Array, *, lam: float = 0.1, weights: Array | None = None) -> Array:
    """EasyMKL (Aiolli and Donini 2015, "EasyMKL: a scalable multiple kernel learning algorithm"): (problems, kernels).

    γ minimises (1 − λ) (yγ)ᵀ (Σ K_m) (yγ) + λ Σ γᵢ² / wᵢ over γ ≥ 0 that sum to one in each class: the margin between
    the classes, held against a regulariser that spreads it over rows. η_m ∝ (yγ)ᵀ K_m (yγ), the share that kernel m
    has in that margin; each problem's sum to one. `signs` (n, problems) are ±1 (all alike: equal weights), `weights`
    (n,) positive, λ in (0, 1]: with 1 the margin is the distance of the classes' means.
    """
    total = grams.sum(axis=0)
    total *= 1.0 - lam
    total[np.diag_indices_from(total)] += lam if weights is None else lam / weights
    found = np.full((signs.shape[1], len(grams)), 1.0 / len(grams))
    for eta, one in zip(found, signs.T, strict=True):
        if np.ptp(one) > 0:
            parts = np.maximum(forms(grams, one * closest_in_hulls(total, one).gamma), 0.0)
            eta[:] = parts / parts.sum() if parts.any() else eta
    return found


def lpmkl_weights(
    grams: Array, solve: Callable[[Array], tuple[Array, float]], *, p: float = 2.0, tolerance: float = 1e-3
) -> LpMkl:
    """lp-norm multiple kernel learning (Kloft et al. 2011, "lp-norm multiple kernel learning", algorithm 1).

    Minimises Σ ‖w_m‖² / 2η_m + C Σ loss over the machine and over η ≥ 0 with ‖η‖_p ≤ 1, p ≥ 1 (p = 1 is SimpleMKL's
    problem), by turns: `solve(K)` gives the coefficients β (n,) of the support vector machine on K = Σ η_m K_m and the
    linear term of its dual, then η_m = ‖w_m‖^(2/(p+1)) / (Σ ‖w_q‖^(2p/(p+1)))^(1/p), where ‖w_m‖² = η_m² βᵀ K_m β.
    Stops where the duality gap (‖(βᵀ K_m β)‖_{p/(p−1)} − Σ η_m βᵀ K_m β) / 2 is at most `tolerance` of the dual.
    """
    eta = np.full(len(grams), len(grams) ** (-1.0 / p))
    best = LpMkl(eta, float("inf"), 0)
    for turn in range(1, ROUNDS + 1):
        coefficients, linear = solve(combined(grams, eta))
        parts = np.maximum(forms(grams, coefficients), 0.0)
        if not parts.any():
            return LpMkl(eta, 0.0, turn)
        dual_norm = parts.max() if p == 1 else np.linalg.norm(parts, p / (p - 1.0))
        gap = max(float(dual_norm - eta @ parts), 0.0) / 2.0
        relative = gap / max(linear - float(eta @ parts) / 2.0, np.finfo(float).tiny)
        if relative < best.gap:
            best = LpMkl(eta, relative, turn)
        if relative <= tolerance:
            return best
        norms = eta * np.sqrt(parts)
        eta = norms ** (2.0 / (p + 1.0))
        eta = eta / np.linalg.norm(eta, p)
    _logger.warning("lpmkl stopped after %d rounds at a duality gap of %.1e", ROUNDS, best.gap)
    return best


def alignment_weights(grams: Array, targets: Array, *, weights: Array | None = None, nonnegative: bool = True) -> Array:
    """The sums of kernels that are most like the targets' own, yyᵀ: (problems, kernels), ‖μ‖₂ = 1 each.

    Maximises ⟨Σ μ_m K̃_m, yyᵀ⟩ / ‖Σ μ_m K̃_m‖ with K̃ the kernels centred by the row weights (Cortes, Mohri and
    Rostamizadeh 2012, "Algorithms for learning kernels based on centered alignment", propositions 8 and 9): μ ∝ v, the
    minimum of vᵀMv − 2vᵀa, where M_mq = ⟨K̃_m, K̃_q⟩ and a_m = ⟨K̃_m, yyᵀ⟩. Without `nonnegative` v = M⁻¹a may have
    negative weights, and the sum then need not be positive semi-definite. `targets` (n, problems) are ±1 or numbers.
    """
    n = len(targets)
    shares = np.full(n, 1.0 / n) if weights is None else weights / weights.sum()
    means = grams @ shares
    overlap = np.empty((len(grams), len(grams)))
    for i, gram in enumerate(grams):
        weighted = gram * np.outer(shares, shares)
        for j in range(i + 1):
            apart = np.vdot(weighted, grams[j]) - 2.0 * np.sum(shares * means[i] * means[j])
            overlap[i, j] = overlap[j, i] = apart + (means[i] @ shares) * (means[j] @ shares)
    values, vectors = np.linalg.eigh(overlap)
    kept = values > 1e-12 * max(float(values[-1]), np.finfo(float).tiny)
    found = np.full((targets.shape[1], len(grams)), len(grams) ** -0.5)
    if not kept.any():
        return found
    values, vectors = values[kept], vectors[:, kept]
    for mu, target in zip(found, targets.T, strict=True):
        alignment = vectors.T @ forms(grams, shares * (target - shares @ target))
        if nonnegative:
            best, _ = nnls(np.sqrt(values)[:, None] * vectors.T, alignment / np.sqrt(values))
        else:
            best = vectors @ (alignment / values)
        if (length := float(np.linalg.norm(best))) > 0:
            mu[:] = best / length
    return found


def combined(grams: Array, weights: Array) -> Array:
    """Σ η_m K_m: (n, n)."""
    return np.asarray(np.tensordot(weights, grams, 1))


def forms(grams: Array, vector: Array) -> Array:
    """vᵀ K_m v of each kernel, read only where v is not zero: (kernels,)."""
    rows = np.flatnonzero(vector)
    values = vector[rows]
    return np.array([values @ gram[np.ix_(rows, rows)] @ values for gram in grams])
