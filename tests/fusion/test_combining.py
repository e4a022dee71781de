"""What classifiers say, combined: against formulas written out, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, log_softmax, logit
from sklearn.linear_model import LogisticRegression

from mmcore.fusion.combining import Pool, Scores, Stack, make_combiner
from mmcore.fusion.targets import calibrate, learn_target

RANDOM = np.random.default_rng(0)
N, M = 400, 3
PRESENT = RANDOM.random((N, M)) < 0.7
PRESENT[~PRESENT.any(axis=1), 0] = True
CODES = RANDOM.integers(0, 3, N)
LABELS = RANDOM.integers(0, 2, (N, 2)).astype(float)
NUMBERS = RANDOM.normal(size=N) * 10 + 50
WEIGHTS = RANDOM.integers(1, 3, N).astype(float)
# The second modality knows most, the third nothing.
KNOWN = np.array([1.0, 3.0, 0.0])


def classes() -> Scores:
    logits = KNOWN[:, None] * np.eye(3)[CODES][:, None, :] + RANDOM.normal(size=(N, M, 3))
    return Scores(log_softmax(logits, axis=2), PRESENT, CODES, WEIGHTS)


def labels() -> Scores:
    log_odds = KNOWN[:, None] * (2 * LABELS - 1)[:, None, :] + RANDOM.normal(size=(N, M, 2))
    return Scores(log_odds, PRESENT, LABELS, WEIGHTS)


def numbers() -> Scores:
    errors = RANDOM.normal(size=(N, M)) * [10.0, 2.0, 40.0]
    return Scores((NUMBERS[:, None] + errors)[:, :, None], PRESENT, NUMBERS, WEIGHTS)


def pool(task: str, combine: str, y: np.ndarray) -> Pool:
    return Pool(learn_target(task, y, np.ones(N)), combine, M)


def test_the_mean_of_probabilities() -> None:
    scores = classes()
    outputs = pool("classes", "mean", CODES).outputs(scores.outputs, PRESENT)
    for row in range(N):
        there = PRESENT[row]
        np.testing.assert_allclose(np.exp(outputs[row]), np.exp(scores.outputs[row, there]).mean(axis=0))
    several = labels()
    outputs = pool("multilabel", "mean", LABELS).outputs(several.outputs, PRESENT)
    for row in range(N):
        np.testing.assert_allclose(outputs[row], logit(expit(several.outputs[row, PRESENT[row]]).mean(axis=0)))
    numeric = numbers()
    outputs = pool("regression", "mean", NUMBERS).outputs(numeric.outputs, PRESENT)
    for row in range(N):
        np.testing.assert_allclose(outputs[row], numeric.outputs[row, PRESENT[row], 0].mean())


def test_the_product_adds_log_probabilities_and_log_odds() -> None:
    for task, y, scores in (("classes", CODES, classes()), ("multilabel", LABELS, labels())):
        outputs = pool(task, "product", y).outputs(scores.outputs, PRESENT)
        expected = np.where(PRESENT[:, :, None], scores.outputs, 0).sum(axis=1)
        np.testing.assert_allclose(outputs, expected)


def test_the_product_of_gaussians_weighs_by_precision() -> None:
    scores = numbers()
    model = pool("regression", "product", NUMBERS)
    model.fit(scores, None)
    squares = (scores.outputs[:, :, 0] - NUMBERS[:, None]) ** 2
    variances = [np.average(squares[PRESENT[:, m], m], weights=WEIGHTS[PRESENT[:, m]]) for m in range(M)]
    for row in range(N):
        there = np.flatnonzero(PRESENT[row])
        precise = np.array([1 / variances[m] for m in there])
        # Where Σ (y − ŷ_m)² / σ_m² is lowest.
        expected = (precise @ scores.outputs[row, there, 0]) / precise.sum()
        np.testing.assert_allclose(model.outputs(scores.outputs, PRESENT)[row], expected)


def test_numbers_of_a_modality_that_no_row_has_are_as_good_as_the_others_mean() -> None:
    scores, present = numbers(), PRESENT.copy()
    present[:, 2] = False
    model = pool("regression", "product", NUMBERS)
    model.fit(Scores(scores.outputs, present, NUMBERS, WEIGHTS), None)
    squares = (scores.outputs[:, :, 0] - NUMBERS[:, None]) ** 2
    errors = [np.average(squares[present[:, m], m], weights=WEIGHTS[present[:, m]]) for m in range(2)]
    precise = 1 / np.array([*errors, np.mean(errors)])
    np.testing.assert_allclose(model.weights, precise / precise.sum())


@pytest.mark.parametrize(
    ("task", "y", "make"),
    [("classes", CODES, classes), ("multilabel", LABELS, labels), ("regression", NUMBERS, numbers)],
)
def test_learned_weights_have_the_lowest_loss_on_the_simplex(task, y, make) -> None:
    scores = make()
    model = pool(task, "learned", y)
    model.fit(scores, None)

    def loss(weights: np.ndarray) -> float:
        other = pool(task, "learned", y)
        other.weights = weights
        said = other.outputs(scores.outputs, PRESENT)
        return other.target.loss(calibrate(other.target, said, y) * said, y, WEIGHTS)

    assert model.weights.sum() == pytest.approx(1.0)
    assert model.weights.argmax() == 1
    assert model.weights.argmin() == 2
    best = min(loss(np.array(w)) for w in np.random.default_rng(0).dirichlet(np.ones(M), 400))
    # The prior on the weights costs a little.
    assert loss(model.weights) < best + 0.02
    assert loss(model.weights) < loss(np.full(M, 1 / M))


def test_with_equal_classifiers_learned_weights_are_equal() -> None:
    one = log_softmax(RANDOM.normal(size=(N, 1, 3)), axis=2)
    model = pool("classes", "learned", CODES)
    model.fit(Scores(np.repeat(one, M, axis=1), np.ones((N, M), bool), CODES, WEIGHTS), None)
    np.testing.assert_allclose(model.weights, 1 / M, atol=1e-6)


def test_what_is_said_of_absent_modalities_does_not_matter() -> None:
    scores = classes()
    other = np.where(PRESENT[:, :, None], scores.outputs, -3.0)
    for combine in ("mean", "learned", "product", "stacking"):
        said = []
        for outputs in (scores.outputs, other):
            model = make_combiner(combine, learn_target("classes", CODES, np.ones(N)), M, 0)
            here = Scores(outputs, PRESENT, CODES, WEIGHTS)
            model.fit(here, here)
            said.append(model.outputs(outputs, PRESENT))
        np.testing.assert_array_equal(*said)


def test_stacking_is_logistic_regression_on_what_the_others_say_and_on_what_is_present() -> None:
    scores = classes()
    stack = Stack(learn_target("classes", CODES, np.ones(N)), 0)
    stack.head.C = 0.5
    stack.fit(scores, None)
    read = np.hstack([*np.where(PRESENT[:, :, None], scores.outputs, 0).transpose(1, 0, 2), PRESENT])
    peer = LogisticRegression(C=0.5, tol=1e-8, max_iter=5000).fit(read, CODES, WEIGHTS)
    mine = np.exp(log_softmax(stack.outputs(scores.outputs, PRESENT), axis=1))
    np.testing.assert_allclose(mine, peer.predict_proba(read), atol=1e-4)


def test_stacking_reads_which_modalities_are_there() -> None:
    nothing = np.full((N, M, 3), np.log(1 / 3))
    told = CODES == 0
    present = np.stack([np.ones(N, bool), told, ~told], axis=1)
    stack = Stack(learn_target("classes", CODES, np.ones(N)), 0)
    stack.fit(Scores(nothing, present, CODES, np.ones(N)), None)
    assert ((stack.outputs(nothing, present).argmax(axis=1) == 0) == told).all()
