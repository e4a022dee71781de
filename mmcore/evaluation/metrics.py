"""Scores of predictions, as pure functions of NumPy arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mmcore.fusion.scores import SMALLEST_PROBABILITY, Array, accuracy, confusion_matrix, log_loss, macro_f1

__all__ = [
    "SMALLEST_PROBABILITY",
    "Array",
    "CalibrationBin",
    "Difference",
    "accuracy",
    "calibration",
    "confusion_matrix",
    "log_loss",
    "macro_f1",
    "paired_difference",
    "wilson_interval",
]


def wilson_interval(right: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval of a proportion (95% by default): lower and upper end in 0 to 1.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    share = right / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At 0 and n the ends are 0 and 1 exactly, and rounding could take them out of the range.
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


@dataclass(frozen=True)
class Difference:
    """The accuracy of one model minus that of another on the same rows, with a 95% interval."""

    difference: float
    low: float
    high: float
    only_first: int
    """Rows that only the first model has right."""
    only_second: int
    n: int


def paired_difference(first: Array, second: Array, *, seed: int = 0, resamples: int = 10_000) -> Difference:
    """Accuracy of `first` minus `second` (each (n,) of bool: right or wrong) with a paired bootstrap 95% interval.

    Rows are drawn with replacement, both models on the same draw; the interval's ends are the 2.5% and 97.5%
    quantiles of the differences. A draw is told by how many of its rows only one model has right, so that it is one
    multinomial draw, in memory that does not grow with n. Source: B. Efron and R. Tibshirani, An Introduction to the
    Bootstrap (1993), chapters 8 and 13.
    """
    n = len(first)
    only_first = int(np.sum(first & ~second))
    only_second = int(np.sum(second & ~first))
    shares = np.array([only_first, only_second, n - only_first - only_second]) / n
    draws = np.random.default_rng(seed).multinomial(n, shares, size=resamples)
    low, high = np.quantile((draws[:, 0] - draws[:, 1]) / n, [0.025, 0.975])
    return Difference((only_first - only_second) / n, float(low), float(high), only_first, only_second, n)


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
