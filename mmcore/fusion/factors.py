"""One factor that all views share, by alternating least squares on moments: rows are read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mmcore.errors import FusionError
from mmcore.fusion.data import Array
from mmcore.fusion.moments import Moments, Pattern
from mmcore.fusion.spectra import leading_eigenvectors, with_fixed_signs

RANK_TOLERANCE = 1e-12
"""Directions that hold a smaller share of the largest one's are taken as not there."""
WINDOW = 8
"""Earlier steps from which a further one is extrapolated."""


@dataclass(frozen=True, eq=False)
class Factors:
    """Loadings U (d in all, k) of a solved problem, and how it went."""

    loadings: Array
    spread: Array
    """(k,) Σ w v² of each component over the training rows."""
    objectives: list[float]
    """After each step, the first one the start's; never rising."""
    gradient: float
    """Norm of the objective's gradient, projected on VᵀWV = I where that is asked for, as a share of its terms'."""


class FactorProblem:
    """min Σ_m ‖X⁽ᵐ⁾ − U⁽ᵐ⁾Vᵀ‖² + λ Σ_m ‖U⁽ᵐ⁾‖² over U⁽ᵐ⁾ (d_m, k) and one V (n, k), over the blocks that are there.

    X⁽ᵐ⁾ (d_m, n) holds the rows of view m as columns; a row's weight w counts its terms w times. As it stands the
    problem has no minimum: U/t and tV fit as well for every t, and the penalty goes to 0 as t grows. So either
    VᵀWV = I is asked for (`mu` None), or μ ‖V‖² is added.

    With VᵀWV = I the penalty equals λ Σ_m ‖U⁽ᵐ⁾Vᵀ‖², which no longer changes with t, nor with any other change of
    basis. So that is what is minimised, without a constraint, and the basis is chosen at the end. Then both halves are
    least squares, exactly solved. For a row x with the views p, with G_p = Σ_{m∈p} U⁽ᵐ⁾ᵀU⁽ᵐ⁾ and G that of all views,

        v = (G_p + λG)⁻¹ U_pᵀ x                                (with μ: (G_p + μI)⁻¹ U_pᵀ x)
        U⁽ᵐ⁾ = (Σ w xvᵀ)(Σ w vvᵀ + λ Σ_all w vvᵀ)⁻¹             (with μ: … + λI), sums over the rows that have m

    v is linear in x for each pattern p, so both sums follow from Σ w xxᵀ per pattern, and rows are not needed again.
    With every block there the minimum is known: the leading singular vectors, see `_complete`.
    """

    def __init__(self, moments: Moments, penalty: float, mu: float | None) -> None:
        self.moments, self.penalty, self.mu = moments, penalty, mu
        self.seconds = {pattern: part.second() for pattern, part in moments.patterns.items() if any(pattern)}
        self._energy = float(sum(np.trace(second) for second in self.seconds.values()))

    def solve(self, n_components: int, *, tolerance: float, max_iterations: int) -> Factors:
        """The stationary point that alternating least squares reaches from pairwise second moments.

        Steps are extrapolated (Anderson 1965) wherever that does not raise the objective; they end when `gradient` is
        below `tolerance`, or after so many. Components are uncorrelated, those that explain most first. Where the
        data have fewer than `n_components` directions, there are fewer. Raises FusionError where there is none.
        """
        state = self.step(self.start(n_components))
        objectives, steps = [state.objective], _Extrapolation()
        while state.gradient > tolerance and len(objectives) <= max_iterations:
            further = self.step(steps.next(state.loadings, state.better))
            if further.objective > state.objective:
                # An alternating step never rises; what was extrapolated from several may.
                steps = _Extrapolation()
                further = self.step(state.better)
            state = further
            objectives.append(state.objective)
        loadings, spread = self._in_order(state)
        return Factors(loadings, spread, objectives, state.gradient)

    def start(self, n_components: int) -> Array:
        """The solution (d, k) where every block is there; else that of second moments from the rows that have both."""
        width = self.moments.width
        total, together = np.zeros((width, width)), np.zeros((width, width))
        for there, _, second, weight in self._parts():
            total[np.ix_(there, there)] += second
            together[np.ix_(there, there)] += weight
        if not self.moments.complete:
            # It may have negative eigenvalues, which are not among those that are taken.
            total *= self.moments.weight / np.where(together > 0, together, 1.0)
        return self._complete(total, n_components)

    def _complete(self, second: Array, n_components: int) -> Array:
        """U from the second moments of whole rows, whose eigenvectors are A and eigenvalues s².

        U = A s/(1 + λ) where VᵀWV = I; with μ, U Vᵀ has the singular values max(s − √(λμ), 0) (soft-thresholding,
        as 2√(λμ) times the nuclear norm is the least that both penalties can be).
        """
        values, vectors = leading_eigenvectors(second, min(n_components, len(second)))
        singular = np.sqrt(np.maximum(values, 0.0))
        if self.mu is None:
            lengths = singular / (1 + self.penalty)
        else:
            shrunk = np.maximum(singular - np.sqrt(self.penalty * self.mu), 0.0)
            lengths = np.sqrt(shrunk * np.sqrt(self.mu / self.penalty))
        kept = lengths**2 > RANK_TOLERANCE * max(float(lengths[0]) ** 2, np.finfo(float).tiny)
        if not kept.any():
            raise FusionError(
                "shared-factor: nothing to share; the views are zero in every row, or the penalties outweigh them"
            )
        return np.asarray(vectors[:, kept] * lengths[kept])

    def step(self, loadings: Array) -> _Step:
        """The best V for these loadings, what that gives, and the best loadings for that V."""
        k = loadings.shape[1]
        names = list(self.moments.widths)
        crossed, grams = np.zeros_like(loadings), {name: np.zeros((k, k)) for name in names}
        every, fit = np.zeros((k, k)), self._energy
        for there, seen, second, _ in self._parts():
            maps = self.maps(loadings, seen)
            cross = second @ maps.T
            gram = maps @ cross
            crossed[there] += cross
            every += gram
            for name in seen:
                grams[name] += gram
            used = loadings[there]
            fit += float(np.sum((used.T @ used) * gram) - 2 * np.sum(used * cross))
        own = loadings.T @ loadings
        if self.mu is None:
            ridge, penalties = self.penalty * every, self.penalty * float(np.sum(own * every))
            root = inverse_root(every)
        else:
            ridge, root = self.penalty * np.eye(k), np.eye(k)
            penalties = self.penalty * float(np.trace(own)) + self.mu * float(np.trace(every))
        better, slope = np.empty_like(loadings), np.empty_like(loadings)
        for name, span in self.moments.spans.items():
            normal = grams[name] + ridge
            slope[span] = loadings[span] @ normal - crossed[span]
            better[span] = solved(normal, crossed[span].T).T
        # In the basis where VᵀWV = I; there the part of the gradient that belongs to V is zero.
        terms = float(np.linalg.norm(crossed @ root))
        gradient = float(np.linalg.norm(slope @ root)) / max(terms, np.finfo(float).tiny)
        return _Step(loadings, better, fit + penalties, gradient, every)

    def maps(self, loadings: Array, seen: Sequence[str]) -> Array:
        """What turns the columns of these views into v: (k, d of them)."""
        return factor_map(self.moments.spans, loadings, seen, penalty=self.penalty, mu=self.mu)

    def _parts(self) -> Iterator[tuple[Array, list[str], Array, float]]:
        """Of each pattern: its columns, its views, its second moment and its weight."""
        for pattern, second in self.seconds.items():
            weight = self.moments.patterns[pattern].weight
            yield self.moments.columns(pattern), _seen(self.moments, pattern), second, weight

    def _in_order(self, state: _Step) -> tuple[Array, Array]:
        """The loadings in the basis where V's components are uncorrelated, and the sum of squares of each."""
        basis = np.linalg.inv(inverse_root(state.gram)) if self.mu is None else np.eye(len(state.gram))
        turned = state.loadings @ basis
        _, vectors = np.linalg.eigh(turned.T @ turned)
        turned = with_fixed_signs(turned @ vectors[:, ::-1])
        return turned, np.asarray(self.step(turned).gram.diagonal())


