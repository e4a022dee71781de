"""What every head owes, for every task."""

from __future__ import annotations

import numpy as np
import pytest

from mmcore.fusion.heads import make_head, restored_head
from mmcore.fusion.heads.folds import folds
from mmcore.fusion.targets import calibrate
from tests.fusion.heads.rows import TASKS, rows, target_of

KINDS = ("linear", "kernel", "tree", "network")
MOST = {"linear": 0.95, "kernel": 0.4, "tree": 0.4, "network": 0.4}
"""What may be left of the loss of a constant."""


@pytest.fixture(params=TASKS)
def task(request):
    return request.param


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def fitted(kind, task, *, C="auto", validation=True, n=300):
    X, y = rows(task, n)
    target = target_of(task, y)
    head = make_head(kind, target, C=C, random_state=0)
    return head.fit(X, y, np.ones(n), rows(task, 200, 1) if validation else None), target


@pytest.mark.parametrize("validation", [True, False])
def test_it_learns_curved_boundaries(kind, task, validation) -> None:
    head, target = fitted(kind, task, validation=validation)
    X, y = rows(task, 500, 2)
    outputs = head.outputs(X)
    assert outputs.shape == ((500,) if task == "regression" else (500, 3))
    assert target.loss(outputs, y) < MOST[kind] * target.loss(target.constant(500), y)


def test_saved_arrays_give_the_same_bits(kind, task) -> None:
    head, target = fitted(kind, task, C=1.0)
    arrays = {name: array.copy() for name, array in head.arrays("here").items()}
    assert all(name.startswith("here.") for name in arrays)
    again = restored_head(kind, target, arrays, "here")
    X, _ = rows(task, 100, 2)
    np.testing.assert_array_equal(head.outputs(X), again.outputs(X))
    for name, array in again.arrays("here").items():
        np.testing.assert_array_equal(array, arrays[name])


def test_equal_rows_give_equal_bits(kind, task) -> None:
    first, second = fitted(kind, task)[0].arrays("a"), fitted(kind, task)[0].arrays("a")
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


def test_rows_that_weigh_nothing_are_not_learned_from(kind, task) -> None:
    X, y = rows(task, 300)
    other, wrong = rows(task, 300, 5)
    target, held = target_of(task, y), rows(task, 200, 1)
    weights = np.r_[np.ones(300), np.zeros(300)]
    both = make_head(kind, target, C=1.0, random_state=0)
    both.fit(np.r_[X, other], np.r_[y, wrong[::-1]], weights, held)
    alone = make_head(kind, target, C=1.0, random_state=0).fit(X, y, np.ones(300), held)
    np.testing.assert_allclose(both.outputs(held[0]), alone.outputs(held[0]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("validation", [True, False])
def test_rows_that_weigh_nothing_do_not_choose_the_strength_of_the_linear_head(task, validation) -> None:
    X, y = rows(task, 60)
    weights = np.random.default_rng(0).permutation(np.r_[np.zeros(20), np.ones(30), np.full(10, 3.0)])
    kept, scrambled = weights > 0, y.copy()
    scrambled[weights == 0] = y[weights == 0][::-1]
    target, held = target_of(task, y), rows(task, 50, 1) if validation else None
    every = make_head("linear", target, random_state=0).fit(X, scrambled, weights, held)
    fewer = make_head("linear", target, random_state=0).fit(X[kept], y[kept], weights[kept], held)
    assert every.tried == fewer.tried
    np.testing.assert_array_equal(every.outputs(X), fewer.outputs(X))


def test_the_linear_head_weighs_the_losses_that_choose_its_strength(task) -> None:
    X, y = rows(task, 60)
    weights = np.random.default_rng(0).permutation(np.r_[np.ones(50), np.full(10, 9.0)])
    target = target_of(task, y)
    head = make_head("linear", target, random_state=0).fit(X, y, weights)
    for C, tried in head.tried["log_loss"].items():
        total = 0.0
        for fit, held in folds(target, y, 0):
            part = make_head("linear", target, C=float(C)).fit(X[fit], y[fit], weights[fit])
            total += sum(weights[i] * target.loss(part.outputs(X[[i]]), y[[i]]) for i in held)
        assert tried == pytest.approx(total / weights.sum(), rel=1e-3)


def test_validation_chooses_the_strength(kind, task) -> None:
    head, target = fitted(kind, task)
    losses = head.tried["log_loss"]
    assert min(losses, key=losses.get) == f"{head.tried['C']:g}"
    held = rows(task, 200, 1)
    assert target.loss(head.outputs(held[0]), held[1]) == pytest.approx(min(losses.values()), rel=0.05)


def test_validation_calibrates(kind, task) -> None:
    head, target = fitted(kind, task, C=1.0)
    held = rows(task, 200, 1)
    assert calibrate(target, head.outputs(held[0]), held[1]) == pytest.approx(1.0, abs=0.05)


def test_few_rows_and_a_label_that_never_varies(kind, task) -> None:
    X, y = rows(task, 9)
    if task == "multilabel":
        y[:, 0], y[:, 1] = 0.0, 1.0
    target = target_of(task, y)
    outputs = make_head(kind, target, random_state=0).fit(X, y, np.ones(9)).outputs(X)
    assert np.isfinite(outputs).all()
    if task == "multilabel":
        assert (outputs[:, 0] < 0).all()
        assert (outputs[:, 1] > 0).all()


def test_two_classes_and_a_single_label(kind) -> None:
    X, y = rows("multilabel", 300)
    single, two = y[:, :1], y[:, 0].astype(int)
    labels = make_head(kind, target_of("multilabel", single), C=1.0, random_state=0).fit(X, single, np.ones(300))
    classes = make_head(kind, target_of("classes", two), C=1.0, random_state=0).fit(X, two, np.ones(300))
    assert labels.outputs(X).shape == (300, 1)
    assert classes.outputs(X).shape == (300, 2)
    agree = (labels.outputs(X)[:, 0] > 0) == (classes.outputs(X).argmax(axis=1) == 1)
    assert agree.mean() > 0.95
