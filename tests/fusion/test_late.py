from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from mmcore.fusion.base import FitRun, Rows
from mmcore.fusion.heads.linear import LinearHead
from mmcore.fusion.late import LateFusion
from tests.fusion.conftest import made

TRAIN, VAL, TEST = made(150, 0, 0.3), made(90, 1, 0.3), made(90, 2)


def test_it_is_the_sum_of_log_probabilities_of_separate_classifiers() -> None:
    model = LateFusion(C=0.5).fit(TRAIN.views, TRAIN.labels)
    total = np.zeros((len(VAL), 3))
    for name, view in TRAIN.views.items():
        there = view.present
        scaler = StandardScaler().fit(view.values[there].astype(float))
        peer = LogisticRegression(C=0.5, tol=1e-8, max_iter=5000)
        peer.fit(scaler.transform(view.values[there].astype(float)), TRAIN.labels[there])
        other = VAL.views[name]
        total[other.present] += peer.predict_log_proba(scaler.transform(other.values[other.present].astype(float)))
    np.testing.assert_allclose(model.predict_log_proba(VAL.views), log_softmax(total, axis=1), atol=2e-3)
    np.testing.assert_array_equal(model.predict(VAL.views), model.classes_[total.argmax(axis=1)])


def test_the_fused_point_is_the_mean_of_the_present_log_probabilities() -> None:
    model = LateFusion(C=0.5).fit(TRAIN.views, TRAIN.labels)
    points = np.stack(list(model.transform(VAL.views).values()))
    np.testing.assert_allclose(model.fuse(VAL.views), np.nanmean(points, axis=0))


def test_one_modality_is_its_own_classifier_and_the_prior_where_absent() -> None:
    model = LateFusion(modalities=["audio"]).fit(TRAIN.views, TRAIN.labels, validation=VAL)
    proba = model.predict_proba(VAL.views)
    absent = ~VAL.views["audio"].present
    assert absent.any()
    np.testing.assert_allclose(proba[absent], np.tile(model.prior_, (absent.sum(), 1)))
    np.testing.assert_array_equal(model.unknown(VAL.views), absent)
    points = model.transform(VAL.views)["audio"]
    np.testing.assert_allclose(proba[~absent], np.exp(points[~absent]))


def test_validation_sets_the_sharpness() -> None:
    plain = LateFusion(C=0.5).fit(TRAIN.views, TRAIN.labels)
    assert plain.combiner_.sharpness == 1.0
    assert LateFusion(C=0.5).fit(TRAIN.views, TRAIN.labels, validation=VAL).combiner_.sharpness != 1.0


@pytest.mark.parametrize(
    ("combine", "head"),
    [("mean", "network"), *itertools.product(["mean", "learned", "stacking"], ["linear", "kernel", "tree"])],
)
def test_combinations_of_each_head_learn_each_task(combine: str, head: str, tmp_path) -> None:
    numbers = {"a": 100.0, "b": 120.0, "c": 170.0}
    for task, y_of, least in (
        ("classes", lambda rows: rows.labels, 0.8),
        ("multilabel", lambda rows: np.stack([rows.labels == "a", rows.labels != "b"], axis=1), 0.7),
        ("regression", lambda rows: np.array([numbers[label] for label in rows.labels]), 0.5),
    ):
        model = LateFusion(combine=combine, head=head, C=1.0, task=task)
        model.fit(TRAIN.views, y_of(TRAIN), validation=(VAL.views, y_of(VAL)))
        assert model.score(TEST.views, y_of(TEST)) > least, task
        model.save(tmp_path)
        np.testing.assert_array_equal(LateFusion.load(tmp_path).predict(TEST.views), model.predict(TEST.views))
        assert model.contains_training_rows == (head == "kernel")


