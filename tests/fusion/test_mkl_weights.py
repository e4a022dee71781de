"""Kernel weights against their papers' optimality conditions, brute force and MKLpy."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.svm import SVC, SVR

from mmcore.fusion.data import View
from mmcore.fusion.hulls import closest_in_hulls
from mmcore.fusion.kernels import CentredKernel, Kernel
from mmcore.fusion.mkl_weights import (
    alignment_weights,
    combined,
    easymkl_weights,
    forms,
    lpmkl_weights,
)


def _problem(seed: int, n: int = 40, views: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Gram matrices of views that tell more or less about the signs."""
    random = np.random.default_rng(seed)
    signs = np.where(random.random(n) < 0.4, 1.0, -1.0)
    signs[:2] = 1.0, -1.0
    grams = [
        CentredKernel(Kernel("rbf")).fit_transform(
            View.of(random.normal(size=(n, 3)) + number * signs[:, None]), np.ones(n)
        )
        for number in range(views)
    ]
    return np.array(grams), signs


def _machine(signs: np.ndarray, C: float = 1.0):
    def solve(gram: np.ndarray) -> tuple[np.ndarray, float]:
        machine = SVC(C=C, kernel="precomputed", tol=1e-9).fit(gram, signs)
        coefficients = np.zeros(len(signs))
        coefficients[machine.support_] = machine.dual_coef_[0]
        return coefficients, float(np.abs(coefficients).sum())

    return solve


# The margin's quadratic program


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1e-3, 0.1, 0.5, 1.0]))
def test_the_hulls_closest_points_meet_the_optimality_conditions(seed: int, lam: float) -> None:
    grams, signs = _problem(seed)
    kernel = (1 - lam) * grams.sum(axis=0) + lam * np.eye(len(signs))
    found = closest_in_hulls(kernel, signs)
    slopes = 2 * signs * (kernel @ (signs * found.gamma))
    for side in (signs > 0, signs < 0):
        assert found.gamma[side].sum() == pytest.approx(1.0, abs=1e-12)
        # Rows that carry the solution have the class's lowest slope, the others none lower.
        lowest = slopes[side].min()
        np.testing.assert_allclose(slopes[side & (found.gamma > 1e-12)], lowest, rtol=1e-5, atol=1e-9)
    assert (found.gamma >= 0).all()
    assert found.gap <= 1e-8 * found.objective
    assert found.objective == pytest.approx((signs * found.gamma) @ kernel @ (signs * found.gamma))


def test_no_points_of_the_hulls_are_closer() -> None:
    grams, signs = _problem(0, 12)
    kernel = grams.sum(axis=0) + 0.1 * np.eye(12)
    found, random = closest_in_hulls(kernel, signs), np.random.default_rng(0)
    for _ in range(3000):
        gamma = random.dirichlet(np.full((signs > 0).sum(), 0.3)), random.dirichlet(np.full((signs < 0).sum(), 0.3))
        line = np.zeros(12)
        line[signs > 0], line[signs < 0] = gamma[0], -gamma[1]
        assert line @ kernel @ line >= found.objective - 1e-12


def test_kernels_near_to_singular_are_solved_too(caplog) -> None:
    """Linear kernels of fewer columns than rows and hulls that overlap: sets of rows go round in circles."""
    random = np.random.default_rng(0)
    with caplog.at_level(logging.WARNING):
        for _ in range(30):
            n, d, lam = random.integers(2, 60), random.integers(1, 12), 10 ** random.uniform(-4, 0)
            X, signs = random.normal(size=(n, d)), np.where(random.random(n) < random.uniform(0.05, 0.95), 1.0, -1.0)
            signs[0], signs[-1] = 1.0, -1.0
            kernel = (1 - lam) * X @ X.T * 10 ** random.uniform(-2, 1) + lam * np.eye(n)
            found = closest_in_hulls(kernel, signs)
            assert found.gap <= max(1e-8 * found.objective, 1e-12 * kernel.diagonal().max())
    assert not caplog.records


def test_two_points_and_equal_points_have_known_distances() -> None:
    X = np.array([[0.0, 0.0], [3.0, 4.0]])
    pair = closest_in_hulls(X @ X.T + 1e-9 * np.eye(2), np.array([-1.0, 1.0]))
    assert pair.objective == pytest.approx(25.0)
    # A regulariser alone spreads γ evenly: 1/3 + 1/2.
    even = closest_in_hulls(np.eye(5), np.array([1.0, 1.0, 1.0, -1.0, -1.0]))
    np.testing.assert_allclose(even.gamma, [1 / 3] * 3 + [1 / 2] * 2)
    assert even.objective == pytest.approx(5 / 6)


