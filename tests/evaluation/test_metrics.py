"""Scores against scikit-learn and by hand."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics as peer

from mmcore.evaluation.metrics import (
    accuracy,
    calibration,
    confusion_matrix,
    log_loss,
    macro_f1,
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
