"""The linear algebra under the subspace methods, against numpy's plain decompositions."""

from __future__ import annotations

import numpy as np
import pytest

from mmcore.fusion.spectra import (
    gram_factor,
    leading_eigenvectors,
    leading_singular_vectors,
    mean_correlations,
    unbiased,
    whitening,
    with_fixed_signs,
)
from tests.fusion.correlated import up_to_sign


def _semidefinite(size: int, rank: int, seed: int = 0) -> np.ndarray:
    half = np.random.default_rng(seed).normal(size=(size, rank))
    return half @ half.T


@pytest.mark.parametrize("rank", [6, 4, 1])
def test_whitening_spans_what_is_there(rank: int) -> None:
    matrix = _semidefinite(6, rank)
    W = whitening(matrix)
    assert W.shape == (6, rank)
    np.testing.assert_allclose(W.T @ matrix @ W, np.eye(rank), atol=1e-9)
    np.testing.assert_allclose(matrix @ W @ W.T @ matrix, matrix, atol=1e-9)


def test_whitening_of_nothing_is_nothing_and_of_the_nearly_singular_is_stable() -> None:
    assert whitening(np.zeros((3, 3))).shape == (3, 0)
    values = np.array([1.0, 1e-3, 1e-9, 1e-14])
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    W = whitening((turn * values) @ turn.T)
    assert W.shape == (4, 3)


@pytest.mark.parametrize(("shape", "k"), [((40, 30), 3), ((30, 40), 3), ((40, 30), 30), ((8, 5), 9)])
def test_leading_singular_vectors(shape: tuple[int, int], k: int) -> None:
    matrix = np.random.default_rng(2).normal(size=shape)
    left, values, right = leading_singular_vectors(matrix, k)
    U, s, Vt = np.linalg.svd(matrix, full_matrices=False)
    k = min(k, *shape)
    np.testing.assert_allclose(values, s[:k], rtol=1e-12)
    up_to_sign(left, U[:, :k], 1e-9)
    np.testing.assert_allclose(left * values, matrix @ right, atol=1e-10)
    up_to_sign(right, Vt[:k].T, 1e-9)


@pytest.mark.parametrize("k", [2, 20])
def test_leading_eigenvectors(k: int) -> None:
    matrix = _semidefinite(40, 50)
    values, vectors = leading_eigenvectors(matrix, k)
    wanted, peer = np.linalg.eigh(matrix)
    np.testing.assert_allclose(values, wanted[::-1][:k], rtol=1e-12)
    up_to_sign(vectors, peer[:, ::-1][:, :k], 1e-9)


@pytest.mark.parametrize("rank", [12, 5])
def test_gram_factor_is_triangular_on_the_rows_that_span(rank: int) -> None:
    gram = _semidefinite(12, rank)
    gram[3] = gram[:, 3] = 0.0
    factor, spanning = gram_factor(gram)
    assert factor.shape == (12, min(rank, 11))
    np.testing.assert_allclose(factor @ factor.T, gram, atol=1e-9)
    np.testing.assert_array_equal(np.triu(factor[spanning], 1), 0.0)
    np.testing.assert_array_equal(factor[3], 0.0)
    assert gram_factor(np.zeros((4, 4)))[0].shape == (4, 0)


def test_signs_are_fixed_by_the_largest_entry() -> None:
    weights = np.array([[1.0, -3.0], [-2.0, 1.0]])
    np.testing.assert_array_equal(with_fixed_signs(weights), [[-1, 3], [2, -1]])


def test_mean_correlations_are_numpys() -> None:
    random = np.random.default_rng(3)
    X = random.normal(size=(50, 7)) @ random.normal(size=(7, 7))
    weights = random.normal(size=(7, 2))
    weights[5:, 1] = 0.0
    variates = [X[:, s] @ weights[s] for s in (slice(0, 3), slice(3, 5), slice(5, 7))]
    found = mean_correlations(np.cov(X, rowvar=False), [3, 2, 2], weights)
    for k, pairs in ((0, [(0, 1), (0, 2), (1, 2)]), (1, [(0, 1)])):
        wanted = sum(np.corrcoef(variates[i][:, k], variates[j][:, k])[0, 1] for i, j in pairs) / 3
        assert found[k] == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(("weight", "rows", "count"), [(50.0, 50, 50), (100.0, 50, 100), (1.0, 50, 50)])
def test_weights_count_rows_or_are_shares(weight: float, rows: int, count: int) -> None:
    assert unbiased(weight, rows) == count / (count - 1)
    assert unbiased(1.0, 1) == 1.0
