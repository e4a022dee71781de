"""Moments against all rows at once: any cut, any pattern of missing views, means far larger than deviations."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.errors import FusionError
from mmcore.fusion import moments
from mmcore.fusion.data import View, Views
from mmcore.fusion.impute import column_means, pairwise_covariance, side_by_side
from mmcore.fusion.moments import Moments, PatternMoments
from mmcore.fusion.scaling import Scaler
from tests.fusion.conftest import made


def _far(n: int = 400, missing: float = 0.3) -> Views:
    """Views in float64 whose means are 10⁴ deviations from zero; absent values are NaN."""
    return Views(
        {
            name: View(view.values.astype(np.float64) + 1e4, view.present)
            for name, view in made(n, 0, missing).views.items()
        }
    )


def _cut(views: Views, weights: np.ndarray, at: list[int]) -> Moments:
    edges = [0, *sorted(at), len(views)]
    parts = (slice(a, b) for a, b in pairwise(edges))
    return Moments.merged(Moments.of(views[part], weights[part]) for part in parts)


def _plain(views: Views, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and covariance by the functions that see all rows."""
    X, mask = side_by_side(views)
    X = np.where(mask, X, 0.0)
    mean = column_means(X, mask, weights)
    return mean, pairwise_covariance((X - mean) * mask, mask, weights)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=6), st.integers(0, 1000))
def test_parts_add_up_to_all_rows_far_from_zero(at: list[int], seed: int) -> None:
    views = _far()
    weights = np.random.default_rng(seed).uniform(0.0, 2.0, len(views))
    found = _cut(views, weights, at)
    mean, covariance = _plain(views, weights)
    np.testing.assert_allclose(found.means(), mean, rtol=1e-13)
    np.testing.assert_allclose(found.covariance(), covariance, atol=1e-9)
    assert found.rows == len(views)
    assert found.weight == pytest.approx(weights.sum())


def test_a_naive_sum_of_squares_would_not_do() -> None:
    views = _far(missing=0.0)
    X = side_by_side(views)[0].astype(np.float64)
    naive = X.T @ X / len(X) - np.outer(X.mean(axis=0), X.mean(axis=0))
    _, covariance = _plain(views, np.ones(len(X)))
    exact = Moments.of(views).covariance()
    assert np.abs(exact - covariance).max() < 1e-11 < np.abs(naive - covariance).max()


def test_blocks_of_rows_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    views = _far()
    whole = Moments.of(views)
    monkeypatch.setattr(moments, "BLOCK", 37 * 15)
    monkeypatch.setattr(moments, "LEAST_ROWS", 1)
    np.testing.assert_allclose(Moments.of(views).covariance(), whole.covariance(), atol=1e-10)


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_scaled_moments_are_the_moments_of_scaled_rows(missing: float) -> None:
    views, weights = _far(missing=missing), np.random.default_rng(1).uniform(0.5, 2.0, 400)
    scaler = Scaler("standard").fit(views, weights)
    found = Moments.of(views, weights)
    mean, deviation = (np.concatenate([scaler.moments[name][i] for name in views]) for i in (0, 1))
    np.testing.assert_allclose(found.means(), mean, rtol=1e-14)
    np.testing.assert_allclose(found.deviations(), deviation, rtol=1e-10)
    scaled = found.scaled(found.means(), found.deviations())
    expected = Moments.of(scaler.transform(views), weights)
    np.testing.assert_allclose(scaled.covariance(), expected.covariance(), atol=1e-9)
    for pattern, part in expected.patterns.items():
        np.testing.assert_allclose(scaled.patterns[pattern].second(), part.second(), atol=1e-7)


def test_a_constant_column_has_the_deviation_that_the_scaler_gives_it() -> None:
    values = np.random.default_rng(0).normal(size=(1000, 3))
    values[:, 1] = 1e4 + 0.1
    views = Views({"a": values})
    found = Moments.merged(Moments.of(views[slice(at, at + 7)]) for at in range(0, 1000, 7))
    assert found.deviations()[1] == 1.0
    assert Scaler("standard").fit(views, np.ones(1000)).moments["a"][1][1] == 1.0


def test_a_weight_is_so_many_rows_and_none_counts_for_nothing() -> None:
    views = _far(60)
    weights = np.arange(60) % 3
    repeated = Moments.of(views[np.repeat(np.arange(60), weights)])
    weighted = Moments.of(views, weights)
    np.testing.assert_allclose(weighted.covariance(), repeated.covariance(), atol=1e-9)
    np.testing.assert_allclose(weighted.means(), repeated.means(), rtol=1e-14)


def test_some_views_in_another_order_are_those_of_these_views() -> None:
    views, weights = _far(), np.random.default_rng(2).uniform(0.5, 2.0, 400)
    found = Moments.of(views, weights).only(["text", "image"])
    expected = Moments.of(views.only(["text", "image"]), weights)
    np.testing.assert_allclose(found.covariance(), expected.covariance(), atol=1e-9)
    np.testing.assert_allclose(found.means(), expected.means(), rtol=1e-14)
    assert (found.rows, list(found.patterns)) == (expected.rows, list(expected.patterns))
    assert found.spans == {"text": slice(0, 6), "image": slice(6, 11)}


def test_the_second_moment_is_about_zero() -> None:
    random = np.random.default_rng(0)
    X, weights = random.normal(size=(50, 4)) + 3, random.uniform(size=50)
    np.testing.assert_allclose(PatternMoments.of(X.copy(), weights).second(), X.T @ (weights[:, None] * X))


def test_rows_with_nothing_count_for_nothing_and_no_pair_gives_zero() -> None:
    views = made(90).views
    turns = np.arange(90) % 3
    apart = Views(
        {name: View(view.values, turns == number) for number, (name, view) in enumerate(views.items()) if number < 2}
    )
    found = Moments.of(apart)
    assert found.rows == 60
    assert not found.complete
    np.testing.assert_allclose(found.covariance()[:5, 5:], 0.0, atol=1e-12)
    assert np.linalg.eigvalsh(found.covariance()).min() > -1e-12


def test_saved_and_restored_to_the_bit() -> None:
    found = Moments.of(_far())
    data = safetensors.numpy.save(found.arrays())
    again = Moments.restored(found.widths, safetensors.numpy.load(data))
    np.testing.assert_array_equal(again.covariance(), found.covariance())
    np.testing.assert_array_equal(again.deviations(), found.deviations())
    assert safetensors.numpy.save(again.arrays()) == data


def test_what_does_not_add_up_is_refused() -> None:
    views = _far()
    with pytest.raises(FusionError, match="do not add up"):
        Moments.of(views).merge(Moments.of(views.only(["image", "audio"])))
    with pytest.raises(FusionError, match="view a: moments need one vector per row"):
        Moments.of(Views({"a": np.zeros((3, 2, 2))}))
