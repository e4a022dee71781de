"""Kernel methods against scikit-learn's machines, the figures of mfeat, and what they keep of their training rows."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from mmcore.config.fusion import FusionConfig
from mmcore.errors import FusionError
from mmcore.fusion import kernel_fusion
from mmcore.fusion.data import View, Views
from mmcore.fusion.mkl import AverageKernelFusion, EasyMklFusion, KernelAlignmentFusion, LpMklFusion
from tests.fusion.conftest import made, read_mfeat

TRAIN, VAL, TEST = made(150), made(90, 1), made(90, 2)
ALL = [AverageKernelFusion, EasyMklFusion, LpMklFusion, KernelAlignmentFusion]


def _mean_of_kernels(fresh: Views, train: Views) -> np.ndarray:
    """Not centred; of views without absent rows."""
    total = 0.0
    for name, view in train.items():
        scaler = StandardScaler().fit(view.values.astype(np.float64))
        total = total + rbf_kernel(*(scaler.transform(views[name].values) for views in (fresh, train)))
    return total / 3


@pytest.fixture(scope="module")
def halves(mfeat_dir):
    """All of mfeat, and five halves of it."""
    parts = read_mfeat(mfeat_dir)
    views = Views(
        {
            name: np.concatenate([part.views[name].values for part in parts.values()])
            for name in ("fou", "fac", "kar", "pix", "zer", "mor")
        }
    )
    labels, rows = (np.concatenate([getattr(part, what) for part in parts.values()]) for what in ("labels", "keys"))
    order = np.argsort(rows.astype(int))
    splits = StratifiedShuffleSplit(5, train_size=0.5, random_state=0)
    return views[order], labels[order], list(splits.split(np.zeros(len(labels)), labels[order]))


def _scores(model, views: Views) -> np.ndarray:
    return model._scores(model._prepared(views))


def _accuracy(halves, make) -> float:
    views, labels, splits = halves
    hits = []
    for train, test in splits:
        # They only set the temperature, on which no accuracy depends: else rows would be held out, which takes longer.
        some = views[test[:50]], labels[test[:50]]
        hits.append(make().fit(views[train], labels[train], validation=some).score(views[test], labels[test]))
    return 100 * float(np.mean(hits))


@pytest.mark.parametrize(
    ("make", "peers"),
    [
        (AverageKernelFusion, 98.98),
        (EasyMklFusion, 99.04),
        (lambda: KernelAlignmentFusion(nonnegative=False), 91.84),
    ],
    ids=["average-kernel", "easymkl", "kernel-alignment"],
)
def test_accuracy_on_mfeat_is_that_of_the_peers(halves, make, peers: float) -> None:
    assert _accuracy(halves, make) == pytest.approx(peers, abs=0.3)


@pytest.mark.parametrize("make", [LpMklFusion, KernelAlignmentFusion])
def test_the_other_weights_do_no_harm_on_mfeat(halves, make) -> None:
    assert _accuracy((*halves[:2], halves[2][:2]), make) > 98.98 - 0.3


def test_500_landmarks_are_within_half_a_point_of_exact_kernels_on_mfeat(halves, monkeypatch) -> None:
    one = *halves[:2], halves[2][:1]
    exact = _accuracy(one, AverageKernelFusion)
    monkeypatch.setattr(kernel_fusion, "landmarks_within", lambda *_: 500)
    assert _accuracy(one, AverageKernelFusion) == pytest.approx(exact, abs=0.5)


# What the methods are


def test_the_average_kernel_is_scikit_learns_machine_on_the_mean_of_kernels() -> None:
    model = AverageKernelFusion().fit(TRAIN.views, TRAIN.labels, validation=VAL)
    peer = OneVsRestClassifier(SVC(C=10, kernel="precomputed", tol=1e-4))
    peer.fit(_mean_of_kernels(TRAIN.views, TRAIN.views), TRAIN.labels)
    scores = peer.decision_function(_mean_of_kernels(TEST.views, TRAIN.views))
    # Centring does not move a machine with an intercept.
    np.testing.assert_allclose(_scores(model, TEST.views), scores, atol=5e-3)
    np.testing.assert_allclose(model.kernel_weights_, 1 / 3)


def test_two_classes_are_one_machine() -> None:
    rows = np.flatnonzero(TRAIN.labels != "c")
    train, held = TRAIN[rows], VAL[np.flatnonzero(VAL.labels != "c")]
    model = AverageKernelFusion().fit(train.views, train.labels, validation=held)
    peer = SVC(C=10, kernel="precomputed", tol=1e-4).fit(_mean_of_kernels(train.views, train.views), train.labels)
    scores = peer.decision_function(_mean_of_kernels(TEST.views, train.views))
    np.testing.assert_allclose(_scores(model, TEST.views)[:, 0], scores, atol=5e-3)
    assert (model.predict(TEST.views)[np.abs(scores) > 0.01] == "b").sum() == (scores > 0.01).sum()


def test_numbers_are_support_vector_regression_in_units_of_their_deviation() -> None:
    target = 1000.0 + 50.0 * TRAIN.views["text"].values[:, 0].astype(np.float64)
    model = AverageKernelFusion(task="regression").fit(TRAIN.views, target)
    peer = SVR(C=10, epsilon=0.1, kernel="precomputed", tol=1e-4)
    peer.fit(_mean_of_kernels(TRAIN.views, TRAIN.views), (target - target.mean()) / target.std())
    expected = peer.predict(_mean_of_kernels(TEST.views, TRAIN.views)) * target.std() + target.mean()
    np.testing.assert_allclose(model.predict(TEST.views), expected, atol=0.01 * target.std())


@pytest.mark.parametrize("kind", ALL)
def test_a_view_of_noise_counts_least_where_weights_are_learned(kind) -> None:
    random = np.random.default_rng(0)
    views = {**dict(TRAIN.views.items()), "noise": random.normal(size=(len(TRAIN), 5))}
    model = kind().fit(views, TRAIN.labels)
    assert model.kernel_weights_.shape == (3, 4)
    assert list(model.curves_["kernel_weights"]) == ["image", "audio", "text", "noise"]
    if kind is not AverageKernelFusion:
        assert (model.kernel_weights_[:, 3] <= model.kernel_weights_.min(axis=1)).all()


def test_each_view_gets_every_kernel_and_gamma() -> None:
    model = EasyMklFusion(kernels=["rbf", "linear"], gamma=[0.5, 2.0]).fit(TRAIN.views, TRAIN.labels)
    names = [f"{view} {kernel}" for view in TRAIN.views for kernel in ("rbf 0.5", "rbf 2", "linear")]
    assert list(model.curves_["kernel_weights"]) == names
    assert model.score(TEST.views, TEST.labels) > 0.9


def test_chi2_kernels_take_histograms_without_scaling() -> None:
    powers = {name: np.exp(view.values) for name, view in TRAIN.views.items()}
    shares = {name: values / values.sum(axis=1)[:, None] for name, values in powers.items()}
    model = AverageKernelFusion(kernels="chi2", scaling="none").fit(shares, TRAIN.labels)
    assert model.score(shares, TRAIN.labels) > 0.9
    with pytest.raises(FusionError, match="chi2 kernel needs features that are not negative"):
        AverageKernelFusion(kernels="chi2").fit(shares, TRAIN.labels)


def test_easymkl_says_that_it_learns_no_numbers() -> None:
    with pytest.raises(FusionError, match="EasyMklFusion learns classes, multilabel, not regression"):
        EasyMklFusion(task="regression").fit(TRAIN.views, np.arange(150.0))


# Missing views, weights, probabilities


@pytest.mark.parametrize("kind", ALL)
def test_an_absent_view_stands_at_the_training_rows_mean(kind) -> None:
    """In a linear kernel's space the mean is a point that can be given."""
    data = made(150, missing=0.3)
    model = kind(kernels="linear").fit(data.views, data.labels, validation=VAL)
    view = data.views["audio"]
    middle = np.tile(view.values[view.present].astype(np.float64).mean(axis=0), (len(TEST), 1))
    there = model.predict_log_proba({**dict(TEST.views.items()), "audio": middle})
    np.testing.assert_allclose(model.predict_log_proba(TEST.views.without("audio")), there, atol=1e-6)