# EasyMKL


def test_easymkl_weights_are_the_kernels_shares_of_the_margin() -> None:
    grams, signs = _problem(1)
    weights = easymkl_weights(grams, signs[:, None], lam=0.2)[0]
    kernel = 0.8 * grams.sum(axis=0) + 0.2 * np.eye(len(signs))
    parts = forms(grams, signs * closest_in_hulls(kernel, signs).gamma)
    np.testing.assert_allclose(weights, parts / parts.sum())
    assert weights.sum() == pytest.approx(1.0)
    # The view that separates best counts most, the one that is noise least.
    assert weights.argmax() == 2
    assert weights.argmin() == 0


def test_easymkl_at_lambda_one_is_the_distance_of_the_means() -> None:
    grams, signs = _problem(2)
    line = np.where(signs > 0, 1 / (signs > 0).sum(), -1 / (signs < 0).sum())
    parts = np.array([line @ gram @ line for gram in grams])
    np.testing.assert_allclose(easymkl_weights(grams, signs[:, None], lam=1.0)[0], parts / parts.sum(), atol=1e-8)


def test_easymkl_does_not_depend_on_centring_or_on_which_class_is_first() -> None:
    grams, signs = _problem(3)
    centring = np.eye(len(signs)) - 1 / len(signs)
    raw = np.random.default_rng(0).normal(size=(len(signs), 5))
    moved, grams = np.array([*grams, raw @ raw.T]), np.array([*grams, centring @ raw @ raw.T @ centring])
    first = easymkl_weights(grams, np.stack([signs, -signs], axis=1))
    np.testing.assert_allclose(first[0], first[1], atol=1e-9)
    np.testing.assert_allclose(easymkl_weights(moved, signs[:, None])[0], first[0], atol=1e-7)


@pytest.mark.parametrize("find", [easymkl_weights, alignment_weights])
def test_a_weight_of_two_is_a_row_given_twice(find) -> None:
    grams, signs = _problem(4)
    weights = 1.0 + np.arange(len(signs)) % 2
    twice = np.repeat(np.arange(len(signs)), weights.astype(int))
    repeated = find(grams[:, twice][:, :, twice], signs[twice, None])
    np.testing.assert_allclose(find(grams, signs[:, None], weights=weights), repeated, atol=1e-7)


