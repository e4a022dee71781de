"""The tree head against LightGBM's own estimators."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.ensemble import HistGradientBoostingClassifier

from mmcore.errors import FusionError
from mmcore.fusion.heads.folds import held_out
from mmcore.fusion.heads.tree import BINS, FEW_ROUNDS, LEARNING_RATE, LEAVES, MAX_ROUNDS, PATIENCE, TreeHead
from tests.fusion.heads.rows import rows, target_of

lightgbm = pytest.importorskip("lightgbm", reason="the extra `trees` is not installed")

SETTINGS = {
    "n_estimators": MAX_ROUNDS,
    "learning_rate": LEARNING_RATE,
    "num_leaves": LEAVES,
    "max_bin": BINS,
    "min_child_samples": 15,
    "reg_lambda": 0.5,
    "random_state": 0,
    "n_jobs": 1,
    "deterministic": True,
    "force_col_wise": True,
    "verbosity": -1,
}
WEIGHTS = np.random.default_rng(1).random(300) + 0.5


def peer(kind, X, y, held):
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    return kind(**SETTINGS).fit(X, y, sample_weight=WEIGHTS, eval_X=held[0], eval_y=held[1], callbacks=[stop])


def test_classes_are_the_library_s_probabilities() -> None:
    X, y = rows("classes", 300)
    held = rows("classes", 200, 1)
    head = TreeHead(target_of("classes", y), C=2.0, random_state=0).fit(X, y, WEIGHTS, held)
    expected = peer(lightgbm.LGBMClassifier, X, y, held).predict_proba(held[0])
    np.testing.assert_allclose(softmax(head.outputs(held[0]) / head.sharpness, axis=1), expected, atol=1e-6)
    assert 0 < head.tried["rounds"][0] < MAX_ROUNDS


def test_labels_are_one_of_the_library_s_models_each() -> None:
    X, y = rows("multilabel", 300)
    held = rows("multilabel", 200, 1)
    head = TreeHead(target_of("multilabel", y), C=2.0, random_state=0).fit(X, y, WEIGHTS, held)
    for label in range(3):
        expected = peer(lightgbm.LGBMClassifier, X, y[:, label], (held[0], held[1][:, label])).predict_proba(held[0])
        outputs = head.outputs(held[0])[:, label] / head.sharpness
        np.testing.assert_allclose(expit(outputs), expected[:, 1], atol=1e-6)


def test_numbers_are_the_library_s_regression() -> None:
    X, y = rows("regression", 300)
    held = rows("regression", 200, 1)
    target = target_of("regression", y)
    head = TreeHead(target, C=2.0, random_state=0).fit(X, y, WEIGHTS, held)
    mean, spread = target.prior[0], target.spread
    expected = peer(lightgbm.LGBMRegressor, X, (y - mean) / spread, (held[0], (held[1] - mean) / spread))
    np.testing.assert_allclose(head.outputs(X), expected.predict(X) * spread + mean, atol=1e-6 * spread)


def test_it_is_as_good_as_scikit_learns_boosting() -> None:
    X, y = rows("classes", 600)
    test = rows("classes", 1000, 2)
    head = TreeHead(target_of("classes", y), random_state=0).fit(X, y, np.ones(600))
    other = HistGradientBoostingClassifier(random_state=0).fit(X, y)
    right = (head.outputs(test[0]).argmax(axis=1) == test[1]).mean()
    assert right > (other.predict(test[0]) == test[1]).mean() - 0.02


def test_a_label_that_varies_only_in_the_part_to_stop_by_is_learned() -> None:
    X, y = rows("multilabel", 200)
    held = held_out(target_of("multilabel", y), y, 0)
    y[:, 1] = 0.0
    y[np.flatnonzero(held)[:6], 1] = 1.0
    target = target_of("multilabel", y)
    head = TreeHead(target, random_state=0).fit(X, y, np.ones(200))
    assert head.tried["rounds"][1] == FEW_ROUNDS
    # The rounds where no row can be spared to tell them, from all rows.
    several = TreeHead(target, C=head.tried["C"], random_state=0)
    text, _ = several._grown(head.tried["C"], (X, y[:, 1], np.ones(200)), None, FEW_ROUNDS)
    assert head.texts[1] == text
    assert target.loss(head.outputs(X), y) < target.loss(target.constant(200), y)


def test_the_number_of_threads_does_not_decide_the_trees() -> None:
    X, y = rows("classes", 300)
    one, two = (
        TreeHead(target_of("classes", y), C=1.0, random_state=0, threads=threads).fit(X, y, WEIGHTS)
        for threads in (1, 2)
    )
    np.testing.assert_array_equal(one.outputs(X), two.outputs(X))


def test_without_the_library_the_error_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    X, y = rows("classes", 50)
    with pytest.raises(FusionError, match=r"pip install 'mmcore\[trees\]'"):
        TreeHead(target_of("classes", y)).fit(X, y, np.ones(50))
