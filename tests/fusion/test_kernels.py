"""Kernels against scikit-learn, explicit feature maps and brute force; Nyström features against the exact kernel."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import pairwise
from sklearn.preprocessing import KernelCenterer, PolynomialFeatures

from mmcore.errors import FusionError
from mmcore.fusion.data import View
from mmcore.fusion.kernels import CentredKernel, Expansion, Kernel
from mmcore.fusion.nystrom import NystromKernel, choose_landmarks, gram_bytes, landmarks_within

NAMES = ("linear", "polynomial", "rbf", "cosine", "chi2")


def _rows(seed: int, n: int, d: int = 4) -> np.ndarray:
    return np.abs(np.random.default_rng(seed).normal(size=(n, d)))


def _view(seed: int, n: int, d: int = 4, missing: float = 0.0) -> View:
    present = np.random.default_rng(seed + 100).random(n) >= missing
    present[0] = True
    return View(np.where(present[:, None], _rows(seed, n, d), np.nan), present)


@pytest.mark.parametrize(
    ("kernel", "peer"),
    [
        (Kernel("linear"), pairwise.linear_kernel),
        (Kernel("polynomial", 2.0, 2, 0.5), lambda x, y: pairwise.polynomial_kernel(x, y, 2, 0.5, 0.5)),
        (Kernel("rbf"), pairwise.rbf_kernel),
        (Kernel("rbf", 3.0), lambda x, y: pairwise.rbf_kernel(x, y, 0.75)),
        (Kernel("cosine"), pairwise.cosine_similarity),
        (Kernel("chi2", 0.5), lambda x, y: pairwise.chi2_kernel(x, y, 0.5)),
    ],
    ids=["linear", "polynomial", "rbf", "rbf-gamma", "cosine", "chi2"],
)
def test_values_and_diagonal_are_scikit_learns(kernel: Kernel, peer) -> None:
    X, Y = _rows(0, 7), _rows(1, 5)
    np.testing.assert_allclose(kernel(X, Y), peer(X, Y), rtol=1e-12)
    np.testing.assert_allclose(kernel.diagonal(X), np.diag(peer(X, X)), rtol=1e-12)
    assert kernel(X, Y[:0]).shape == (7, 0)


def test_kernels_that_cannot_be_are_refused() -> None:
    with pytest.raises(FusionError, match="unknown kernel 'sigmoid'; there are linear"):
        Kernel("sigmoid")
    with pytest.raises(FusionError, match="chi2 kernel needs features that are not negative, scaled by `none`"):
        CentredKernel(Kernel("chi2")).fit_transform(View(-_rows(0, 3), np.ones(3, bool)), np.ones(3))
    # Of other rows a negative value, which noise may make, is as good as none.
    values = np.abs(_rows(0, 3))
    np.testing.assert_array_equal(Kernel("chi2")(-values, values), Kernel("chi2")(0 * values, values))


@pytest.mark.parametrize("name", NAMES)
def test_centring_is_scikit_learns_where_nothing_is_absent(name: str) -> None:
    train, other, kernel = _view(0, 20), _view(1, 6), CentredKernel(Kernel(name), normalise=False)
    found = kernel.fit_transform(train, np.ones(20))
    peer = KernelCenterer().fit(Kernel(name)(train.values, train.values))
    np.testing.assert_allclose(found, peer.transform(Kernel(name)(train.values, train.values)), atol=1e-12)
    fresh = Kernel(name)(other.values, train.values)
    np.testing.assert_allclose(kernel.transform(other), peer.transform(fresh), atol=1e-12)


def test_absent_rows_stand_at_the_weighted_mean_of_the_features() -> None:
    """The polynomial kernel's feature map is known: centre, scale and zero it by hand."""
    train, other = _view(0, 30, missing=0.4), _view(1, 9, missing=0.4)
    weights = np.random.default_rng(2).random(30)
    # (xᵀy + 1)² has these features; γ = 4 / 4 = 1.
    powers = PolynomialFeatures(2)
    factors = np.where(powers.fit(train.values[:1]).powers_.max(axis=1) == 2, 1.0, np.sqrt(2.0))
    factors[0] = 1.0
    there = weights * train.present / (weights * train.present).sum()
    known = {}
    for name, view in (("train", train), ("other", other)):
        known[name] = powers.transform(np.where(view.present[:, None], view.values, 0.0)) * factors
    centre = there @ known["train"]
    size = there @ (known["train"] ** 2).sum(axis=1)
    for name, view in (("train", train), ("other", other)):
        known[name] = (known[name] - centre) * view.present[:, None] / np.sqrt(size)
    kernel = CentredKernel(Kernel("polynomial", 4.0, 2))
    np.testing.assert_allclose(kernel.fit_transform(train, weights), known["train"] @ known["train"].T, atol=1e-12)
    np.testing.assert_allclose(kernel.transform(other), known["other"] @ known["train"].T, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(NAMES))
