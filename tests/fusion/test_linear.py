from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from mmcore.fusion.linear import C_GRID, LinearHead, calibrate, log_loss, minimise


def _rows(seed: int = 0, classes: int = 4):
    random = np.random.default_rng(seed)
    codes = random.integers(0, classes, 200)
    X = random.normal(size=(classes, 6))[codes] + random.normal(size=(200, 6))
    return X, codes, random.random(200) + 0.5


@pytest.mark.parametrize("C", [0.01, 1.0])
def test_it_is_the_minimum_that_scikit_learn_finds(C: float) -> None:
    X, codes, weights = _rows()
    found = minimise(X, codes, 4, weights, C)
    peer = LogisticRegression(C=C, tol=1e-8, max_iter=5000).fit(X, codes, sample_weight=weights)
    np.testing.assert_allclose(found[:, :-1], peer.coef_, atol=2e-4)
    # Intercepts are free up to a shared number.
    np.testing.assert_allclose(found[:, -1] - found[:, -1].mean(), peer.intercept_ - peer.intercept_.mean(), atol=2e-4)


def test_a_class_that_has_no_rows_is_improbable_and_finite() -> None:
    X, codes, weights = _rows()
    head = LinearHead(1.0).fit(X, codes, 5, weights)
    proba = np.exp(head.log_proba(X))
    assert np.isfinite(head.log_proba(X)).all()
    assert proba[:, 4].max() < 0.02


def test_auto_takes_the_strength_that_validation_likes_best() -> None:
    X, codes, weights = _rows()
    held = _rows(1)[:2]
    head = LinearHead("auto").fit(X, codes, 4, weights, held)
    losses = {C: LinearHead(C).fit(X, codes, 4, weights, held) for C in C_GRID}
    best = min(losses, key=lambda C: log_loss(losses[C].log_proba(held[0]), held[1]))
    assert head.tried["C"] == best
    np.testing.assert_allclose(head.log_proba(X), losses[best].log_proba(X), atol=1e-3)


def test_auto_without_validation_cross_validates() -> None:
    X, codes, weights = _rows()
    head = LinearHead("auto", 0).fit(X, codes, 4, weights)
    assert head.tried["C"] in C_GRID
    assert set(head.tried["log_loss"]) == {f"{C:g}" for C in C_GRID}
    np.testing.assert_allclose(head.log_proba(X), LinearHead(head.tried["C"]).fit(X, codes, 4, weights).log_proba(X))


def test_calibration_undoes_overconfidence() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 3)) * 2
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    codes = (proba.cumsum(axis=1) < random.random((len(logits), 1))).sum(axis=1)
    assert calibrate(logits * 5, codes) == pytest.approx(1 / 5, rel=0.05)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_calibration_never_raises_the_loss_much_and_keeps_the_order(seed: int) -> None:
    random = np.random.default_rng(seed)
    logits, codes = random.normal(size=(50, 3)) * random.uniform(0.1, 10), random.integers(0, 3, 50)
    factor = calibrate(logits, codes)
    assert factor > 0
    assert log_loss(factor * logits, codes) <= log_loss(logits, codes) + 1e-5


def test_all_right_stays_finite() -> None:
    logits = np.eye(3) * 50
    assert calibrate(logits, np.arange(3)) < 60
