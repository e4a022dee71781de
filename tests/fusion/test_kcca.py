"""Kernel CCA against cca-zoo and against linear CCA; its approximation against the exact solution."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from cca_zoo.nonparametric import KCCA
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.errors import FusionError
from mmcore.fusion.cca import CcaFusion, canonical_weights
from mmcore.fusion.data import View, Views
from mmcore.fusion.kcca import KccaFusion, exact_bytes
from mmcore.fusion.spectra import mean_correlations
from tests.fusion.conftest import made
from tests.fusion.correlated import PEER_VIEWS, named, related, up_to_sign

KERNELS = {"rbf": "rbf", "polynomial": "poly", "linear": "linear", "cosine": "cosine"}


def _fit(views, **settings) -> KccaFusion:
    plain = {"scaling": "none", "C": 1.0, "n_components": 2} | settings
    return KccaFusion(**plain).fit(views, np.arange(len(Views.of(views))) % 2)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("views", PEER_VIEWS)
@pytest.mark.parametrize("shrinkage", [0.01, 0.1, 0.5])
def test_points_are_those_of_cca_zoo(views: str, kernel: str, shrinkage: float) -> None:
    data = [values - values.mean(axis=0) for values in PEER_VIEWS[views]()]
    peer = KCCA(n_components=2, shrinkage=shrinkage, kernel=KERNELS[kernel]).fit(data)
    model = _fit(named(data), shrinkage=shrinkage, kernel=kernel)
    fresh = [np.random.default_rng(5).normal(size=(7, values.shape[1])) for values in data]
    for rows in (data, fresh):
        up_to_sign(np.vstack(list(model.transform(named(rows)).values())), np.vstack(peer.transform(rows)), 1e-3)


def test_correlations_on_cca_zoos_correlated_views() -> None:
    model = _fit(named(PEER_VIEWS["correlated"]()), shrinkage=0.1)
    np.testing.assert_allclose(model.correlations_, [0.992516, 0.991677], atol=1e-6)
    assert model.landmarks_ is None


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.01, 0.1, 1.0]), st.sampled_from([(4, 3), (4, 3, 5)]))
def test_linear_kernel_is_linear_cca(seed: int, shrinkage: float, widths: tuple[int, ...]) -> None:
    views = related(seed, 50, widths)
    model = _fit(views, kernel="linear", shrinkage=shrinkage)
    peer = CcaFusion(scaling="none", C=1.0, n_components=2, shrinkage=shrinkage).fit(views, np.arange(50) % 2)
    np.testing.assert_allclose(model.correlations_, peer.correlations_, atol=1e-8)
    up_to_sign(np.vstack(list(model.transform(views).values())), np.vstack(list(peer.transform(views).values())), 1e-6)


def test_almost_without_shrinkage_the_linear_kernel_is_plain_cca() -> None:
    for data in (PEER_VIEWS["two"](), PEER_VIEWS["three"]()):
        peer = CcaFusion(scaling="none", C=1.0, n_components=2, shrinkage=0.0).fit(named(data), np.arange(50) % 2)
        found = _fit(named(data), kernel="linear", shrinkage=1e-4).correlations_
        np.testing.assert_allclose(found, peer.correlations_, atol=1e-3)


def test_more_shrinkage_never_raises_the_correlation() -> None:
    views = named(PEER_VIEWS["two"]())
    found = [_fit(views, shrinkage=s, n_components=1).correlations_[0] for s in (0.001, 0.01, 0.1, 0.5, 1.0)]
    assert (np.diff(found) <= 1e-12).all()


def test_every_row_a_landmark_is_the_exact_solution(caplog) -> None:
    views = related(2, 60, (4, 3, 5))
    exact = _fit(views)
    with caplog.at_level(logging.WARNING):
        near = _fit(views, memory_bytes=exact_bytes(60, 3) - 1, landmarks=60)
    assert (exact.landmarks_, near.landmarks_) == (None, 60)
    assert "Nyström approximation with 60 landmarks" in caplog.text
    np.testing.assert_allclose(near.correlations_, exact.correlations_, atol=1e-6)
    for name, points in exact.transform(views).items():
        up_to_sign(near.transform(views)[name], points, 1e-5)


def test_few_landmarks_find_what_the_views_share() -> None:
    views = related(6, 400, (4, 3))
    exact = _fit(views, shrinkage=0.3)
    near = _fit(views, shrinkage=0.3, memory_bytes=1 << 20, landmarks=80)
    assert near.landmarks_ <= 80
    for name, points in near.transform(views).items():
        assert abs(np.corrcoef(points[:, 0], exact.transform(views)[name][:, 0])[0, 1]) > 0.98


def test_absent_rows_stand_at_the_mean() -> None:
    views = related(1, 40)
    present = np.arange(40) % 4 != 0
    holes = Views({"a": views["a"], "b": View(views["b"], present)})
    model = _fit(holes, shrinkage=0.2)
    # The same from eigenvectors: coordinates of absent rows are zero, so their view's mean.
    features = []
    for values, there in ((views["a"], np.ones(40, bool)), (views["b"], present)):
        rows = values[there]
        gram = np.exp(-((rows[:, None] - rows[None]) ** 2).sum(axis=2) / rows.shape[1])
        centre = np.eye(len(rows)) - 1 / len(rows)
        spread, vectors = np.linalg.eigh(centre @ gram @ centre)
        whole = np.zeros((40, len(rows) - 1))
        whole[there] = vectors[:, 1:] * np.sqrt(spread[1:])
        features.append(whole)
    covariance = np.hstack(features).T @ np.hstack(features) / 39
    widths = [part.shape[1] for part in features]
    weights = canonical_weights(covariance, widths, 2, 0.2)
    np.testing.assert_allclose(model.correlations_, mean_correlations(covariance, widths, weights), atol=1e-8)


def test_a_weight_of_two_is_a_row_given_twice() -> None:
    data = made(60)
    weights = np.where(np.arange(60) % 3, 1.0, 2.0)
    twice = data[np.repeat(np.arange(60), weights.astype(int))]
    first = KccaFusion(n_components=3, C=1.0).fit(data.views, data.labels, sample_weight=weights)
    second = KccaFusion(n_components=3, C=1.0).fit(twice.views, twice.labels)
    np.testing.assert_allclose(first.correlations_, second.correlations_, atol=1e-8)
    for name, points in second.transform(data.views).items():
        up_to_sign(first.transform(data.views)[name], points, 1e-5)


def test_a_model_says_that_it_holds_training_rows(tmp_path) -> None:
    model = _fit(related(0))
    assert model.contains_training_rows
    model.save(tmp_path)
    assert '"contains_training_rows": true' in (tmp_path / "model.json").read_text()
    assert not CcaFusion().contains_training_rows


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(FusionError, match="at least two views"):
        _fit({"a": np.zeros((4, 2))})
    with pytest.raises(FusionError, match="memory_bytes: 100 is too little"):
        _fit(related(0), memory_bytes=100)
    with pytest.raises(FusionError, match="not negative"):
        _fit(related(0), kernel="chi2")
