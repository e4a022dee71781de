"""CCA against closed forms, scikit-learn's data sets, and what it must not depend on."""

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
from mmcore.fusion.moments import Moments
from mmcore.fusion.pls import PlsFusion
from mmcore.fusion.subspace import LinearSubspace
from tests.fusion.conftest import made
from tests.fusion.correlated import PEER_VIEWS, named, related, up_to_sign


def _fit(views, **settings) -> CcaFusion:
    plain = {"shrinkage": 0.0, "scaling": "none", "C": 1.0} | settings
    rows = len(next(iter(views.values())))
    return CcaFusion(**plain).fit(views, np.arange(rows) % 2)


def _by_svd(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Canonical correlations as the singular values of QaᵀQb (Björck and Golub 1973)."""
    bases = [np.linalg.qr(x - x.mean(axis=0))[0] for x in (a, b)]
    return np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)


def test_matlabs_case() -> None:
    X = np.vstack([np.eye(3), 2 * np.eye(3)])
    Y = np.vstack([np.fliplr(np.eye(3)), 0.1 * np.eye(3)])
    np.testing.assert_allclose(_fit({"x": X, "y": Y}).correlations_, [1, 0.533992991, 0.355995328], atol=1e-8)


@pytest.mark.parametrize("views", PEER_VIEWS)
@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 0.5])
def test_weights_are_those_of_cca_zoo(views: str, shrinkage: float) -> None:
    data = PEER_VIEWS[views]()
    peer = linear.MCCA(n_components=2, shrinkage=shrinkage).fit(data)
    model = _fit(named(data), n_components=2, shrinkage=shrinkage)
    up_to_sign(np.vstack(list(model.weights_.values())), np.vstack(peer.weights_), 1e-6)
    if len(data) == 2:
        peer = linear.RidgeCCA(n_components=2, shrinkage=shrinkage).fit(data)
        up_to_sign(np.vstack(list(model.weights_.values())), np.vstack(peer.weights_), 1e-6)


@pytest.mark.parametrize(
    ("views", "shrinkage", "wanted"),
    [
        ("two", 0.0, [0.663992, 0.568400]),
        ("two", 0.1, [0.660464, 0.567113]),
        ("correlated", 0.0, [0.999335, 0.997587]),
        ("correlated", 0.1, [0.999198, 0.996721]),
        ("correlated", 0.5, [0.998859, 0.996309]),
        ("three", 0.0, [0.546757, 0.429972]),
    ],
)
def test_correlations_on_cca_zoos_fixtures(views: str, shrinkage: float, wanted: list[float]) -> None:
    model = _fit(named(PEER_VIEWS[views]()), n_components=2, shrinkage=shrinkage)
    np.testing.assert_allclose(model.correlations_, wanted, atol=1e-6)


def test_mcca_has_more_components_than_the_narrowest_view() -> None:
    views = related(0, 300, (5, 6, 2))
    model = _fit(views, n_components=5)
    assert model.weights_["c"].shape == (2, 5)
    assert np.linalg.matrix_rank(np.vstack(list(model.weights_.values()))) == 5


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 1.0])
def test_views_wider_than_their_rows_are_those_of_cca_zoo(shrinkage: float) -> None:
    views = list(related(4, 30, (80, 60)).values())
    peer = linear.RidgeCCA(n_components=3, shrinkage=shrinkage).fit(views)
    model = _fit(named(views), n_components=3, shrinkage=shrinkage)
    if shrinkage:
        up_to_sign(np.vstack(list(model.weights_.values())), np.vstack(peer.weights_), 1e-6)
    else:
        np.testing.assert_allclose(model.correlations_, 1.0, atol=1e-9)


def test_moments_in_parts_give_the_map_of_all_rows() -> None:
    views = Views(related(5, 200, (4, 3, 5)))
    whole = _fit(dict(views.items()), n_components=4, shrinkage=0.1)
    parts = CcaFusion(n_components=4, shrinkage=0.1)
    parts.curves_ = {}
    parts.learn_moments(Moments.merged([Moments.of(views[:90]), Moments.of(views[90:])]))
    for name, weights in whole.weights_.items():
        np.testing.assert_allclose(parts.weights_[name], weights, atol=1e-10)
        np.testing.assert_allclose(parts.means_[name], whole.means_[name], atol=1e-12)


@pytest.mark.parametrize("widths", [(4, 3), (80, 60)])
def test_rows_of_no_weight_are_no_rows(widths: tuple[int, ...]) -> None:
    views, weights = related(7, 60, widths), (np.arange(60) < 45).astype(float)
    model = CcaFusion(n_components=2, C=1.0, scaling="none").fit(views, np.arange(60) % 2, sample_weight=weights)
    alone = _fit({name: values[:45] for name, values in views.items()}, n_components=2, shrinkage=0.1)
    for name, found in model.weights_.items():
        np.testing.assert_allclose(found, alone.weights_[name], atol=1e-10)


@pytest.mark.parametrize("kind", [CcaFusion, GccaFusion, PlsFusion])
def test_views_wider_than_their_rows_have_the_map_of_all_their_moments(kind: type[LinearSubspace]) -> None:
    views = related(8, 20, (30, 25, 3))
    model = kind(n_components=3, C=1.0, scaling="none").fit(views, np.arange(20) % 2)
    whole = kind(n_components=3)
    whole.curves_ = {}
    whole.learn_moments(Moments.of(Views(views)))
    for name, weights in whole.weights_.items():
        np.testing.assert_allclose(model.weights_[name], weights, atol=1e-9)
        np.testing.assert_allclose(model.means_[name], whole.means_[name], atol=1e-12)


def test_the_head_may_read_each_point() -> None:
    data = made(200)
    model = CcaFusion(n_components=4, C=1.0, reads="each").fit(data.views, data.labels)
    assert model.head_.arrays("head")["head.weights"].shape == (3, 12)
    np.testing.assert_array_equal(model.transform(data.views)["text"], model.fuse({"text": data.views["text"]}))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_two_views_have_hotellings_correlations(seed: int) -> None:
    views = related(seed)
    found = _fit(views).correlations_
    np.testing.assert_allclose(found, _by_svd(views["a"], views["b"]), atol=1e-8)
    assert (np.diff(found) <= 1e-12).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_variates_are_uncorrelated_and_of_unit_variance(seed: int) -> None:
    views = related(seed)
    model = _fit(views)
    for points in model.transform(views).values():
        np.testing.assert_allclose(np.cov(points, rowvar=False), np.eye(3), atol=1e-8)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_correlations_do_not_depend_on_rotation_scale_or_shift(seed: int) -> None:
    views = related(seed)
    random = np.random.default_rng(seed + 1)
    moved = {
        name: values @ random.normal(size=(values.shape[1],) * 2) * random.uniform(0.1, 10) + random.normal()
        for name, values in views.items()
    }
    np.testing.assert_allclose(_fit(moved).correlations_, _fit(views).correlations_, atol=1e-6)


def test_more_views_solve_the_generalised_eigenproblem() -> None:
    random = np.random.default_rng(5)
    shared = random.normal(size=(200, 2))
    views = {name: shared @ random.normal(size=(2, 3)) + random.normal(size=(200, 3)) for name in "abc"}
    model = _fit(views, n_components=3, shrinkage=0.1)
    everything = np.hstack([values - values.mean(axis=0) for values in views.values()])
    covariance = everything.T @ everything / 199
    own = scipy.linalg.block_diag(*(covariance[i : i + 3, i : i + 3] for i in (0, 3, 6)))
    _, vectors = scipy.linalg.eigh(covariance - own, 0.9 * own + 0.1 * np.eye(9))
    found = np.vstack(list(model.weights_.values()))
    for k in range(3):
        peer = vectors[:, -1 - k] * np.sqrt(3)
        np.testing.assert_allclose(found[:, k] * np.sign(found[:, k] @ peer), peer, atol=1e-8)


def test_three_equal_views_correlate_fully() -> None:
    X = np.random.default_rng(0).normal(size=(50, 3))
    np.testing.assert_allclose(_fit({"a": X, "b": X, "c": X}, n_components=3).correlations_, 1.0, atol=1e-9)


def test_two_views_are_the_multiset_case_of_two() -> None:
    views = related(1)
    np.testing.assert_allclose(
        _fit(views).correlations_,
        [np.corrcoef(*(points[:, k] for points in _fit(views).transform(views).values()))[0, 1] for k in range(3)],
        atol=1e-8,
    )


def test_full_shrinkage_is_partial_least_squares() -> None:
    views = related(2)
    model = _fit(views, shrinkage=1.0, n_components=1)
    a, b = (values - values.mean(axis=0) for values in views.values())
    left, _, right = np.linalg.svd(a.T @ b)
    for name, peer in (("a", left[:, 0]), ("b", right[0])):
        found = model.weights_[name][:, 0]
        assert abs(found @ peer) / np.linalg.norm(found) == pytest.approx(1.0, abs=1e-8)


def test_a_mean_far_from_zero_costs_no_digits() -> None:
    views = related(3)
    far = {name: values + 1e4 for name, values in views.items()}
    np.testing.assert_allclose(_fit(far).correlations_, _fit(views).correlations_, atol=1e-7)


def test_covariances_come_from_pairs_so_no_row_needs_every_view() -> None:
    data = made(300)
    present = np.stack([np.arange(300) % 3 != m for m in range(3)], axis=1)
    views = Views({n: View(v.values, present[:, m]) for m, (n, v) in enumerate(data.views.items())})
    model = CcaFusion(n_components=4, C=1.0).fit(views, data.labels)
    assert model.score(views, data.labels) > 0.85
    assert (np.abs(model.correlations_) <= 1 + 1e-9).all()


def test_shared_directions_bring_views_of_one_row_together() -> None:
    random = np.random.default_rng(0)
    shared = random.normal(size=(300, 2))
    views = {
        name: shared @ random.normal(size=(2, width)) + 0.02 * random.normal(size=(300, width))
        for name, width in (("a", 5), ("b", 6), ("c", 2))
    }
    points = _fit(views, n_components=2).transform(views)
    far = np.linalg.norm(points["a"][:, None] - points["c"][None], axis=2)
    assert (far.argmin(axis=1) == np.arange(300)).mean() > 0.5


def test_one_view_or_unrelated_constant_ones_are_refused() -> None:
    with pytest.raises(FusionError, match="at least two views"):
        _fit({"a": np.zeros((4, 2))})
    with pytest.raises(FusionError, match="no direction in common"):
        _fit({"a": np.zeros((4, 2)), "b": np.zeros((4, 2))})
