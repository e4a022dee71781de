"""Machines against scikit-learn's on the same kernels; probabilities against its Platt scaling."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import _SigmoidCalibration
from sklearn.datasets import make_regression
from sklearn.svm import SVC, SVR

from mmcore.fusion.data import View, Views
from mmcore.fusion.kernels import Kernel
from mmcore.fusion.svm import FeatureSpace, GramSpace, Loss, fit_linear, fit_machine, sigmoid

ONES = np.ones(60)


def _views(seed: int = 0, n: int = 60, missing: float = 0.0) -> tuple[Views, np.ndarray]:
    random = np.random.default_rng(seed)
    signs = np.where(np.arange(n) % 3 == 0, 1.0, -1.0)
    views = {}
    for name, width in (("a", 3), ("b", 5)):
        present = random.random(n) >= missing
        views[name] = View(random.normal(size=(n, width)) + 0.7 * signs[:, None] * present[:, None], present)
    return Views(views), signs


def test_a_machine_on_a_gram_matrix_is_scikit_learns() -> None:
    views, signs = _views()
    gram = GramSpace([Kernel("rbf")], views, ONES).grams.sum(axis=0)
    weights = np.random.default_rng(1).random(60) + 0.5
    found = fit_machine(gram, signs, weights, Loss(2.0))
    peer = SVC(C=2.0, kernel="precomputed", tol=1e-4).fit(gram, signs, sample_weight=weights)
    np.testing.assert_allclose(gram @ found.coefficients + found.intercept, peer.decision_function(gram), atol=1e-12)
    assert found.coefficients.sum() == pytest.approx(0.0, abs=1e-9)
    # At the solution ‖w‖² / 2 + Σ C wᵢ ℓᵢ = Σ |c| − ‖w‖² / 2.
    margins = signs * (gram @ found.coefficients + found.intercept)
    size = found.coefficients @ gram @ found.coefficients
    primal = size / 2 + 2.0 * (weights * np.maximum(1 - margins, 0)).sum()
    assert primal == pytest.approx(found.linear - size / 2, rel=1e-3)


def test_a_machine_of_numbers_is_scikit_learns() -> None:
    X, target = make_regression(60, 4, noise=1.0, random_state=0)
    target = target / target.std()
    found = fit_machine(X @ X.T, target, ONES, Loss(5.0, 0.1))
    peer = SVR(C=5.0, epsilon=0.1, kernel="linear", tol=1e-4).fit(X, target)
    np.testing.assert_allclose(X @ X.T @ found.coefficients + found.intercept, peer.predict(X), atol=1e-2)
    errors = np.abs(target - X @ X.T @ found.coefficients - found.intercept)
    size = found.coefficients @ X @ X.T @ found.coefficients
    primal = size / 2 + 5.0 * np.maximum(errors - 0.1, 0).sum()
    assert primal == pytest.approx(found.linear - size / 2, rel=1e-2)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_targets_that_are_all_alike_give_a_constant(sign: float) -> None:
    for found in (fit_machine(np.eye(5), np.full(5, sign), np.ones(5), Loss(1.0)),
                  fit_linear(np.eye(5), np.full(5, sign), np.ones(5), Loss(1.0))):  # fmt: skip
        assert found.intercept == sign
        assert not found.coefficients.any()


def test_linear_machines_solve_the_squared_loss() -> None:
    """At the minimum w = 2 C Σ wᵢ yᵢ (1 − yᵢ fᵢ)₊ xᵢ, and b / s², from the intercept's penalty, is that without xᵢ."""
    random = np.random.default_rng(0)
    signs = np.where(np.arange(80) % 2, 1.0, -1.0)
    X, weights = random.normal(size=(80, 3)) + signs[:, None] * [1.0, 0.5, 0.0], random.random(80) + 0.5
    found = fit_linear(X, signs, weights, Loss(0.7))
    slack = weights * signs * np.maximum(1 - signs * (X @ found.coefficients + found.intercept), 0)
    np.testing.assert_allclose(found.coefficients, 2 * 0.7 * X.T @ slack, atol=1e-3)
    assert found.intercept / 100 == pytest.approx(2 * 0.7 * slack.sum(), abs=1e-3)
    target = X @ [1.0, 2.0, -1.0]
    close = fit_linear(X, target, weights, Loss(100.0, 0.01))
    np.testing.assert_allclose(close.coefficients, [1.0, 2.0, -1.0], atol=0.02)


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("kind", ["gram", "features"])
def test_expansions_score_new_rows_as_the_space_does(kind: str, missing: float) -> None:
    (views, signs), (fresh, _) = _views(missing=missing), _views(1, missing=missing)
    kernels = [Kernel("rbf", 0.5), Kernel("polynomial", degree=2)]
    eta = np.array([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]])
    exact = GramSpace(kernels, views, ONES)
    space = exact if kind == "gram" else FeatureSpace(kernels, views, ONES, landmarks=60, seed=0)
    machines = [space.machine(one, signs, ONES, Loss(1.0), [])[0] for one in eta]
    found = space.expansions(eta, machines)
    scores = sum(found[name].of(view) for name, view in fresh.items())
    number, by_hand = 0, np.zeros((60, 2))
    for name, view in fresh.items():
        for kernel in space.fitted[name]:
            values = kernel.transform(view)
            for problem, machine in enumerate(machines):
                if kind == "gram":
                    by_hand[:, problem] += eta[problem, number] * values @ machine.coefficients
                else:
                    part = slice(space.edges[number], space.edges[number + 1])
                    by_hand[:, problem] += eta[problem, number] ** 0.5 * values @ machine.coefficients[part]
            number += 1
    np.testing.assert_allclose(scores, by_hand, atol=1e-8)
    # A row without any view adds nothing.
    assert (found["a"].of(View.absent(3, (3,))) == 0).all()