def test_a_view_that_no_labelled_row_has_adds_nothing() -> None:
    present = np.arange(150) % 2 == 0
    views = Views({**dict(TRAIN.views.items()), "audio": View(TRAIN.views["audio"].values, present)})
    labels = np.where(present, None, TRAIN.labels)
    for memory in (1 << 30, 800_000):
        model = AverageKernelFusion(memory_bytes=memory, landmarks=40).fit(views, labels, validation=VAL)
        first = model.predict_proba(TEST.views)
        np.testing.assert_allclose(first, model.predict_proba(TEST.views.without("audio")))


@pytest.mark.parametrize("kind", ALL)
def test_a_weight_of_two_is_a_row_given_twice_and_of_zero_none(kind) -> None:
    data = made(120, missing=0.3)
    weights = np.random.default_rng(0).integers(0, 3, 120)
    twice = data[np.repeat(np.arange(120), weights)]
    weighted = kind().fit(data.views, data.labels, sample_weight=weights, validation=VAL)
    repeated = kind().fit(twice.views, twice.labels, validation=VAL)
    np.testing.assert_allclose(weighted.predict_proba(TEST.views), repeated.predict_proba(TEST.views), atol=5e-3)


@pytest.mark.parametrize("validation", [None, VAL])
def test_probabilities_are_calibrated_with_and_without_validation_rows(validation) -> None:
    model = AverageKernelFusion().fit(TRAIN.views, TRAIN.labels, validation=validation)
    codes, outputs = model.label_codes(TEST.labels), model.predict_log_proba(TEST.views)
    best = min(model.target_.loss(sharpness * outputs, codes) for sharpness in np.geomspace(0.2, 5.0, 50))
    assert model.target_.loss(outputs, codes) < best + 0.05


