"""The scores that models are chosen and compared by, as pure functions of NumPy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from mmcore.fusion.base import FusionModel
    from mmcore.fusion.data import LabelledViews

Array = npt.NDArray[Any]

SMALLEST_PROBABILITY = 1e-15
"""Probabilities are clipped to this and to 1 minus this before a logarithm is taken."""


def validation_scores(model: FusionModel, rows: LabelledViews) -> dict[str, float]:
    """Every metric of the model's task on the labelled of these rows, as the test split's are computed."""
    truth, labelled = model.target_.encode(rows.labels, len(rows))
    return all_scores(model.task, truth[labelled], predictions_of(model, rows.views)[labelled])


def predictions_of(model: FusionModel, views: Any) -> Array:
    """What scores are computed of: probabilities (n, classes) or (n, labels), or numbers (n,)."""
    return np.asarray(model.predict(views) if model.task == "regression" else model.predict_proba(views))


def all_scores(task: str, truth: Array, predictions: Array) -> dict[str, float]:
    """Every metric of this task (`config.metrics.METRICS`) on at least one row.

    `truth`: class numbers (n,), labels (n, L) of 0 and 1, or numbers (n,); `predictions`: as of `predictions_of`.
    """
    if task == "classes":
        predicted = predictions.argmax(axis=1)
        return {
            "accuracy": accuracy(truth, predicted),
            "macro_f1": macro_f1(confusion_matrix(truth, predicted, predictions.shape[1])),
            "log_loss": log_loss(truth, predictions),
        }
    if task == "multilabel":
        named = predictions > 0.5
        hits = _hits(truth, named, axis=0)
        return {
            "sample_f1": float(sample_f1(truth, named).mean()),
            "subset_accuracy": float(np.mean((named == truth).all(axis=1))),
            "label_accuracy": float(np.mean(named == truth)),
            "micro_f1": float(_f1(*(part.sum() for part in hits))),
            "macro_f1": float(_f1(*hits)[truth.any(axis=0)].mean()) if truth.any() else 1.0,
            "mean_average_precision": mean_average_precision(truth, predictions),
            "log_loss": binary_log_loss(truth, predictions),
        }
    gaps = predictions - truth
    return {
        "r2": float(row_scores(task, truth, predictions).mean()),
        "rmse": float(np.sqrt(np.mean(gaps**2))),
        "mae": float(np.mean(np.abs(gaps))),
    }


def row_scores(task: str, truth: Array, predictions: Array) -> Array:
    """One score per row (n,) float64, whose mean is the task's headline metric; higher is better.

    Classes: 1 where right. Several labels: the row's F1. Numbers: 1 - (y - ŷ)² / Var(y), whose mean is R²; where all
    numbers are equal, 1 for a hit and 0 otherwise.
    """
    if task == "classes":
        return np.asarray(predictions.argmax(axis=1) == truth, dtype=np.float64)
    if task == "multilabel":
        return sample_f1(truth, predictions > 0.5)
    return explained(truth, predictions, float(np.var(truth)))


def explained(truth: Array, predictions: Array, variance: float) -> Array:
    """Each row's 1 - (y - ŷ)² / variance: (n,)."""
    errors = (truth - predictions) ** 2
    return np.asarray(1 - errors / variance if variance > 0 else (errors == 0).astype(np.float64))


def accuracy(truth: Array, predicted: Array) -> float:
    """The share of rows predicted right, in 0 to 1. Both (n,) of class numbers, n at least 1."""
    return float(np.mean(truth == predicted))


def confusion_matrix(truth: Array, predicted: Array, n_classes: int) -> Array:
    """How often class i (row) was called class j (column): (n_classes, n_classes) of int64.

    `truth` and `predicted`: (n,) of class numbers from 0 to n_classes - 1.
    """
    pairs = truth.astype(np.int64) * n_classes + predicted.astype(np.int64)
    return np.bincount(pairs, minlength=n_classes * n_classes).reshape(n_classes, n_classes)


def macro_f1(confusion: Array) -> float:
    """The mean F1, 2 TP / (2 TP + FP + FN), of the classes that the rows have, in 0 to 1.

    `confusion`: as `confusion_matrix` gives it, with at least one row counted.
    """
    rows, called = confusion.sum(axis=1), confusion.sum(axis=0)
    there = rows > 0
    return float(np.mean(2 * np.diag(confusion)[there] / (rows + called)[there]))


def log_loss(truth: Array, proba: Array) -> float:
    """The mean of -log p(right class), in nats: 0 is perfect, log(n_classes) is knowing nothing.

    `truth` (n,) of class numbers, `proba` (n, n_classes); each probability is first clipped to
    `SMALLEST_PROBABILITY`, so that one confident mistake costs at most 34.5 nats.
    """
    right = proba[np.arange(len(truth)), truth].astype(float)
    return float(-np.mean(np.log(_clipped(right))))


def binary_log_loss(truth: Array, proba: Array) -> float:
    """The mean over rows and labels of -log p(what is so), in nats. Both (n, L)."""
    return float(-np.mean(np.log(_clipped(np.where(truth > 0.5, proba, 1 - proba).astype(float)))))


def sample_f1(truth: Array, named: Array) -> Array:
    """F1 of each row's labels (n,), 1 where it has none and none is named. Both (n, L) of 0 and 1."""
    return _f1(*_hits(truth, named, axis=1))


def mean_average_precision(truth: Array, proba: Array) -> float:
    """The mean, over labels that some row has, of average precision; 0 where no row has a label.

    Average precision is Σ (R_k - R_k-1) P_k over the distinct probabilities, highest first: precision at each, weighted
    by what recall it adds, without interpolation. Rows of equal probability count together. Source: C. Manning et al.,
    Introduction to Information Retrieval (2008), section 8.4. Both (n, L).
    """
    found = []
    for label in np.flatnonzero(truth.any(axis=0)):
        order = np.argsort(-proba[:, label], kind="stable")
        ranked, right = proba[order, label], truth[order, label].cumsum()
        ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
        recall = right[ends] / right[-1]
        found.append(float(np.sum(np.diff(recall, prepend=0.0) * right[ends] / (ends + 1))))
    return float(np.mean(found)) if found else 0.0


def _hits(truth: Array, named: Array, axis: int) -> tuple[Array, Array, Array]:
    """Labels rightly named, labels named, labels there, counted along an axis."""
    there = truth > 0.5
    return (there & named).sum(axis=axis), named.sum(axis=axis), there.sum(axis=axis)


def _f1(both: Array, named: Array, there: Array) -> Array:
    total = np.asarray(named + there)
    return np.where(total > 0, 2 * both / np.maximum(total, 1), 1.0)


def _clipped(proba: Array) -> Array:
    return np.clip(proba, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
