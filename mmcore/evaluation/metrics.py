"""Scores of predictions, as pure functions of NumPy arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmcore.fusion.scores import SMALLEST_PROBABILITY, Array, accuracy, confusion_matrix, log_loss, macro_f1

__all__ = [
    "SMALLEST_PROBABILITY",
    "Array",
    "CalibrationBin",
    "accuracy",
    "calibration",
    "confusion_matrix",
    "log_loss",
    "macro_f1",
]


@dataclass(frozen=True)
class CalibrationBin:
    """The rows whose highest probability lies above `low` and up to `high`."""

    low: float
    high: float
    n: int
    confidence: float | None
    """Their mean highest probability; None where there are no rows."""
    accuracy: float | None


def calibration(truth: Array, proba: Array, bins: int = 10) -> tuple[float, list[CalibrationBin]]:
    """The expected calibration error (0 to 1) and its equally wide bins over the highest probability of each row.

    The error is the mean over rows of |accuracy - mean confidence| of the row's bin. Source: C. Guo et al., On
    calibration of modern neural networks, ICML 2017, equation 3. `truth` (n,), `proba` (n, n_classes).
    """
    confidence = proba.max(axis=1).astype(float)
    right = proba.argmax(axis=1) == truth
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    found, error = [], 0.0
    for b in range(bins):
        rows = which == b
        n = int(rows.sum())
        sure, good = (float(confidence[rows].mean()), float(right[rows].mean())) if n else (None, None)
        if sure is not None and good is not None:
            error += n / len(truth) * abs(good - sure)
        found.append(CalibrationBin(float(edges[b]), float(edges[b + 1]), n, sure, good))
    return error, found
