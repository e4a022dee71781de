from __future__ import annotations

import numpy as np

from mmcore.fusion.data import View, Views
from mmcore.fusion.impute import RIDGE, Imputer, pairwise_covariance, side_by_side


def _related(n: int = 500) -> Views:
    random = np.random.default_rng(0)
    a = random.normal(size=(n, 3)) + 2
    b = a @ random.normal(size=(3, 2)) + 0.1 * random.normal(size=(n, 2))
    return Views({"a": a, "b": b})


def test_mean_is_that_of_present_rows() -> None:
    values = np.array([[1.0], [3.0], [0.0]])
    views = Views({"a": View(values, np.array([True, True, False])), "b": np.zeros((3, 1))})
    filled = Imputer("mean").fit(views, np.ones(3)).transform(views)
    np.testing.assert_allclose(filled[:, 0], [1, 3, 2])
    weighted = Imputer("mean").fit(views, np.array([3.0, 1.0, 1.0])).transform(views)
    assert weighted[2, 0] == 1.5


def test_ridge_is_the_regression_of_absent_on_present() -> None:
    views = _related()
    imputer = Imputer("ridge").fit(views, np.ones(len(views)))
    absent = View(np.zeros((len(views), 2)), np.zeros(len(views), bool))
    filled = imputer.transform(Views({"a": views["a"], "b": absent}))[:, 3:]
    a, b = views["a"].values - views["a"].values.mean(0), views["b"].values - views["b"].values.mean(0)
    penalty = RIDGE * np.trace(a.T @ a / len(a)) / 3
    slopes = np.linalg.solve(a.T @ a / len(a) + penalty * np.eye(3), a.T @ b / len(a))
    np.testing.assert_allclose(filled, a @ slopes + views["b"].values.mean(0))
    assert np.corrcoef(filled[:, 0], views["b"].values[:, 0])[0, 1] > 0.99


def test_present_values_are_kept_and_rows_without_any_get_the_mean() -> None:
    views = _related()
    imputer = Imputer("ridge").fit(views, np.ones(len(views)))
    np.testing.assert_array_equal(imputer.transform(views), side_by_side(views)[0])
    nothing = Views({name: View(np.zeros_like(view.values), np.zeros(len(view), bool)) for name, view in views.items()})
    np.testing.assert_allclose(imputer.transform(nothing)[0], side_by_side(views)[0].mean(axis=0))


def test_pairwise_covariance_is_the_plain_one_when_all_is_there() -> None:
    X, mask = side_by_side(_related())
    centred = X - X.mean(axis=0)
    np.testing.assert_allclose(
        pairwise_covariance(centred, mask, np.ones(len(X))), np.cov(X, rowvar=False, bias=True), atol=1e-12
    )


def test_pairwise_covariance_has_no_negative_direction() -> None:
    random = np.random.default_rng(3)
    mask = random.random((12, 6)) > 0.5
    centred = random.normal(size=(12, 6)) * mask
    assert np.linalg.eigvalsh(pairwise_covariance(centred, mask, np.ones(12))).min() > -1e-12
