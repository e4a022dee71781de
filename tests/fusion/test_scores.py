"""Scores of several labels and of numbers against scikit-learn; that rows' scores add up to the headline."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as peer

from mmcore.config.metrics import CHOSEN_BY, LOWER_IS_BETTER, METRIC_WORDS, METRICS, headline
from mmcore.fusion.scores import all_scores, mean_average_precision, row_scores


def _labels(n: int, labels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, labels)) < 0.3).astype(float)
    # Rounded, so that there are ties.
    return truth, np.round(np.clip(0.35 * truth + rng.random((n, labels)) * 0.65, 0.001, 0.999), 2)


@pytest.mark.parametrize(("n", "labels"), [(40, 2), (200, 7), (500, 30)])
def test_several_labels_equal_scikit_learn(n: int, labels: int) -> None:
    truth, proba = _labels(n, labels)
    named = (proba > 0.5).astype(int)
    found = all_scores("multilabel", truth, proba)
    assert found["subset_accuracy"] == pytest.approx(peer.accuracy_score(truth, named))
    assert found["label_accuracy"] == pytest.approx(1 - peer.hamming_loss(truth, named))
    assert found["micro_f1"] == pytest.approx(peer.f1_score(truth, named, average="micro"))
    assert found["macro_f1"] == pytest.approx(peer.f1_score(truth, named, average="macro"))
    assert found["sample_f1"] == pytest.approx(peer.f1_score(truth, named, average="samples", zero_division=1.0))
    assert found["log_loss"] == pytest.approx(
        np.mean([peer.log_loss(t, p) for t, p in zip(truth.T, proba.T, strict=True)])
    )
    assert found["mean_average_precision"] == pytest.approx(peer.average_precision_score(truth, proba, average="macro"))


def test_a_label_that_no_row_has_is_no_part_of_means_over_labels() -> None:
    truth, proba = _labels(60, 5)
    truth[:, 2] = 0
    found = all_scores("multilabel", truth, proba)
    others = [0, 1, 3, 4]
    assert found["mean_average_precision"] == pytest.approx(
        peer.average_precision_score(truth[:, others], proba[:, others])
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        each = peer.f1_score(truth, proba > 0.5, average=None, zero_division=0.0)
    assert found["macro_f1"] == pytest.approx(each[others].mean())
    nothing = np.zeros((3, 2))
    assert all_scores("multilabel", nothing, nothing)["sample_f1"] == 1
    assert mean_average_precision(nothing, nothing) == 0


def test_numbers_equal_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(30, 7, 150)
    values = truth + rng.normal(0, 3, 150)
    found = all_scores("regression", truth, values)
    assert found["r2"] == pytest.approx(peer.r2_score(truth, values))
    assert found["rmse"] == pytest.approx(peer.root_mean_squared_error(truth, values))
    assert found["mae"] == pytest.approx(peer.mean_absolute_error(truth, values))
    mean = all_scores("regression", truth, np.full(150, truth.mean()))
    assert mean["r2"] == pytest.approx(0)


def test_numbers_that_are_all_equal() -> None:
    same = np.full(5, 2.0)
    assert all_scores("regression", same, same)["r2"] == peer.r2_score(same, same) == 1
    assert all_scores("regression", same, same + 1)["r2"] == peer.r2_score(same, same + 1) == 0


@pytest.mark.parametrize("task", METRICS)
def test_rows_add_up_to_the_headline(task: str) -> None:
    rng = np.random.default_rng(1)
    truth, predictions = _labels(80, 4)
    if task == "classes":
        truth = truth.argmax(axis=1)
    elif task == "regression":
        truth, predictions = rng.normal(size=80), rng.normal(size=80)
    found = all_scores(task, truth, predictions)
    assert tuple(found) == METRICS[task]
    assert row_scores(task, truth, predictions).mean() == pytest.approx(found[headline(task)])


def test_every_metric_has_a_word_and_a_direction() -> None:
    names = {name for metrics in METRICS.values() for name in metrics}
    assert names == set(METRIC_WORDS)
    assert names >= LOWER_IS_BETTER
    assert all(headline(task) not in LOWER_IS_BETTER and CHOSEN_BY[task] in METRICS[task] for task in METRICS)


def test_a_class_that_no_row_has_counts_for_nothing() -> None:
    found = all_scores("classes", np.array([0, 0, 1]), np.eye(3)[[0, 2, 1]])
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