@dataclass(frozen=True, eq=False)
class _Step:
    """Loadings, and all that follows from them with the best V for them."""

    loadings: Array
    better: Array
    """The best loadings for that V."""
    objective: float
    gradient: float
    gram: Array
    """Σ w vvᵀ: (k, k)."""


class _Extrapolation:
    """Anderson's mixing: the combination of the latest steps x → g(x) whose residuals g(x) − x cancel best."""

    def __init__(self) -> None:
        self._points: list[Array] = []
        self._residuals: list[Array] = []

    def next(self, point: Array, image: Array) -> Array:
        """Where to go from a point and its image: the image itself at first."""
        self._points = [*self._points[-WINDOW:], image.ravel()]
        self._residuals = [*self._residuals[-WINDOW:], (image - point).ravel()]
        if len(self._points) < 2:
            return image
        residuals = np.stack(self._residuals, axis=1)
        changes = np.diff(residuals, axis=1)
        shares, *_ = np.linalg.lstsq(changes, residuals[:, -1], rcond=1e-10)
        moved = np.diff(np.stack(self._points, axis=1), axis=1) @ shares
        return np.asarray(image - moved.reshape(image.shape))


def factor_map(
    spans: dict[str, slice], loadings: Array, seen: Sequence[str], *, penalty: float, mu: float | None
) -> Array:
    """The matrix (k, d of them) that takes a row with the views `seen` to its v: see `FactorProblem`."""
    used = np.concatenate([loadings[spans[name]] for name in seen])
    ridge = penalty * (loadings.T @ loadings) if mu is None else mu * np.eye(loadings.shape[1])
    return solved(used.T @ used + ridge, used.T)


def solved(normal: Array, right: Array) -> Array:
    """The solution of least length of a positive semi-definite system."""
    values, vectors = np.linalg.eigh(normal)
    kept = values > RANK_TOLERANCE * max(float(values[-1]), np.finfo(float).tiny)
    return np.asarray((vectors[:, kept] / values[kept]) @ (vectors[:, kept].T @ right))


def inverse_root(matrix: Array) -> Array:
    """The symmetric R (k, k) with R · matrix · R = I."""
    values, vectors = np.linalg.eigh(matrix)
    least = RANK_TOLERANCE * max(float(values[-1]), np.finfo(float).tiny)
    return np.asarray((vectors / np.sqrt(np.maximum(values, least))) @ vectors.T)


def _seen(moments: Moments, pattern: Pattern) -> list[str]:
    return [name for name, there in zip(moments.widths, pattern, strict=True) if there]
