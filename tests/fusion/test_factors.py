"""The shared factor against the singular value decomposition, brute force, and its conditions on all rows."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from mmcore.errors import FusionError
from mmcore.fusion.data import View, Views
from mmcore.fusion.factors import FactorProblem, Factors
from mmcore.fusion.moments import Moments

BOTH = pytest.mark.parametrize("mu", [None, 2.0], ids=["orthonormal", "penalty"])


def planted(n: int, k: int, widths: dict[str, int], *, noise: float, missing: float, seed: int = 0):
    """V (n, k) and views X = V Uᵀ + noise of which blocks are missing; one view of each row stays."""
    random = np.random.default_rng(seed)
    V = random.normal(size=(n, k))
    keep = random.random((n, len(widths))) >= missing
    keep[np.arange(n), random.integers(len(widths), size=n)] = True
    views = {}
    for number, (name, width) in enumerate(widths.items()):
        X = V @ random.normal(size=(k, width)) + noise * random.normal(size=(n, width))
        X[~keep[:, number]] = np.nan
        views[name] = View(X, keep[:, number])
    return V, Views(views)


def solve(views: Views, k: int, penalty: float, mu: float | None, weights=None, **how) -> tuple[FactorProblem, Factors]:
    problem = FactorProblem(Moments.of(views, weights), penalty, mu)
    return problem, problem.solve(k, **{"tolerance": 1e-9, "max_iterations": 2000, **how})


def rows_of(problem: FactorProblem, found: Factors, views: Views) -> np.ndarray:
    """V (n, k), row by row."""
    V = np.zeros((len(views), found.loadings.shape[1]))
    for row in range(len(views)):
        seen = [name for name, view in views.items() if view.present[row]]
        V[row] = problem.maps(found.loadings, seen) @ np.concatenate([views[name].values[row] for name in seen])
    return V


def conditions(problem: FactorProblem, U: np.ndarray, V: np.ndarray, views: Views):
    """Objective and both gradients of the problem as it is stated, over all rows."""
    objective = problem.penalty * (U**2).sum() + (problem.mu or 0.0) * (V**2).sum()
    for_u, for_v = 2 * problem.penalty * U, 2 * (problem.mu or 0.0) * V
    for name, span in problem.moments.spans.items():
        there = views[name].present
        residual = np.where(there[:, None], V @ U[span].T - np.where(there[:, None], views[name].values, 0.0), 0.0)
        objective += (residual**2).sum()
        for_u[span] += 2 * residual.T @ V
        for_v += 2 * residual @ U[span]
    return objective, for_u, for_v


@BOTH
@pytest.mark.parametrize("missing", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("penalty", [0.05, 1.0])
def test_the_end_is_stationary_and_the_objective_never_rose(missing: float, penalty: float, mu: float | None) -> None:
    _, views = planted(120, 3, {"a": 4, "b": 2, "c": 7}, noise=1.0, missing=missing)
    problem, found = solve(views, 3, penalty, mu)
    V = rows_of(problem, found, views)
    objective, for_u, for_v = conditions(problem, found.loadings, V, views)
    if mu is None:
        np.testing.assert_allclose(V.T @ V, np.eye(3), atol=1e-8)
        along = V.T @ for_v
        for_v = for_v - V @ (along + along.T) / 2
    size = 2 * np.linalg.norm(np.concatenate([np.nan_to_num(views[name].values).T @ V for name in views]))
    assert np.linalg.norm(for_u) < 1e-6 * size
    assert np.linalg.norm(for_v) < 1e-6 * size
    assert objective == pytest.approx(found.objectives[-1], rel=1e-10)
    assert np.diff(found.objectives).max(initial=-1.0) <= 1e-13 * found.objectives[0]
    assert found.gradient < 1e-9
    np.testing.assert_allclose(found.spread, (V**2).sum(axis=0), rtol=1e-8)
    products = found.loadings.T @ found.loadings
    np.testing.assert_allclose(products, np.diag(products.diagonal()), atol=1e-6 * products.max())


@pytest.mark.parametrize("penalty", [0.0, 1e-10, 0.7])
def test_one_view_has_the_truncated_singular_value_decomposition(penalty: float) -> None:
    X = np.random.default_rng(1).normal(size=(50, 8)) @ np.diag(np.arange(1.0, 9.0))
    views = Views({"a": X})
    problem, found = solve(views, 3, penalty, None)
    left, lengths, right = np.linalg.svd(X, full_matrices=False)
    truncated = (left[:, :3] * lengths[:3]) @ right[:3]
    V = rows_of(problem, found, views)
    np.testing.assert_allclose(V @ found.loadings.T, truncated / (1 + penalty), atol=1e-6)
    np.testing.assert_allclose(np.abs(V.T @ left[:, :3]), np.eye(3), atol=1e-8)


@pytest.mark.parametrize("penalty", [1e-12, 4.0])
def test_with_a_penalty_on_both_the_singular_values_are_thresholded(penalty: float) -> None:
    X = np.random.default_rng(1).normal(size=(50, 8)) @ np.diag(np.arange(1.0, 9.0))
    views = Views({"a": X})
    problem, found = solve(views, 3, penalty, 25.0)
    left, lengths, right = np.linalg.svd(X, full_matrices=False)
    shrunk = np.maximum(lengths[:3] - np.sqrt(penalty * 25.0), 0.0)
    np.testing.assert_allclose(
        rows_of(problem, found, views) @ found.loadings.T, (left[:, :3] * shrunk) @ right[:3], atol=1e-6
    )


@BOTH
@pytest.mark.parametrize("missing", [0.3, 0.5])
def test_a_planted_factor_is_found_with_blocks_missing(missing: float, mu: float | None) -> None:
    V, views = planted(400, 4, {"a": 10, "b": 15, "c": 8}, noise=0.01, missing=missing)
    assert np.mean([view.present.all() for _, view in views.items()]) == 0
    problem, found = solve(views, 4, 1e-4, mu)
    angles = scipy.linalg.subspace_angles(V, rows_of(problem, found, views))
    assert np.degrees(angles.max()) < 1.0


@BOTH
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_no_start_of_a_general_minimiser_gets_lower(seed: int, mu: float | None) -> None:
    _, views = planted(12, 1, {"a": 3, "b": 2}, noise=0.5, missing=0.3, seed=seed)
    problem, found = solve(views, 1, 0.5, mu)
    random = np.random.default_rng(seed)

    def objective(flat: np.ndarray) -> float:
        U, V = flat[:5].reshape(5, 1), flat[5:].reshape(12, 1)
        return float(conditions(problem, U, V / np.linalg.norm(V) if mu is None else V, views)[0])

    lowest = min(minimize(objective, random.normal(size=17)).fun for _ in range(3))
    assert found.objectives[-1] <= lowest + 1e-6 * abs(lowest)


@BOTH
def test_a_weight_of_two_is_a_row_given_twice(mu: float | None) -> None:
    _, views = planted(60, 2, {"a": 4, "b": 3}, noise=0.5, missing=0.3)
    weights = 1 + np.arange(60) % 2
    _, weighted = solve(views, 2, 1.0, mu, weights)
    _, repeated = solve(views[np.repeat(np.arange(60), weights)], 2, 1.0, mu)
    np.testing.assert_allclose(weighted.loadings, repeated.loadings, atol=1e-6)


@BOTH
def test_parts_merged_far_from_zero_give_what_all_rows_give(mu: float | None) -> None:
    _, views = planted(300, 2, {"a": 4, "b": 3}, noise=0.5, missing=0.3)
    views = Views({name: View(view.values + 1e4, view.present) for name, view in views.items()})
    whole = Moments.of(views)
    merged = Moments.merged(Moments.of(views[slice(at, at + 50)]) for at in range(0, 300, 50))
    found = [
        FactorProblem(part.scaled(part.means(), part.deviations()), 1.0, mu).solve(
            2, tolerance=1e-11, max_iterations=2000
        )
        for part in (whole, merged)
    ]
    np.testing.assert_allclose(found[0].loadings, found[1].loadings, atol=1e-9 * np.abs(found[0].loadings).max())


@BOTH
def test_there_are_no_more_components_than_directions(mu: float | None) -> None:
    views = Views({"a": np.outer(np.arange(10.0), [1.0, 2.0]), "b": np.ones((10, 1))})
    problem, found = solve(views, 5, 1e-6, mu)
    assert found.loadings.shape == (3, 2)
    assert problem.maps(found.loadings, ["a"]).shape == (2, 2)


def test_more_components_than_a_view_has_columns_and_no_penalty() -> None:
    _, views = planted(200, 4, {"a": 2, "b": 9}, noise=0.1, missing=0.3)
    problem, found = solve(views, 4, 0.0, None)
    assert np.isfinite(rows_of(problem, found, views)).all()


def test_nothing_to_share_is_an_error() -> None:
    with pytest.raises(FusionError, match="nothing to share"):
        solve(Views({"a": np.zeros((5, 2))}), 1, 1.0, None)
    with pytest.raises(FusionError, match="penalties outweigh"):
        solve(Views({"a": np.ones((5, 2))}), 1, 100.0, 100.0)