def test_sums_over_views_with_absent_rows_are_positive_semidefinite(seed: int, name: str) -> None:
    total = np.zeros((25, 25))
    for number in range(3):
        view = _view(seed + number, 25, 3, missing=0.5)
        gram = CentredKernel(Kernel(name)).fit_transform(view, np.ones(25))
        assert (gram[~view.present] == 0).all()
        np.testing.assert_array_equal(gram, gram.T)
        total += gram
    assert np.linalg.eigvalsh(total)[0] > -1e-10


def test_a_weight_of_two_is_a_row_given_twice() -> None:
    view, weights = _view(0, 20, missing=0.3), 1.0 + np.arange(20) % 2
    twice = np.repeat(np.arange(20), weights.astype(int))
    weighted = CentredKernel(Kernel("rbf")).fit_transform(view, weights)
    repeated = CentredKernel(Kernel("rbf")).fit_transform(view[twice], np.ones(len(twice)))
    np.testing.assert_allclose(weighted[np.ix_(twice, twice)], repeated, atol=1e-12)


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("make", [CentredKernel, lambda kernel: NystromKernel(kernel, landmarks=12)])
def test_an_expansion_is_the_machine_itself(make, missing: float) -> None:
    kernel = make(Kernel("rbf"))
    train, other = _view(0, 40, missing=missing), _view(1, 15, missing=missing)
    width = kernel.fit_transform(train, np.ones(40)).shape[1]
    coefficients = np.random.default_rng(3).normal(size=(width, 2))
    machine = Expansion.joined([(kernel, coefficients)])
    np.testing.assert_allclose(machine.of(other), kernel.transform(other) @ coefficients, atol=1e-10)
    again = Expansion.restored(machine.kernels, machine.arrays("e"), "e")
    np.testing.assert_array_equal(again.of(other), machine.of(other))


def test_only_support_rows_stay_where_coefficients_sum_to_zero() -> None:
    kernel = CentredKernel(Kernel("rbf"))
    kernel.fit_transform(_view(0, 40), np.ones(40))
    coefficients = np.zeros((40, 1))
    coefficients[[3, 8, 21], 0] = 0.1, 0.2, -0.1 - 0.2
    machine = Expansion.joined([(kernel, coefficients), (kernel, 2 * coefficients)])
    np.testing.assert_array_equal(machine.rows, _rows(0, 40)[[3, 8, 21]])
    assert machine.coefficients.shape == (2, 3, 1)


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("name", NAMES)
def test_nystrom_with_every_row_a_landmark_is_the_exact_kernel(name: str, missing: float) -> None:
    train, other, weights = _view(0, 60, missing=missing), _view(1, 20, missing=missing), 1.0 + np.arange(60) % 3
    exact, features = CentredKernel(Kernel(name)), NystromKernel(Kernel(name), landmarks=60)
    gram, phi = exact.fit_transform(train, weights), features.fit_transform(train, weights)
    np.testing.assert_allclose(phi @ phi.T, gram, atol=1e-6)
    np.testing.assert_allclose(features.transform(other) @ phi.T, exact.transform(other), atol=1e-6)
    assert (phi[~train.present] == 0).all()


def test_more_landmarks_come_nearer_to_the_exact_kernel() -> None:
    view = _view(0, 200, 8)
    gram = CentredKernel(Kernel("rbf")).fit_transform(view, np.ones(200))
    errors = []
    for count in (5, 20, 80, 200):
        phi = NystromKernel(Kernel("rbf"), landmarks=count).fit_transform(view, np.ones(200))
        errors.append(np.linalg.norm(phi @ phi.T - gram))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-6


def test_a_view_that_is_constant_has_no_features() -> None:
    view = View.of(np.zeros((10, 3)))
    assert NystromKernel(Kernel("linear")).fit_transform(view, np.ones(10)).shape == (10, 0)
    assert (CentredKernel(Kernel("linear")).fit_transform(view, np.ones(10)) == 0).all()


def test_landmarks_follow_names_and_not_their_order() -> None:
    names = [f"key-{i}" for i in range(300)]
    chosen = {names[i] for i in choose_landmarks(names, 50, seed=1)}
    turned = names[::-1]
    assert {turned[i] for i in choose_landmarks(turned, 50, seed=1)} == chosen
    assert chosen < {names[i] for i in choose_landmarks(names, 80, seed=1)}
    assert chosen != {names[i] for i in choose_landmarks(names, 50, seed=2)}
    more = names + [f"new-{i}" for i in range(3)]
    assert len(chosen - {more[i] for i in choose_landmarks(more, 50, seed=1)}) <= 3


def test_the_memory_allowed_decides_and_is_told(caplog) -> None:
    assert landmarks_within(gram_bytes(100, 3), 100, 3, 500) is None
    with caplog.at_level(logging.WARNING):
        assert landmarks_within(gram_bytes(5000, 3) - 1, 5000, 3, 500) == 500
    assert "5,000 rows" in caplog.text
    assert "500 landmarks" in caplog.text
    assert landmarks_within(48 * 5000 * 3 * 40, 5000, 3, 500) == 40
    with pytest.raises(FusionError, match="too little for 3 kernels of 5,000 rows"):
        landmarks_within(1000, 5000, 3, 500)
