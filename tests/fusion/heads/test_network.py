"""The network head against scikit-learn's own perceptrons."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.neural_network import MLPClassifier, MLPRegressor

from mmcore.fusion.heads.network import HIDDEN, LEARNING_RATE, NetworkHead
from tests.fusion.heads.rows import rows, target_of

WEIGHTS = np.random.default_rng(1).random(400) + 0.5
BATCH = 20


def peer(kind, head, X, y, **classes):
    """The library's own network after as many passes as the head kept."""
    network = kind(
        hidden_layer_sizes=(HIDDEN,),
        alpha=BATCH / (2.0 * 400),
        batch_size=BATCH,
        learning_rate_init=LEARNING_RATE,
        random_state=0,
    )
    for _ in range(head.tried["epochs"]):
        network.partial_fit(X, y, WEIGHTS, **classes)
    return network


def standardised(X: np.ndarray, by: np.ndarray) -> np.ndarray:
    mean = np.average(by, axis=0, weights=WEIGHTS)
    return (X - mean) / np.sqrt(np.average((by - mean) ** 2, axis=0, weights=WEIGHTS).mean())


@pytest.mark.parametrize("count", [2, 3])
def test_classes_are_the_library_s_probabilities(count) -> None:
    X, y = rows("classes", 400)
    held = rows("classes", 200, 1)
    y, held_y = y % count, held[1] % count
    head = NetworkHead(target_of("classes", y), C=2.0, random_state=0)
    head.fit(X, y, WEIGHTS, (held[0], held_y))
    network = peer(MLPClassifier, head, standardised(X, X), y, classes=np.arange(count))
    log_odds = np.log(network.predict_proba(standardised(held[0], X)))
    outputs = head.outputs(held[0])
    outputs, log_odds = (z - z.mean(axis=1, keepdims=True) for z in (outputs, log_odds))
    sharpness = (outputs * log_odds).sum() / (log_odds**2).sum()
    np.testing.assert_allclose(softmax(outputs / sharpness, axis=1), softmax(log_odds, axis=1), atol=1e-6)


@pytest.mark.parametrize("count", [1, 3])
def test_labels_are_the_library_s_probabilities(count) -> None:
    X, y = rows("multilabel", 400)
    held = rows("multilabel", 200, 1)
    y, held_y = y[:, :count], held[1][:, :count]
    head = NetworkHead(target_of("multilabel", y), C=2.0, random_state=0).fit(X, y, WEIGHTS, (held[0], held_y))
    truth = (y if count > 1 else y[:, 0]).astype(int)
    network = peer(MLPClassifier, head, standardised(X, X), truth, classes=np.arange(max(count, 2)))
    proba = network.predict_proba(standardised(held[0], X))
    proba = proba if count > 1 else proba[:, 1:]
    outputs, log_odds = head.outputs(held[0]), np.log(proba) - np.log1p(-proba)
    sharpness = (outputs * log_odds).sum() / (log_odds**2).sum()
    np.testing.assert_allclose(expit(outputs / sharpness), proba, atol=1e-6)


def test_numbers_are_the_library_s_regression() -> None:
    X, y = rows("regression", 400)
    held = rows("regression", 200, 1)
    target = target_of("regression", y)
    head = NetworkHead(target, C=2.0, random_state=0).fit(X, y, WEIGHTS, held)
    network = peer(MLPRegressor, head, standardised(X, X), (y - target.prior[0]) / target.spread)
    expected = network.predict(standardised(held[0], X)) * target.spread + target.prior[0]
    np.testing.assert_allclose(head.outputs(held[0]), expected, atol=1e-6 * target.spread)