def test_rare_labels_are_as_probable_as_they_are_frequent() -> None:
    random = np.random.default_rng(0)
    labels = np.stack([random.random(150) < 0.1, TRAIN.labels == "a"], axis=1).astype(int)
    model = AverageKernelFusion(task="multilabel").fit(TRAIN.views, labels)
    assert model.predict_proba(TEST.views)[:, 0].mean() == pytest.approx(labels[:, 0].mean(), abs=0.06)
    # A label that every row has, or too few rows to hold any out.
    for y, rows in ((np.ones((150, 1), int), slice(None)), (labels, slice(0, 5))):
        few = AverageKernelFusion(task="multilabel").fit(TRAIN.views[rows], y[rows])
        assert np.isfinite(few.predict_proba(TEST.views)).all()


def test_classes_with_one_row_are_not_calibrated() -> None:
    rows = np.r_[0:30:3, 1:30:3, 2]
    model = AverageKernelFusion().fit(TRAIN.views[rows], TRAIN.labels[rows])
    assert (model.slopes_ == 1).all()


# What is kept


def test_the_model_keeps_the_rows_that_carry_it_and_says_so(tmp_path) -> None:
    model = AverageKernelFusion().fit(TRAIN.views, TRAIN.labels)
    model.save(tmp_path)
    kept = load_file(tmp_path / "model.safetensors")["kernels.image.rows"]
    rows = model._prepared(TRAIN.views)["image"].values
    assert 0 < len(kept) < len(TRAIN)
    assert {row.tobytes() for row in kept} < {row.tobytes() for row in rows}
    assert json.loads((tmp_path / "model.json").read_text())["facts"]["contains_training_rows"] is True
    assert not list(tmp_path.glob("*.pkl"))


def test_too_little_memory_means_landmarks_said_in_the_log_and_in_the_model(caplog) -> None:
    exact = LpMklFusion(memory_bytes=2_000_000).fit(TRAIN.views, TRAIN.labels, validation=VAL)
    assert exact.curves_["landmarks"] is None
    with caplog.at_level(logging.WARNING):
        model = LpMklFusion(memory_bytes=800_000, landmarks=30).fit(TRAIN.views, TRAIN.labels, validation=VAL)
    assert "150 rows" in caplog.text
    assert "Nyström approximation with 30 landmarks" in caplog.text
    assert model.curves_["landmarks"] == 30
    assert all(len(machine.rows) == 30 for machine in model.expansions_.values())
    # Weights from as many rows as fit.
    np.testing.assert_allclose(model.kernel_weights_, exact.kernel_weights_, atol=0.1)
    assert model.score(TEST.views, TEST.labels) > exact.score(TEST.views, TEST.labels) - 0.05
    with pytest.raises(FusionError, match="nonnegative: false needs exact kernels"):
        KernelAlignmentFusion(nonnegative=False, memory_bytes=800_000, kernels=["rbf", "linear", "cosine"]).fit(
            {"a": TRAIN.views["image"], "noise": np.random.default_rng(3).normal(size=(150, 2))}, TRAIN.labels
        )


def test_settings_read_sizes_and_refuse_what_cannot_be() -> None:
    methods = [{"method": "lpmkl", "memory_bytes": "2GiB", "kernels": ["rbf", "linear"], "gamma": [0.5, 1]}, "easymkl"]
    lpmkl, easymkl = FusionConfig.model_validate({"methods": methods}).methods
    assert lpmkl.memory_bytes == 2 << 30
    assert easymkl.memory_bytes == EasyMklFusion().memory_bytes == 1 << 30
    for wrong in ({"p": 0.5}, {"kernels": "sigmoid"}, {"kernels": []}, {"gamma": 0}, {"memory_bytes": "much"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            FusionConfig.model_validate({"methods": [{"method": "lpmkl", **wrong}]})