@pytest.mark.parametrize("combine", ["product", "mean", "learned", "stacking"])
@pytest.mark.parametrize("weighed", [True, False])
@pytest.mark.parametrize("task", ["classes", "regression"])
def test_a_modality_that_no_labelled_row_has_is_left_out(task: str, weighed: bool, combine: str, tmp_path) -> None:
    numbers = {"a": 100.0, "b": 120.0, "c": 170.0}
    y, y_val = (
        rows.labels.astype(object) if task == "classes" else np.array([numbers[label] for label in rows.labels])
        for rows in (TRAIN, VAL)
    )
    text = TRAIN.views["text"].present
    unlabelled, weights = text, None
    if weighed:
        # One unlabelled row has it, else only rows that weigh nothing.
        unlabelled = text & (np.cumsum(text) == 1)
        weights = np.where(text & ~unlabelled, 0.0, 1.0)
    y[unlabelled] = None if task == "classes" else np.nan
    views = VAL.views
    for validation in (None, (VAL.views, y_val)):
        model = LateFusion(C=1.0, combine=combine, task=task)
        model.fit(TRAIN.views, y, validation=validation, sample_weight=weights)
        others = LateFusion(C=1.0, combine=combine, task=task, modalities=["image", "audio"])
        others.fit(TRAIN.views, y, validation=validation, sample_weight=weights)
        np.testing.assert_allclose(model._finished(views), others._finished(views))
        alone = {"text": views["text"]}
        assert model.unknown(alone).all()
        np.testing.assert_allclose(model.fuse(alone), model.transform(alone)["text"])
        there = views["text"].present
        assert np.isfinite(model.fuse(alone)[there]).all()
        model.save(tmp_path)
        loaded = LateFusion.load(tmp_path)
        np.testing.assert_array_equal(loaded.predict(views), model.predict(views))
        np.testing.assert_array_equal(loaded.fuse(views), model.fuse(views))


def test_the_mean_is_that_of_separate_classifiers_probabilities() -> None:
    model = LateFusion(C=0.5, combine="mean").fit(TRAIN.views, TRAIN.labels)
    points = np.stack(list(model.transform(VAL.views).values()))
    np.testing.assert_allclose(model.predict_proba(VAL.views), np.nanmean(points, axis=0), atol=1e-9)


def test_stacking_learns_from_classifiers_that_did_not_see_the_rows() -> None:
    # A head that knows its rows by heart is not believed.
    random = np.random.default_rng(0)
    noise = random.normal(size=(150, 300))
    views = {"noise": noise, "image": TRAIN.views["image"]}
    test = {"noise": random.normal(size=(90, 300)), "image": TEST.views["image"]}
    alone = LateFusion(C=10.0, modalities=["image"]).fit(views, TRAIN.labels).score(test, TEST.labels)
    product = LateFusion(C=10.0).fit(views, TRAIN.labels).score(test, TEST.labels)
    stacked = LateFusion(C=10.0, combine="stacking").fit(views, TRAIN.labels).score(test, TEST.labels)
    learned = LateFusion(C=10.0, combine="learned").fit(views, TRAIN.labels)
    assert product < alone - 0.05
    assert stacked > alone - 0.05
    assert learned.combiner_.weights[0] < 0.1


def test_out_of_fold_scores_are_those_of_heads_fitted_without_the_fold() -> None:
    model = LateFusion(C=0.5, combine="stacking").fit(TRAIN.views, TRAIN.labels)
    rows = model._prepared(TRAIN.views)
    codes = model.label_codes(TRAIN.labels)
    train = Rows(rows, codes, np.ones(len(codes)), np.ones(len(codes), bool))
    scores = model._out_of_fold(train, None, FitRun())
    there = np.flatnonzero(rows["text"].present)
    fit, held = next(StratifiedKFold(5, shuffle=True, random_state=0).split(there, codes[there]))
    head = LinearHead(model.target_, C=0.5).fit(rows["text"].values[there[fit]], codes[there[fit]], np.ones(len(fit)))
    expected = log_softmax(head.outputs(rows["text"].values[there[held]]), axis=1)
    np.testing.assert_allclose(scores.outputs[there[held], 2], expected, atol=1e-9)