@pytest.mark.parametrize("kind", ["gram", "features"])
def test_held_out_scores_come_from_machines_that_did_not_see_the_row(kind: str) -> None:
    views, signs = _views()
    eta, rows = np.array([0.5, 0.5]), np.arange(60)
    folds = [(rows[rows // 20 != part], rows[rows // 20 == part]) for part in range(3)]
    kernels = [Kernel("rbf")]
    space = GramSpace(kernels, views, ONES) if kind == "gram" else FeatureSpace(kernels, views, ONES, 60, 0)
    whole, held_out = space.machine(eta, signs, ONES, Loss(1.0), folds)
    block = space._summed(eta)
    for kept, held in folds:
        if kind == "gram":
            peer = SVC(C=1.0, kernel="precomputed", tol=1e-4).fit(block[np.ix_(kept, kept)], signs[kept])
            expected = peer.decision_function(block[np.ix_(held, kept)])
        else:
            alone = fit_linear(block[kept], signs[kept], ONES[kept], Loss(1.0))
            expected = block[held] @ alone.coefficients + alone.intercept
        np.testing.assert_allclose(held_out[held], expected, atol=1e-10)
    assert whole.coefficients.any()


def test_the_sigmoid_is_platts() -> None:
    random = np.random.default_rng(0)
    labels = (random.random(200) < 0.3).astype(float)
    scores = 1.5 * labels - 0.5 + random.normal(size=200)
    slope, offset = sigmoid(scores, labels)
    peer = _SigmoidCalibration().fit(scores, labels)
    np.testing.assert_allclose(expit(slope * scores + offset), peer.predict(scores), atol=1e-3)


def test_the_sigmoid_of_scores_that_say_nothing_is_the_rate() -> None:
    labels = np.array([1.0] * 10 + [0.0] * 30)
    slope, offset = sigmoid(np.zeros(40), labels)
    assert slope * 0.0 + offset == pytest.approx(np.log(10 / 30), abs=0.1)
    # The wrong way round is no better than saying nothing.
    assert sigmoid(-labels, labels)[0] == pytest.approx(0.0, abs=1e-6)
    assert np.isfinite(sigmoid(np.ones(5), np.ones(5))).all()
