from __future__ import annotations

import numpy as np
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mmcore.fusion.late import LateFusion
from tests.fusion.conftest import made

TRAIN, VAL = made(150, 0, 0.3), made(90, 1, 0.3)


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
