"""Generalised CCA against cca-zoo, and against the problem over rows that it never forms."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from cca_zoo import linear
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.errors import FusionError
from mmcore.fusion.cca import CcaFusion
from mmcore.fusion.data import View, Views
from mmcore.fusion.gcca import GccaFusion
from tests.fusion.correlated import PEER_VIEWS, named, related, up_to_sign


def _fit(views, **settings) -> GccaFusion:
    plain = {"shrinkage": 0.0, "scaling": "none", "C": 1.0} | settings
    return GccaFusion(**plain).fit(views, np.arange(len(Views.of(views))) % 2)


def _stacked(model) -> np.ndarray:
    return np.vstack(list(model.weights_.values()))


@pytest.mark.parametrize("views", PEER_VIEWS)
@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 0.5])
def test_weights_are_those_of_cca_zoo(views: str, shrinkage: float) -> None:
    data = PEER_VIEWS[views]()
    peer = linear.GCCA(n_components=2, shrinkage=shrinkage).fit(data)
    up_to_sign(_stacked(_fit(named(data), n_components=2, shrinkage=shrinkage)), np.vstack(peer.weights_), 1e-6)


def test_correlations_on_cca_zoos_three_views() -> None:
    model = _fit(named(PEER_VIEWS["three"]()), n_components=2)
    np.testing.assert_allclose(model.correlations_, [0.546757, 0.429972], atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_without_shrinkage_it_is_multiset_cca_on_another_scale(seed: int) -> None:
    views = related(seed, 80, (4, 3, 5))
    found = _fit(views, n_components=2)
    peer = CcaFusion(n_components=2, shrinkage=0.0, scaling="none", C=1.0).fit(views, np.arange(80) % 2)
    np.testing.assert_allclose(found.correlations_, peer.correlations_, atol=1e-8)
    lengths = [np.linalg.norm(_stacked(model), axis=0) for model in (found, peer)]
    up_to_sign(_stacked(found) / lengths[0], _stacked(peer) / lengths[1], 1e-6)


def _some_missing(seed: int) -> Views:
    views = related(seed, 120, (4, 3, 5))
    present = np.random.default_rng(seed + 1).random((120, 3)) > 0.4
    present[~present.any(axis=1), 0] = True
    return Views({name: View(values, present[:, m]) for m, (name, values) in enumerate(views.items())})


@pytest.mark.parametrize("shrinkage", [0.0, 0.2])
def test_rows_that_miss_views_solve_the_problem_over_rows(shrinkage: float) -> None:
    views = _some_missing(3)
    n = len(views)
    K = np.stack([view.present for _, view in views.items()], axis=1).astype(float)
    problem, parts = np.zeros((n, n)), []
    for name in views:
        view = views[name]
        X = np.where(view.present[:, None], view.values - view.values[view.present].mean(axis=0), 0.0)
        own = X.T @ X / view.present.sum() * n / (n - 1)
        inverse = np.linalg.inv((1 - shrinkage) * own + shrinkage * np.eye(X.shape[1]))
        problem += X @ inverse @ X.T
        parts.append((X, inverse, view.present.sum()))
    values, vectors = scipy.linalg.eigh(problem, np.diag(K.sum(axis=1)))
    T = vectors[:, ::-1][:, :4] * np.sqrt(K.sum() * (n - 1) / n)
    wanted = np.vstack([inverse @ X.T @ T * (n / (n - 1)) / count for X, inverse, count in parts])
    up_to_sign(_stacked(_fit(views, n_components=4, shrinkage=shrinkage)), wanted, 1e-8)
    assert values[-1] > values[-5]


def test_rows_without_a_view_do_not_matter_to_it() -> None:
    views = _some_missing(4)
    filled = Views({name: View(np.where(v.present[:, None], v.values, np.nan), v.present) for name, v in views.items()})
    np.testing.assert_array_equal(_stacked(_fit(views)), _stacked(_fit(filled)))


def test_more_components_than_the_narrowest_view_has_columns() -> None:
    model = _fit(related(0, 300, (5, 6, 2)), n_components=9, shrinkage=0.1)
    assert model.weights_["c"].shape == (2, 9)
    assert np.linalg.matrix_rank(_stacked(model)) == 9


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_correlations_do_not_depend_on_rotation_scale_or_shift(seed: int) -> None:
    views = related(seed, 80, (4, 3, 5))
    random = np.random.default_rng(seed + 1)
    moved = {
        name: values @ random.normal(size=(values.shape[1],) * 2) * random.uniform(0.1, 10) + random.normal()
        for name, values in views.items()
    }
    np.testing.assert_allclose(_fit(moved).correlations_[:2], _fit(views).correlations_[:2], atol=1e-6)


def test_views_wider_than_their_rows_are_those_of_cca_zoo() -> None:
    views = list(related(4, 30, (50, 40, 35)).values())
    peer = linear.GCCA(n_components=3, shrinkage=0.1).fit(views)
    up_to_sign(_stacked(_fit(named(views), n_components=3, shrinkage=0.1)), np.vstack(peer.weights_), 1e-6)


def test_one_view_or_constant_ones_are_refused() -> None:
    with pytest.raises(FusionError, match="at least two views"):
        _fit({"a": np.zeros((4, 2))})
    with pytest.raises(FusionError, match="no view varies"):
        _fit({"a": np.zeros((4, 2)), "b": np.zeros((4, 2))})
