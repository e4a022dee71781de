"""Retrieval against scikit-learn and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.metrics.pairwise import cosine_similarity

from mmcore.evaluation import retrieval
from mmcore.evaluation.retrieval import retrieval_by_class, retrieval_by_instance


def _spaces(seed: int, n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(6, 8))
    a, b = rng.integers(6, size=n), rng.integers(5, size=m)
    return centres[a] + rng.normal(size=(n, 8)), a, centres[b] + rng.normal(size=(m, 8)), b


@pytest.mark.parametrize("chunk", [1, 100, 4_000_000])
def test_by_class_equals_scikit_learn(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "CHUNK", chunk)
    queries, a, items, b = _spaces(0, 60, 45)
    found = retrieval_by_class(queries, a, items, b)
    similarity = cosine_similarity(queries, items)
    kept = [q for q in range(60) if (b == a[q]).any()]
    assert len(kept) < 60, "class 5 is among the queries only"
    wanted_map = np.mean([average_precision_score(b == a[q], similarity[q]) for q in kept])
    assert found is not None
    assert found.mean_average_precision == pytest.approx(wanted_map, abs=1e-6)
    for k in (1, 5, 10):
        near = [any(b[i] == a[q] for i in np.argsort(-similarity[q])[:k]) for q in kept]
        assert found.recall[k] == pytest.approx(np.mean(near))
    assert found.chance == pytest.approx(np.mean([(b == a[q]).mean() for q in kept]))
    assert (found.queries, found.items) == (len(kept), 45)


@pytest.mark.parametrize("chunk", [1, 77, 4_000_000])
def test_by_instance_equals_brute_force(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "CHUNK", chunk)
    rng = np.random.default_rng(2)
    both = rng.normal(size=(50, 4))
    query_rows, item_rows = np.arange(0, 40), np.arange(10, 50)
    queries = both[query_rows] + 0.4 * rng.normal(size=(40, 4))
    found = retrieval_by_instance(queries, query_rows, both[item_rows], item_rows)
    similarity = cosine_similarity(queries, both[item_rows])
    ranks = [1 + int((similarity[q] > similarity[q, q - 10]).sum()) for q in range(10, 40)]
    assert found is not None
    assert found.median_rank == np.median(ranks)
    assert found.recall == {k: pytest.approx(np.mean([r <= k for r in ranks])) for k in (1, 5, 10)}
    assert (found.queries, found.items) == (30, 40)


def test_a_space_that_says_nothing_is_no_success() -> None:
    same, rows = np.ones((101, 3)), np.arange(101)
    found = retrieval_by_instance(same, rows, same, rows)
    assert found is not None
    assert found.median_rank == 51
    assert found.recall[10] == 0


def test_zero_vectors_have_no_direction() -> None:
    found = retrieval_by_class(np.zeros((2, 3)), np.array([0, 1]), np.eye(3), np.array([0, 1, 1]))
    assert found is not None
    assert 0 < found.mean_average_precision < 1


def test_nothing_to_ask() -> None:
    empty = np.zeros((0, 3))
    none = np.zeros(0, int)
    assert retrieval_by_class(empty, none, np.eye(3), np.arange(3)) is None
    assert retrieval_by_class(np.eye(3), np.arange(3), empty, none) is None
    assert retrieval_by_instance(np.eye(3), np.arange(3), np.eye(3), np.arange(3) + 7) is None


def test_many_queries_are_spaced_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "MAX_QUERIES", 10)
    queries, a, items, b = _spaces(1, 100, 30)
    a = a % 5
    found = retrieval_by_class(queries, a, items, b)
    rows = np.linspace(0, 99, 10).round().astype(int)
    assert found == retrieval_by_class(queries[rows], a[rows], items, b)
    assert found is not None
    assert found.queries == 10
