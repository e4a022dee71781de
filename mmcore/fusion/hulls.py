"""The shortest line between the hulls of two classes in a kernel's space: the quadratic program of margins."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVC

from mmcore.fusion.data import Array

HARD_MARGIN = 1e9
"""The C of a support vector machine that lets no row inside its margin."""
GUESS_ITERATIONS = 20_000
"""The machine that only guesses stops here: with kernels near to singular it might go on for long."""
GUESSES = 50
"""At most so many sets of rows are tried at once; then rows come and go one by one."""
ROUNDING = 1e-12
"""Gaps that are a smaller share of the largest k(x, x) are rounding."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Hulls:
    """γ (n,), which sums to one over each class, the line's squared length, and how far above the least it may be."""

    gamma: Array
    objective: float
    gap: float


def closest_in_hulls(kernel: Array, signs: Array, *, tolerance: float = 1e-8) -> Hulls:
    """γ ≥ 0, Σ_{y=1} γ = Σ_{y=−1} γ = 1, that minimises (yγ)ᵀ K (yγ) for a positive definite K; `signs` (n,) y are ±1.

    A support vector machine without slack has the same solution up to scale (Bennett and Bredensteiner 2000, "Duality
    and geometry in SVM classifiers"). One is run to a low accuracy, only to guess which rows carry it. From there a
    primal-dual active set (Hintermüller, Ito and Kunisch 2003) solves the optimality conditions on those rows exactly,
    lets go of all whose γ is negative and takes in all whose slope is below their class's. Where that goes round in
    circles, rows come and go one by one, and the objective falls each time (Lawson and Hanson 1974). It stops where the
    duality gap of Frank and Wolfe, γᵀ∇ − Σ min ∇ of each class, is at most `tolerance` of the objective or lost in
    rounding; the log says so where neither can be reached.
    """
    problem = _Problem(kernel, signs, tolerance)
    best = problem.certified(_guessed(kernel, signs))
    for improve in (_jumped, _descended):
        if not problem.solved(best):
            best = min(best, improve(problem, best), key=lambda found: found.gap)
    if not problem.solved(best):
        _logger.warning("the margin's quadratic program stopped at a gap of %.1e", best.gap / best.objective)
    return best


class _Problem:
    """A kernel, two classes, and what both ways of improving need."""

    def __init__(self, kernel: Array, signs: Array, tolerance: float) -> None:
        self.kernel = kernel
        self.signs = signs
        self.tolerance = tolerance
        self.rounding = ROUNDING * float(kernel.diagonal().max())
        self.sides = np.stack([signs > 0, signs < 0], axis=1).astype(np.float64)

    def solved(self, found: Hulls) -> bool:
        return found.gap <= max(self.tolerance * found.objective, self.rounding)

    def slopes(self, gamma: Array) -> Array:
        rows = np.flatnonzero(gamma)
        return np.asarray(2.0 * (self.kernel[:, rows] @ (self.signs * gamma)[rows]) * self.signs)

    def certified(self, gamma: Array) -> Hulls:
        slopes = self.slopes(gamma)
        lowest = sum(float(slopes[side > 0].min()) for side in self.sides.T)
        level = float(gamma @ slopes)
        return Hulls(gamma, level / 2.0, max(level - lowest, 0.0))

    def on_face(self, rows: Array) -> tuple[Array, Array] | None:
        """The minimum with γ of any sign on these rows and zero elsewhere, and each class's slope there."""
        signed = self.sides[rows] * self.signs[rows, None]
        try:
            solved = cho_solve(cho_factor(self.kernel[np.ix_(rows, rows)], lower=True), signed)
            levels = np.linalg.solve(signed.T @ solved, np.ones(2))
        except np.linalg.LinAlgError:
            return None
        gamma = np.zeros(len(self.signs))
        gamma[rows] = (solved @ levels) * self.signs[rows]
        return gamma, 2.0 * levels


def _guessed(kernel: Array, signs: Array) -> Array:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        machine = SVC(C=HARD_MARGIN, kernel="precomputed", max_iter=GUESS_ITERATIONS).fit(kernel, signs)
    rough = np.zeros(len(signs))
    rough[machine.support_] = np.abs(machine.dual_coef_[0])
    for side in (signs > 0, signs < 0):
        rough[side] = rough[side] / rough[side].sum() if rough[side].any() else 1.0 / side.sum()
    return rough


def _jumped(problem: _Problem, best: Hulls) -> Hulls:
    """The best that the primal-dual active set meets before a set of rows comes back."""
    rows, seen = np.flatnonzero(best.gamma), set[bytes]()
    while len(seen) < GUESSES and rows.tobytes() not in seen and (face := problem.on_face(rows)) is not None:
        seen.add(rows.tobytes())
        gamma, levels = face
        if (gamma >= 0).all():
            best = min(best, problem.certified(gamma), key=lambda found: found.gap)
            if problem.solved(best):
                break
        slack = problem.slopes(gamma) - problem.sides @ levels
        kept = gamma > 0
        kept[slack < -1e-12 * np.abs(levels).max()] = True
        for side, level in zip(problem.sides.T > 0, levels, strict=True):
            if not kept[side].any():
                # A class must keep a row.
                kept[np.flatnonzero(side)[np.argmin(slack[side] + level)]] = True
        rows = np.flatnonzero(kept)
    return best


def _descended(problem: _Problem, best: Hulls) -> Hulls:
    """From a point of the hulls down, one row at a time."""
    gamma = best.gamma.copy()
    support = gamma > 0
    for _ in range(10 * len(gamma)):
        face = problem.on_face(np.flatnonzero(support))
        if face is None:
            break
        aim, levels = face
        falling = np.flatnonzero(support & (aim < 0))
        if len(falling):
            # As far as γ stays positive; the row that stops it leaves.
            steps = gamma[falling] / (gamma[falling] - aim[falling])
            gamma += steps.min() * (aim - gamma)
            leaving = falling[steps == steps.min()]
            gamma[leaving], support[leaving] = 0.0, False
            continue
        gamma = aim
        found = problem.certified(gamma)
        best = min(best, found, key=lambda one: one.gap)
        slack = problem.slopes(gamma) - problem.sides @ levels
        slack[support] = 0.0
        entering = int(slack.argmin())
        if problem.solved(found) or slack[entering] >= 0:
            break
        support[entering] = True
    return best
