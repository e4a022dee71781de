"""Scores against scikit-learn, SciPy and brute force."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as peer

from mmcore.evaluation.metrics import (
    accuracy,
    calibration,
    confusion_matrix,
    log_loss,
    macro_f1,
    paired_difference,
    wilson_interval,
)


def _predictions(seed: int, n: int, n_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(n_classes, size=n)
    logits = rng.normal(size=(n, n_classes)) + 1.5 * np.eye(n_classes)[truth]
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return truth, proba, proba.argmax(axis=1)


@pytest.mark.parametrize(("n", "n_classes"), [(1, 2), (50, 2), (300, 10), (150, 100)])
def test_equal_scikit_learn(n: int, n_classes: int) -> None:
    truth, proba, predicted = _predictions(n, n, n_classes)
    matrix = confusion_matrix(truth, predicted, n_classes)
    labels = np.arange(n_classes)
    np.testing.assert_array_equal(matrix, peer.confusion_matrix(truth, predicted, labels=labels))
    assert accuracy(truth, predicted) == pytest.approx(peer.accuracy_score(truth, predicted))
    assert macro_f1(matrix) == pytest.approx(peer.f1_score(truth, predicted, labels=np.unique(truth), average="macro"))
    assert log_loss(truth, proba) == pytest.approx(peer.log_loss(truth, proba, labels=labels))


def test_log_loss_of_certainty() -> None:
    sure = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert log_loss(np.array([0, 0]), sure) == pytest.approx(0, abs=1e-14)
    assert log_loss(np.array([1, 1]), sure) == pytest.approx(-math.log(1e-15))


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 40), (40, 40), (3, 7), (484, 500), (99_999, 100_000)])
def test_wilson_equals_scipy(right: int, n: int) -> None:
    wanted = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson_interval(right, n) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_paired_difference_against_resampled_rows() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.random(400) < 0.8, rng.random(400) < 0.75
    found = paired_difference(first, second)
    rows = rng.integers(400, size=(10_000, 400))
    low, high = np.quantile(first[rows].mean(axis=1) - second[rows].mean(axis=1), [0.025, 0.975])
    assert found.difference == pytest.approx(first.mean() - second.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.004)
    assert found.only_first == sum(a and not b for a, b in zip(first, second, strict=True))
    assert paired_difference(first, second) == found, "seeded"


def test_paired_difference_of_equal_and_opposite_models() -> None:
    right = np.array([True, False, True])
    assert paired_difference(right, right).high == 0
    assert paired_difference(right, right).low == 0
    every = paired_difference(np.ones(9, bool), np.zeros(9, bool))
    assert (every.difference, every.low, every.high) == (1, 1, 1)


def test_paired_difference_covers_the_truth() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        first, second = rng.random(300) < 0.8, rng.random(300) < 0.75
        found = paired_difference(first, second, resamples=2_000)
        inside += found.low <= 0.05 <= found.high
    assert 0.91 < inside / 400 < 0.985


def test_calibration_by_hand() -> None:
    truth = np.array([0, 0, 1, 1])
    proba = np.array([[0.95, 0.05], [0.95, 0.05], [0.6, 0.4], [0.3, 0.7]])
    error, bins = calibration(truth, proba)
    assert error == pytest.approx(0.5 * 0.05 + 0.25 * 0.6 + 0.25 * 0.3)
    assert [b.n for b in bins] == [0, 0, 0, 0, 0, 1, 1, 0, 0, 2]
    assert bins[0].accuracy is None
    assert bins[9].confidence == pytest.approx(0.95)


def test_calibration_counts_every_row() -> None:
    truth, proba, _ = _predictions(3, 500, 5)
    error, bins = calibration(truth, proba)
    assert sum(b.n for b in bins) == 500
    assert 0 <= error <= 1


def test_metrics_take_nothing_but_numpy() -> None:
    heavy = "('torch', 'sklearn', 'scipy', 'pyarrow')"
    code = f"import sys, mmcore.evaluation.metrics; sys.exit(any(m in sys.modules for m in {heavy}))"
    subprocess.run([sys.executable, "-c", code], check=True)
