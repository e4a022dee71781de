"""Rows with targets of each task, for the heads' tests."""

from __future__ import annotations

import numpy as np

from mmcore.fusion.targets import Target, learn_target

TASKS = ("classes", "multilabel", "regression")


def rows(task: str, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """X (n, 5) and what is to be predicted; the boundaries are curved."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, 5)) * 0.7
    curved = np.stack([X[:, 0] * 2 + X[:, 1], X[:, 1] ** 2 * 2 - 1, X[:, 2] - X[:, 3]], axis=1)
    curved += 0.2 * random.normal(size=curved.shape)
    if task == "classes":
        return X, curved.argmax(axis=1)
    return X, (curved > 0).astype(float) if task == "multilabel" else curved[:, 0] * 30 + curved[:, 1] * 20 + 100


def target_of(task: str, y: np.ndarray, weights: np.ndarray | None = None) -> Target:
    return learn_target(task, y, np.ones(len(y)) if weights is None else weights)
