"""One factor that all views share: matrix factorisation with missing blocks, then a head on the factor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mmcore.errors import FusionError
from mmcore.fusion.base import Columns, FitRun, Rows, SharedSpace
from mmcore.fusion.data import Array, Views
from mmcore.fusion.factors import FactorProblem, factor_map
from mmcore.fusion.from_moments import MomentsFusion
from mmcore.fusion.heads import HeadKind, Strength
from mmcore.fusion.moments import Moments
from mmcore.fusion.scaling import Scaling
from mmcore.fusion.spectra import with_fixed_signs
from mmcore.fusion.subspace import narrowed
from mmcore.fusion.targets import Task
from mmcore.records import Json


class SharedFactorFusion(MomentsFusion, SharedSpace):
    """min Σ_m ‖X⁽ᵐ⁾ − U⁽ᵐ⁾Vᵀ‖²_F + λ Σ_m ‖U⁽ᵐ⁾‖²_F with one V for all views; the head reads a row's part of V.

    X⁽ᵐ⁾ is the scaled view m, divided by the root of its rows' mean squared length (`balance`), so that every view
    counts alike. λ is `penalty`. VᵀV = I is asked for, or, where `factor_penalty` μ is given, μ ‖V‖²_F is added: as it
    stands the problem has no minimum. See `FactorProblem` for how it is solved; blocks that are missing are left out.

    A row's point is the v that fits its present views best under the same penalty, one linear map per pattern of
    views; of training rows it is their row of V. Points are V times one number, which gives them unit mean square
    over the training rows.

    Learned: `loadings_` {view: (d, k)} of the scaled, balanced views, `lengths_` {view: that root}, `spread_` (k,)
    sums of squares of V's columns, where k is `n_components`, or fewer where the views have fewer directions.
    `curves_` holds the objective after each step and the gradient at the end.
    """

    def __init__(
        self,
        *,
        n_components: int = 32,
        penalty: float = 0.1,
        factor_penalty: float | None = None,
        balance: bool = True,
        tolerance: float = 1e-7,
        max_iterations: int = 1000,
        head: HeadKind = "linear",
        C: Strength = "auto",
        scaling: Scaling = "standard",
        modalities: Sequence[str] | None = None,
        random_state: int | None = 0,
        task: Task = "classes",
        columns: Columns | None = None,
    ) -> None:
        self.n_components = n_components
        self.penalty = penalty
        self.factor_penalty = factor_penalty
        self.balance = balance
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.head = head
        self.C = C
        self.scaling = scaling
        self.modalities = modalities
        self.random_state = random_state
        self.task = task
        self.columns = columns

    def learn_moments(self, moments: Moments) -> None:
        if self.penalty < 0 or (self.factor_penalty is not None and not (self.penalty > 0 < self.factor_penalty)):
            raise FusionError(
                f"shared-factor: needs a penalty of 0 or more, and both above 0 where factor_penalty is given; got "
                f"penalty {self.penalty:g}, factor_penalty {self.factor_penalty}"
            )
        self.lengths_ = _lengths(moments) if self.balance else dict.fromkeys(moments.widths, 1.0)
        scale = np.concatenate([np.full(width, self.lengths_[name]) for name, width in moments.widths.items()])
        problem = FactorProblem(moments.scaled(np.zeros(moments.width), scale), self.penalty, self.factor_penalty)
        found = problem.solve(self.n_components, tolerance=self.tolerance, max_iterations=self.max_iterations)
        self.loadings_ = {name: found.loadings[span] for name, span in moments.spans.items()}
        self.spread_ = found.spread
        self._scale = float(np.sqrt(moments.weight / found.spread.mean()))
        self.curves_ = {"objective": found.objectives, "gradient": found.gradient}

    def _learn(self, train: Rows, validation: Rows | None, run: FitRun) -> None:
        narrow, bases = narrowed(train.views)
        self.learn_moments(Moments.of(narrow, train.weights))
        self.loadings_ |= {name: basis @ self.loadings_[name] for name, basis in bases.items()}
        if bases:
            # Those that the views' own columns give, however many rows there were.
            whole = with_fixed_signs(np.concatenate(list(self.loadings_.values())))
            edges = np.cumsum([len(loadings) for loadings in self.loadings_.values()])[:-1]
            self.loadings_ = dict(zip(self.loadings_, np.split(whole, edges), strict=True))

    def _project(self, name: str, values: Array) -> Array:
        return np.asarray(values @ self._map([name]))

    def _fused(self, views: Views) -> Array:
        present = np.stack([view.present for _, view in views.items()], axis=1)
        fused = np.zeros((len(views), len(self.spread_)))
        for pattern in np.unique(present, axis=0):
            seen = [name for name, there in zip(views, pattern, strict=True) if there]
            if not seen:
                continue
            rows = (present == pattern).all(axis=1)
            if len(seen) == 1:
                # The very numbers that `transform` gives.
                fused[rows] = self._project(seen[0], views[seen[0]].values)[rows]
            else:
                fused[rows] = np.concatenate([views[name].values[rows] for name in seen], axis=1) @ self._map(seen)
        return fused

    def _features(self, views: Views) -> Array:
        return self._fused(views)

    def _map(self, seen: Sequence[str]) -> Array:
        """From the columns of these scaled views to points: (d of them, k)."""
        edges = np.cumsum([0, *(len(loadings) for loadings in self.loadings_.values())]).tolist()
        spans = {name: slice(edges[i], edges[i + 1]) for i, name in enumerate(self.loadings_)}
        loadings = np.concatenate(list(self.loadings_.values()))
        found = factor_map(spans, loadings, seen, penalty=self.penalty, mu=self.factor_penalty)
        lengths = np.concatenate([np.full(len(self.loadings_[name]), self.lengths_[name]) for name in seen])
        return np.asarray((found * self._scale / lengths).T)

    def _map_state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        arrays = {f"factor.{name}.loadings": loadings for name, loadings in self.loadings_.items()}
        lengths = np.array([self.lengths_[name] for name in self.modalities_])
        scale = np.array([self._scale])
        return {**arrays, "factor.lengths": lengths, "factor.spread": self.spread_, "factor.scale": scale}, {}

    def _map_restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        self.loadings_ = {name: arrays[f"factor.{name}.loadings"] for name in self.modalities_}
        self.lengths_ = dict(zip(self.modalities_, arrays["factor.lengths"].tolist(), strict=True))
        self.spread_, self._scale = arrays["factor.spread"], float(arrays["factor.scale"][0])


def _lengths(moments: Moments) -> dict[str, float]:
    """The root mean square length of each view's rows; 1 where all are zero."""
    squares, weights = dict.fromkeys(moments.widths, 0.0), moments.weights()
    for pattern, part in moments.patterns.items():
        there = moments.columns(pattern)
        values = np.zeros(moments.width)
        values[there] = part.scatter.diagonal() + part.weight * part.mean**2
        for name, span in moments.spans.items():
            squares[name] += float(values[span].sum())
    return {name: float(np.sqrt(square / weights[name])) or 1.0 for name, square in squares.items()}
