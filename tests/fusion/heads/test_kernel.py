"""The kernel head against scikit-learn's own support vector machines."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC, SVR

from mmcore.errors import FusionError
from mmcore.fusion.heads import kernel
from mmcore.fusion.heads.kernel import EPSILON, KernelHead, gaussian
from tests.fusion.heads.rows import rows, target_of

WEIGHTS = np.random.default_rng(1).integers(1, 4, 250).astype(float)


def weighted_gamma(X: np.ndarray) -> float:
    twice = np.repeat(X, WEIGHTS.astype(int), axis=0)
    return 1 / (X.shape[1] * ((twice - twice.mean(axis=0)) ** 2).mean())


@pytest.mark.parametrize("task", ["classes", "multilabel"])
def test_it_is_one_machine_of_scikit_learn_per_class_or_label(task) -> None:
    X, y = rows(task, 250)
    held = rows(task, 100, 1)
    head = KernelHead(target_of(task, y), C=3.0).fit(X, y, WEIGHTS, held)
    truth = y[:, None] == np.arange(3) if task == "classes" else y > 0
    peers = [SVC(C=3.0, gamma=weighted_gamma(X)).fit(X, one, WEIGHTS).decision_function(held[0]) for one in truth.T]
    expected = np.stack(peers, axis=1)
    outputs = head.outputs(held[0])
    sharpness = (outputs * expected).sum() / (expected**2).sum()
    # libsvm stops at a tolerance of 1e-3 and adds in another order.
    np.testing.assert_allclose(outputs / sharpness, expected, atol=2e-3)


def test_numbers_are_scikit_learns_regression() -> None:
    X, y = rows("regression", 250)
    target = target_of("regression", y, WEIGHTS)
    head = KernelHead(target, C=3.0).fit(X, y, WEIGHTS)
    peer = SVR(C=3.0, gamma=weighted_gamma(X), epsilon=EPSILON)
    peer.fit(X, (y - target.prior[0]) / target.spread, WEIGHTS)
    np.testing.assert_allclose(
        head.outputs(X), peer.predict(X) * target.spread + target.prior[0], atol=2e-3 * target.spread
    )


def test_from_the_saved_arrays_it_is_the_library_s_own_decision() -> None:
    X, y = rows("multilabel", 250)
    head = KernelHead(target_of("multilabel", y[:, :1]), C=1.0).fit(X, y[:, :1], np.ones(250))
    machine = SVC(kernel="precomputed", C=1.0).fit(rbf_kernel(X, gamma=head.gamma), y[:, 0] > 0)
    decision = machine.decision_function(rbf_kernel(X, gamma=head.gamma))
    sharpness = head.intercepts[0] / machine.intercept_[0]
    np.testing.assert_allclose(head.outputs(X)[:, 0], sharpness * decision, atol=1e-6)
    assert len(head.support) == len(machine.support_) < 250


def test_a_weight_of_two_is_a_row_given_twice() -> None:
    X, y = rows("classes", 250)
    held = rows("classes", 100, 1)
    target = target_of("classes", y, WEIGHTS)
    twice = np.repeat(np.arange(250), WEIGHTS.astype(int))
    weighted = KernelHead(target, C=1.0).fit(X, y, WEIGHTS, held)
    repeated = KernelHead(target, C=1.0).fit(X[twice], y[twice], np.ones(len(twice)), held)
    np.testing.assert_allclose(weighted.outputs(held[0]), repeated.outputs(held[0]), atol=0.02)


def test_rows_it_did_not_learn_from_set_the_sharpness_without_validation() -> None:
    random = np.random.default_rng(0)
    X, y = rows("classes", 400)
    noisy = np.where(random.random(400) < 0.3, random.integers(0, 3, 400), y)
    clean = KernelHead(target_of("classes", y), C=10.0, random_state=0).fit(X, y, np.ones(400))
    unsure = KernelHead(target_of("classes", noisy), C=10.0, random_state=0).fit(X, noisy, np.ones(400))
    other = rows("classes", 400, 1)[0]
    assert np.ptp(unsure.outputs(other), axis=1).mean() < 0.5 * np.ptp(clean.outputs(other), axis=1).mean()
    assert expit(clean.outputs(other)).max() > 0.9


def test_the_gaussian_kernel_is_scikit_learns() -> None:
    A, B = rows("classes", 20)[0], rows("classes", 30, 1)[0]
    np.testing.assert_allclose(gaussian(A, B, 0.7), rbf_kernel(A, B, gamma=0.7), rtol=1e-12)


def test_more_rows_than_the_gram_matrix_has_room_for_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(kernel, "MAX_GRAM_BYTES", 8 * 100**2)
    X, y = rows("classes", 101)
    with pytest.raises(FusionError, match="100 rows at most, got 101"):
        KernelHead(target_of("classes", y)).fit(X, y, np.ones(101))
