"""Partial least squares against scikit-learn and cca-zoo."""

from __future__ import annotations

import numpy as np
import pytest
from cca_zoo import linear
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cross_decomposition import PLSSVD, PLSCanonical
from sklearn.datasets import load_linnerud

from mmcore.errors import FusionError
from mmcore.fusion.data import View, Views
from mmcore.fusion.pls import PlsFusion
from tests.fusion.correlated import PEER_VIEWS, named, related, up_to_sign


def _fit(views, **settings) -> PlsFusion:
    plain = {"scaling": "none", "C": 1.0} | settings
    return PlsFusion(**plain).fit(views, np.arange(len(Views.of(views))) % 2)


def _stacked(model) -> np.ndarray:
    return np.vstack(list(model.weights_.values()))


@pytest.mark.parametrize("views", ["two", "correlated"])
def test_svd_is_that_of_cca_zoo_and_scikit_learn(views: str) -> None:
    data = PEER_VIEWS[views]()
    model = _fit(named(data), n_components=2)
    up_to_sign(_stacked(model), np.vstack(linear.PLS(n_components=2).fit(data).weights_), 1e-6)
    peer = PLSSVD(n_components=2, scale=False).fit(*data)
    up_to_sign(_stacked(model), np.vstack([peer.x_weights_, peer.y_weights_]), 1e-6)


def test_correlations_on_cca_zoos_correlated_views() -> None:
    model = _fit(named(PEER_VIEWS["correlated"]()), n_components=2)
    np.testing.assert_allclose(model.correlations_, [0.979937, 0.977511], atol=1e-6)


def test_of_three_views_it_is_multiset_cca_at_full_shrinkage() -> None:
    data = PEER_VIEWS["three"]()
    peer = linear.MCCA(n_components=2, shrinkage=1.0).fit(data)
    up_to_sign(_stacked(_fit(named(data), n_components=2)), np.vstack(peer.weights_), 1e-6)


def test_canonical_on_linnerud_as_r_has_it() -> None:
    data = load_linnerud()
    model = _fit({"x": data.data, "y": data.target}, mode="canonical", scaling="standard")
    first = model.weights_["x"][:, 0]
    # R's plspm, an iteration that stops at 1e-6.
    np.testing.assert_allclose(first * np.sign(first[0]), [0.61330704, 0.74697144, 0.25668686], atol=5e-6)


@pytest.mark.parametrize("seed", range(4))
def test_canonical_is_that_of_scikit_learn(seed: int) -> None:
    views = related(seed, 90, (5, 4))
    peer = PLSCanonical(n_components=4, scale=False, tol=1e-15, max_iter=100_000).fit(views["a"], views["b"])
    up_to_sign(_stacked(_fit(views, mode="canonical")), np.vstack([peer.x_rotations_, peer.y_rotations_]), 1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(4, 3), (5, 4, 2)]))
def test_canonical_variates_of_a_view_are_uncorrelated(seed: int, widths: tuple[int, ...]) -> None:
    views = related(seed, 80, widths)
    model = _fit(views, mode="canonical", n_components=2)
    for points in model.transform(views).values():
        assert abs(np.corrcoef(points, rowvar=False)[0, 1]) < 1e-8


def test_canonical_goes_on_where_the_narrowest_view_ends() -> None:
    views = related(0, 200, (5, 4, 2))
    model = _fit(views, mode="canonical", n_components=8)
    assert model.weights_["a"].shape == (5, 4)
    np.testing.assert_allclose(model.weights_["c"][:, 2:], 0.0, atol=1e-9)
    variates = model.transform(views)["a"]
    np.testing.assert_allclose(np.corrcoef(variates, rowvar=False), np.eye(4), atol=1e-8)


@pytest.mark.parametrize("mode", ["svd", "canonical"])
def test_covariances_come_from_pairs_so_no_row_needs_every_view(mode: str) -> None:
    views = related(3, 300, (4, 3, 5))
    present = np.stack([np.arange(300) % 3 != m for m in range(3)], axis=1)
    holes = Views({name: View(values, present[:, m]) for m, (name, values) in enumerate(views.items())})
    found = _stacked(_fit(holes, mode=mode, n_components=1))[:, 0]
    whole = _stacked(_fit(views, mode=mode, n_components=1))[:, 0]
    assert abs(found @ whole) / np.linalg.norm(found) / np.linalg.norm(whole) > 0.9


@pytest.mark.parametrize("mode", ["svd", "canonical"])
def test_units_do_not_decide_what_counts_as_zero(mode: str) -> None:
    views = related(1)
    small = {name: values * 1e-6 for name, values in views.items()}
    np.testing.assert_allclose(_fit(small, mode=mode).correlations_, _fit(views, mode=mode).correlations_, atol=1e-8)
    with pytest.raises(FusionError, match="no direction in common"):
        _fit({"a": np.zeros((4, 2)), "b": np.zeros((4, 2))}, mode=mode)
