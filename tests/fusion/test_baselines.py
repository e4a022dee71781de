from __future__ import annotations

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegression

from mmcore.fusion.baselines import Majority, Missingness
from mmcore.fusion.data import View, Views
from tests.fusion.conftest import made

ROWS = made(150, 0, 0.3)
OTHER = {
    name: View(np.where(view.present[:, None], 9.0, np.nan) * np.ones(view.shape), view.present)
    for name, view in ROWS.views.items()
}
"""Other values, missing in the same places."""


def masks(rows) -> np.ndarray:
    return np.stack([view.present for _, view in rows.items()], axis=1).astype(float)


def test_the_majority_is_scikit_learns_prior() -> None:
    weights = np.random.default_rng(0).random(150) + 0.1
    model = Majority().fit(ROWS.views, ROWS.labels, sample_weight=weights)
    peer = DummyClassifier(strategy="prior").fit(masks(ROWS.views), ROWS.labels, weights)
    np.testing.assert_allclose(model.predict_proba(ROWS.views), peer.predict_proba(masks(ROWS.views)))
    np.testing.assert_array_equal(model.predict(ROWS.views), peer.predict(masks(ROWS.views)))
    numbers = np.arange(150.0)
    mean = Majority(task="regression").fit(ROWS.views, numbers, sample_weight=weights)
    expected = DummyRegressor().fit(masks(ROWS.views), numbers, weights).predict(masks(ROWS.views))
    np.testing.assert_allclose(mean.predict(ROWS.views), expected)
    labels = np.stack([ROWS.labels == "a", ROWS.labels != "b"], axis=1)
    rates = Majority(task="multilabel").fit(ROWS.views, labels).predict_proba(ROWS.views)
    np.testing.assert_allclose(rates, np.tile(labels.mean(axis=0), (150, 1)))


@pytest.mark.parametrize("make", [Majority, Missingness])
def test_values_are_not_looked_at(make) -> None:
    first, second = make().fit(ROWS.views, ROWS.labels), make().fit(OTHER, ROWS.labels)
    np.testing.assert_array_equal(first.predict_proba(ROWS.views), second.predict_proba(OTHER))


def test_missingness_is_logistic_regression_on_the_masks() -> None:
    model = Missingness(C=2.0).fit(ROWS.views, ROWS.labels)
    peer = LogisticRegression(C=2.0, tol=1e-8, max_iter=2000).fit(masks(ROWS.views), ROWS.labels)
    np.testing.assert_allclose(model.predict_proba(ROWS.views), peer.predict_proba(masks(ROWS.views)), atol=1e-4)


def test_missingness_finds_a_label_that_the_masks_give_away() -> None:
    given = np.random.default_rng(0).random(300) < 0.5
    labels = np.where(given, "has text", "has none")
    noise = np.random.default_rng(1).normal(size=(300, 4))
    views = Views({"image": noise, "text": View(noise, given)})
    assert Missingness().fit(views, labels).score(views, labels) == 1.0
    numbers = Missingness(task="regression").fit(views, given * 10.0)
    assert numbers.score(views, given * 10.0) > 0.99


def test_missingness_where_nothing_is_missing_is_the_majority() -> None:
    whole = made(150)
    labels = np.where(np.arange(150) < 100, "a", "b")
    proba = Missingness().fit(whole.views, labels).predict_proba(whole.views)
    np.testing.assert_allclose(proba, Majority().fit(whole.views, labels).predict_proba(whole.views), atol=1e-4)
