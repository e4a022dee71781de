from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression, Ridge

from mmcore.fusion.heads.linear import C_GRID, LinearHead, minimise
from mmcore.fusion.targets import calibrate, learn_target


def _rows(seed: int = 0, classes: int = 4):
    random = np.random.default_rng(seed)
    codes = random.integers(0, classes, 200)
    X = random.normal(size=(classes, 6))[codes] + random.normal(size=(200, 6))
    return X, codes, random.random(200) + 0.5


@pytest.mark.parametrize("C", [0.01, 1.0])
def test_it_is_the_minimum_that_scikit_learn_finds(C: float) -> None:
    X, codes, weights = _rows()
    found = minimise(learn_target("classes", codes, weights), X, codes, weights, C)
    peer = LogisticRegression(C=C, tol=1e-8, max_iter=5000).fit(X, codes, sample_weight=weights)
    np.testing.assert_allclose(found[:, :-1], peer.coef_, atol=2e-4)
    # Intercepts are free up to a shared number.
    np.testing.assert_allclose(found[:, -1] - found[:, -1].mean(), peer.intercept_ - peer.intercept_.mean(), atol=2e-4)


def test_a_class_that_has_no_rows_is_improbable_and_finite() -> None:
    X, codes, weights = _rows()
    target = learn_target("classes", np.arange(5), np.ones(5))
    outputs = LinearHead(target, C=1.0).fit(X, codes, weights).outputs(X)
    assert np.isfinite(outputs).all()
    assert softmax(outputs, axis=1)[:, 4].max() < 0.02


def test_auto_takes_the_strength_that_validation_likes_best() -> None:
    X, codes, weights = _rows()
    held = _rows(1)[:2]
    target = learn_target("classes", codes, weights)
    head = LinearHead(target).fit(X, codes, weights, held)
    heads = {C: LinearHead(target, C=C).fit(X, codes, weights, held) for C in C_GRID}
    best = min(heads, key=lambda C: target.loss(heads[C].outputs(held[0]), held[1]))
    assert head.tried["C"] == best
    np.testing.assert_allclose(target.finished(head.outputs(X)), target.finished(heads[best].outputs(X)), atol=1e-3)


def test_auto_without_validation_cross_validates() -> None:
    X, codes, weights = _rows()
    target = learn_target("classes", codes, weights)
    head = LinearHead(target, random_state=0).fit(X, codes, weights)
    assert head.tried["C"] in C_GRID
    assert set(head.tried["log_loss"]) == {f"{C:g}" for C in C_GRID}
    same = LinearHead(target, C=head.tried["C"]).fit(X, codes, weights)
    np.testing.assert_allclose(head.outputs(X), same.outputs(X))


def test_labels_are_independent_logistic_regressions() -> None:
    X, codes, weights = _rows()
    labels = np.stack([codes > 1, codes % 2 == 0], axis=1).astype(float)
    found = minimise(learn_target("multilabel", labels, weights), X, labels, weights, 0.5)
    for number in range(2):
        peer = LogisticRegression(C=0.5, tol=1e-8, max_iter=5000).fit(X, labels[:, number], sample_weight=weights)
        np.testing.assert_allclose(found[number, :-1], peer.coef_[0], atol=2e-4)
        np.testing.assert_allclose(found[number, -1], peer.intercept_[0], atol=2e-4)


@pytest.mark.parametrize("rows", [200, 4])
def test_numbers_are_ridge_regression(rows: int) -> None:
    X, codes, weights = (part[:rows] for part in _rows())
    y = codes * 3.0 + X[:, 0]
    target = learn_target("regression", y, weights)
    head = LinearHead(target, C=0.5).fit(X, y, weights)
    peer = Ridge(alpha=1 / 0.5, solver="svd").fit(X, y, sample_weight=weights)
    np.testing.assert_allclose(head.outputs(X), peer.predict(X), atol=1e-8)


def test_the_unit_of_numbers_does_not_matter() -> None:
    X, codes, weights = _rows()
    metres = codes * 3.0 + X[:, 0]
    in_metres, in_km = (
        LinearHead(learn_target("regression", y, weights), random_state=0).fit(X, y, weights)
        for y in (metres, metres / 1000)
    )
    assert in_metres.tried["C"] == in_km.tried["C"]
    np.testing.assert_allclose(in_metres.outputs(X), in_km.outputs(X) * 1000, rtol=1e-9)


def test_calibration_undoes_overconfidence() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 3)) * 2
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    codes = (proba.cumsum(axis=1) < random.random((len(logits), 1))).sum(axis=1)
    target = learn_target("classes", codes, np.ones(len(codes)))
    assert calibrate(target, logits * 5, codes) == pytest.approx(1 / 5, rel=0.05)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_calibration_never_raises_the_loss_much_and_keeps_the_order(seed: int) -> None:
    random = np.random.default_rng(seed)
    logits, codes = random.normal(size=(50, 3)) * random.uniform(0.1, 10), random.integers(0, 3, 50)
    target = learn_target("classes", np.arange(3), np.ones(3))
    factor = calibrate(target, logits, codes)
    assert factor > 0
    assert target.loss(factor * logits, codes) <= target.loss(logits, codes) + 1e-5


def test_all_right_stays_finite() -> None:
    logits = np.eye(3) * 50
    assert calibrate(learn_target("classes", np.arange(3), np.ones(3)), logits, np.arange(3)) < 60
