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
    """`log_loss`, `accuracy` and `macro_f1` of `model` on `rows`, as the test split's are computed."""
    truth = model.label_codes(rows.labels)
    proba = model.predict_proba(rows.views)
    predicted = proba.argmax(axis=1)
    return {
        "log_loss": log_loss(truth, proba),
        "accuracy": accuracy(truth, predicted),
        "macro_f1": macro_f1(confusion_matrix(truth, predicted, proba.shape[1])),
    }


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
    return float(-np.mean(np.log(np.clip(right, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY))))