def test_a_problem_with_one_class_gets_equal_weights() -> None:
    grams, signs = _problem(5)
    found = easymkl_weights(grams, np.stack([np.ones(len(signs)), signs], axis=1))
    np.testing.assert_allclose(found[0], 1 / 3)
    assert np.ptp(found[1]) > 0.01


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("solver", ["libsvm", "cvxopt"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_easymkl_has_mklpys_weights_and_scores(seed: int, solver: str) -> None:
    torch = pytest.importorskip("torch")
    algorithms = pytest.importorskip("MKLpy.algorithms")
    grams, signs = _problem(seed, 60)
    peer = algorithms.EasyMKL(lam=0.1, learner=SVC(C=10, tol=1e-8), solver=solver, tolerance=1e-9)
    peer = peer.fit([torch.tensor(gram) for gram in grams], torch.tensor(signs))
    weights = easymkl_weights(grams, signs[:, None])[0]
    # The other solver's answer comes in float32.
    tolerance = 1e-6 if solver == "libsvm" else 1e-4
    np.testing.assert_allclose(weights, peer.solution.weights.numpy(), atol=tolerance)
    scores = SVC(C=10, kernel="precomputed", tol=1e-8).fit(combined(grams, weights), signs)
    np.testing.assert_allclose(
        scores.decision_function(combined(grams, weights)),
        peer.decision_function([torch.tensor(gram) for gram in grams]),
        atol=1e-3,
    )


# Centred alignment


def _alignment(grams: np.ndarray, weights: np.ndarray, target: np.ndarray) -> float:
    centring = np.eye(len(target)) - 1 / len(target)
    gram = centring @ combined(grams, weights) @ centring
    return float(target @ gram @ target / np.linalg.norm(gram))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_no_other_weights_align_better(seed: int) -> None:
    grams, signs = _problem(seed)
    grams = np.array([gram + 1.0 for gram in grams])
    kept = alignment_weights(grams, signs[:, None])[0]
    free = alignment_weights(grams, signs[:, None], nonnegative=False)[0]
    assert (kept >= 0).all()
    assert np.linalg.norm(kept) == pytest.approx(1.0)
    best, most = _alignment(grams, kept, signs), _alignment(grams, free, signs)
    assert most >= best - 1e-9
    random = np.random.default_rng(seed)
    for _ in range(200):
        direction = random.normal(size=3)
        assert _alignment(grams, np.abs(direction), signs) <= best + 1e-9
        assert _alignment(grams, direction, signs) <= most + 1e-9


@pytest.mark.filterwarnings("ignore")
def test_alignment_without_a_bound_has_mklpys_weights() -> None:
    torch = pytest.importorskip("torch")
    algorithms = pytest.importorskip("MKLpy.algorithms")
    grams, signs = _problem(6)
    peer = algorithms.CKA().combine_kernels([torch.tensor(gram) for gram in grams], torch.tensor(signs))
    found = alignment_weights(grams, signs[:, None], nonnegative=False)[0]
    np.testing.assert_allclose(found, peer.weights.numpy(), atol=1e-8)


def test_alignment_takes_numbers_and_kernels_that_are_alike() -> None:
    random = np.random.default_rng(0)
    X, noise = random.normal(size=(50, 2)), random.normal(size=(50, 2))
    target = X @ [1.0, -0.5]
    found = alignment_weights(np.array([X @ X.T, X @ X.T, noise @ noise.T]), target[:, None])[0]
    assert found[0] + found[1] > 5 * found[2]
    assert np.linalg.norm(found) == pytest.approx(1.0)
    np.testing.assert_allclose(alignment_weights(np.zeros((2, 50, 50)), target[:, None])[0], 2**-0.5)


# lp-norm multiple kernel learning


@pytest.mark.parametrize("p", [1.0, 4 / 3, 2.0, 4.0])
def test_lpmkl_weights_are_the_best_of_all_on_the_norms_ball(p: float) -> None:
    grams, signs = _problem(7, views=2)
    solve = _machine(signs)

    def objective(angle: float) -> float:
        direction = np.array([np.cos(angle), np.sin(angle)])
        eta = direction / np.linalg.norm(direction, p)
        coefficients, linear = solve(combined(grams, eta))
        return linear - eta @ forms(grams, coefficients) / 2

    found = lpmkl_weights(grams, solve, p=p, tolerance=1e-6)
    assert np.linalg.norm(found.weights, p) == pytest.approx(1.0)
    assert found.gap <= 1e-6
    best = minimize_scalar(objective, bounds=(0.0, np.pi / 2), method="bounded", options={"xatol": 1e-7})
    assert objective(np.arctan2(*found.weights[::-1])) == pytest.approx(best.fun, rel=2e-6)


def test_lpmkl_weights_are_a_fixed_point_of_the_papers_update() -> None:
    grams, signs = _problem(8)
    found = lpmkl_weights(grams, _machine(signs), tolerance=1e-9)
    parts = forms(grams, _machine(signs)(combined(grams, found.weights))[0])
    norms = found.weights * np.sqrt(parts)
    np.testing.assert_allclose(found.weights, norms ** (2 / 3) / np.sum(norms ** (4 / 3)) ** 0.5, atol=1e-4)
    # Hölder's inequality is an equality there.
    assert found.weights @ parts == pytest.approx(np.linalg.norm(parts), rel=1e-6)


def test_lpmkl_weights_of_a_regression() -> None:
    random = np.random.default_rng(0)
    X, noise = random.normal(size=(60, 2)), random.normal(size=(60, 2))
    target = X @ [1.0, -0.5] + 0.1 * random.normal(size=60)
    grams = np.array([X @ X.T / 2, noise @ noise.T / 2])

    def solve(gram: np.ndarray) -> tuple[np.ndarray, float]:
        machine = SVR(C=10, epsilon=0.1, kernel="precomputed", tol=1e-8).fit(gram, target)
        coefficients = np.zeros(60)
        coefficients[machine.support_] = machine.dual_coef_[0]
        return coefficients, float(target @ coefficients - 0.1 * np.abs(coefficients).sum())

    found = lpmkl_weights(grams, solve)
    assert found.gap <= 1e-3
    assert found.weights[0] > 3 * found.weights[1]


def test_lpmkl_says_when_it_does_not_converge(caplog) -> None:
    grams, signs = _problem(9)
    with caplog.at_level(logging.WARNING):
        found = lpmkl_weights(grams, _machine(signs), p=1.0, tolerance=0.0)
    assert "lpmkl stopped after 200 rounds" in caplog.text
    assert np.linalg.norm(found.weights, 1) == pytest.approx(1.0)


def test_lpmkl_of_kernels_that_are_zero_keeps_equal_weights() -> None:
    _, signs = _problem(0)
    found = lpmkl_weights(np.zeros((2, 40, 40)), _machine(signs))
    np.testing.assert_allclose(found.weights, 2**-0.5)
