"""How well one modality finds another in a shared space, as pure functions of NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

CHUNK = 4_000_000
"""Similarities held at a time (16 MB of float32), whatever the number of rows."""

MAX_QUERIES = 2_000
"""With more queries than this, evenly spaced ones are asked: the time grows with queries times items."""


@dataclass(frozen=True)
class ClassRetrieval:
    """Retrieval by class: an item is right where it has the query's class."""

    recall: dict[int, float]
    """k to the share of queries with at least one right item among their k nearest."""
    mean_average_precision: float
    chance: float
    """Recall@1 expected of a random order: the mean share of right items."""
    queries: int
    items: int


@dataclass(frozen=True)
class InstanceRetrieval:
    """Retrieval by instance: the one right item is the query's own row."""

    recall: dict[int, float]
    median_rank: float
    """1 is best; equally near items share the mean of their ranks."""
    queries: int
    items: int


def retrieval_by_class(
    queries: Array, query_classes: Array, items: Array, item_classes: Array, ks: tuple[int, ...] = (1, 5, 10)
) -> ClassRetrieval | None:
    """Recall@k and mean average precision of finding items of the query's class by cosine similarity.

    `queries` (q, d) and `items` (m, d) without NaN, classes (q,) and (m,) of int. Queries whose class no item has
    are left out; None where no query is left. Equally near items are ranked in row order. Average precision is the
    mean, over a query's right items, of the precision at their ranks (C. Manning et al., Introduction to Information
    Retrieval (2008), section 8.4).
    """
    askable = np.isin(query_classes, item_classes)
    queries, query_classes = _spaced(queries[askable]), _spaced(query_classes[askable])
    if not len(queries):
        return None
    hits = dict.fromkeys(ks, 0)
    precision_sum = chance_sum = 0.0
    ranks = np.arange(1, len(items) + 1)
    for start, similarity in _similarities(queries, items):
        order = np.argsort(-similarity, axis=1, kind="stable")
        right = item_classes[order] == query_classes[start : start + len(similarity), None]
        for k in ks:
            hits[k] += int(right[:, :k].any(axis=1).sum())
        precision = np.cumsum(right, axis=1) / ranks
        precision_sum += float(((precision * right).sum(axis=1) / right.sum(axis=1)).sum())
        chance_sum += float(right.mean(axis=1).sum())
    n = len(queries)
    return ClassRetrieval({k: hits[k] / n for k in ks}, precision_sum / n, chance_sum / n, n, len(items))


def retrieval_by_instance(
    queries: Array, query_rows: Array, items: Array, item_rows: Array, ks: tuple[int, ...] = (1, 5, 10)
) -> InstanceRetrieval | None:
    """Recall@k and median rank of finding the query's own row among the items by cosine similarity.

    `queries` (q, d) and `items` (m, d) without NaN; rows (q,) and (m,) number the samples that they come from,
    `item_rows` ascending. Queries without an item of their own are left out; None where no query is left.
    """
    askable = np.isin(query_rows, item_rows)
    queries, query_rows = _spaced(queries[askable]), _spaced(query_rows[askable])
    if not len(queries):
        return None
    own = np.searchsorted(item_rows, query_rows)
    ranks = np.empty(len(queries))
    for start, similarity in _similarities(queries, items):
        stop = start + len(similarity)
        mine = similarity[np.arange(stop - start), own[start:stop]][:, None]
        ties = (similarity == mine).sum(axis=1) - 1
        ranks[start:stop] = 1 + (similarity > mine).sum(axis=1) + ties / 2
    recall = {k: float(np.mean(ranks <= k)) for k in ks}
    return InstanceRetrieval(recall, float(np.median(ranks)), len(queries), len(items))


def _similarities(queries: Array, items: Array) -> Iterator[tuple[int, Array]]:
    """The first row's number and the cosine similarities (rows, m) of one chunk of queries after another."""
    queries, items = _unit(queries), _unit(items)
    step = max(1, CHUNK // max(1, len(items)))
    for start in range(0, len(queries), step):
        yield start, queries[start : start + step] @ items.T


def _unit(vectors: Array) -> Array:
    """Rows of length 1; zero rows stay zero, equally far from all."""
    vectors = vectors.astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Array = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return unit


def _spaced(rows: Array) -> Array:
    """All rows, or `MAX_QUERIES` evenly spaced ones."""
    if len(rows) <= MAX_QUERIES:
        return rows
    spaced: Array = rows[np.linspace(0, len(rows) - 1, MAX_QUERIES).round().astype(int)]
    return spaced
