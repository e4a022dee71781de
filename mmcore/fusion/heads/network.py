"""The network head: a perceptron with one hidden layer, trained by scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

import numpy as np
from sklearn.neural_network import MLPClassifier, MLPRegressor

from mmcore.fusion.data import Array
from mmcore.fusion.heads.folds import held_out
from mmcore.fusion.targets import Target, calibrate
from mmcore.records import Json

C_GRID = (0.03, 0.3, 3.0)
"""Strengths tried for C = auto."""
HIDDEN = 64
EPOCHS = 200
PATIENCE = 20
"""Epochs without a lower loss after which training stops."""
BATCH = (16, 128)
"""Rows of a training step: a twentieth of all, but within these."""
LEARNING_RATE = 3e-3

Layers = tuple[Array, Array, Array, Array]
"""W (d, hidden), b, V (hidden, outputs), c."""


class NetworkHead:
    """V relu(W x + b) + c with 64 hidden units: Σᵢ wᵢ ℓ(outputs, yᵢ) + (‖W‖² + ‖V‖²) / (2C) by Adam in float64.

    ℓ is −log softmax[y] for classes, the sum of the binary log losses for labels, half the squared error of
    numbers in units of their deviation. x is centred and divided by one number first, the root of its columns' mean
    variance; that is folded into W and b. The epoch with the lowest loss on validation rows is kept, or on a part of
    the training rows held out where there are none; C = auto takes the best of `C_GRID` by the same loss. Validation
    rows also set the temperature of logits and log-odds.
    """

    contains_training_rows = False

    def __init__(self, target: Target, *, C: float | Literal["auto"] = "auto", random_state: int | None = None) -> None:
        self.target = target
        self.C = C
        self.random_state = random_state
        self.layers: Layers = (np.zeros((0, 0)), np.zeros(0), np.zeros((0, 0)), np.zeros(0))
        self.tried: dict[str, Json] = {}

    def fit(self, X: Array, targets: Array, weights: Array, validation: tuple[Array, Array] | None = None) -> Self:
        """Learn from rows (n, d) with encoded targets; `validation` is the same for other rows."""
        counted = weights > 0
        X, targets, weights = X[counted], targets[counted], weights[counted]
        centre = np.average(X, axis=0, weights=weights)
        scale = float(np.sqrt(np.average(((X - centre) ** 2).mean(axis=1), weights=weights))) or 1.0
        scaled = (X - centre) / scale
        if validation is None:
            held = held_out(self.target, targets, self.random_state)
            stopping = held if held.any() else np.ones(len(X), bool)
            stop = scaled[stopping], targets[stopping]
            scaled, targets, weights = scaled[~held], targets[~held], weights[~held]
        else:
            stop = (validation[0] - centre) / scale, validation[1]
        grid = C_GRID if self.C == "auto" else (self.C,)
        found = [self._trained(C, scaled, targets, weights, stop) for C in grid]
        losses = [loss for loss, _, _ in found]
        best = int(np.argmin(losses))
        self.C, (_, epochs, (W, b, V, c)) = grid[best], found[best]
        sharpness = 1.0 if validation is None else calibrate(self.target, self._outputs((W, b, V, c), stop[0]), stop[1])
        self.layers = (W / scale, b - centre @ W / scale, V * sharpness, c * sharpness)
        losses_tried = {f"{C:g}": loss for C, loss in zip(grid, losses, strict=True)}
        self.tried = {"C": self.C, "log_loss": losses_tried, "epochs": epochs}
        return self

    def outputs(self, X: Array) -> Array:
        """Logits (n, C), log-odds (n, L) or values (n,)."""
        return self._outputs(self.layers, X)

    def arrays(self, prefix: str) -> dict[str, Array]:
        return {f"{prefix}.{name}": array for name, array in zip("WbVc", self.layers, strict=True)}

    @classmethod
    def restored(cls, target: Target, arrays: Mapping[str, Array], prefix: str) -> NetworkHead:
        head = cls(target)
        W, b, V, c = (arrays[f"{prefix}.{name}"] for name in "WbVc")
        head.layers = W, b, V, c
        return head

    def _outputs(self, layers: Layers, X: Array) -> Array:
        W, b, V, c = layers
        values = np.maximum(X @ W + b, 0.0) @ V + c
        return np.asarray(values[:, 0] if self.target.task == "regression" else values)

    def _trained(
        self, C: float, X: Array, targets: Array, weights: Array, stop: tuple[Array, Array]
    ) -> tuple[float, int, Layers]:
        """The lowest loss on the rows to stop by, after how many epochs, and the layers then."""
        # The library divides its penalty by the weights of a batch.
        batch = min(max(BATCH[0], min(BATCH[1], len(X) // 20)), len(X))
        settings = {
            "hidden_layer_sizes": (HIDDEN,),
            "alpha": batch / (C * len(X)),
            "batch_size": batch,
            "learning_rate_init": LEARNING_RATE,
            "random_state": self.random_state or 0,
        }
        network = MLPRegressor(**settings) if self.target.task == "regression" else MLPClassifier(**settings)
        best: tuple[float, int, Layers] | None = None
        for epoch in range(1, EPOCHS + 1):
            self._step(network, X, targets, weights)
            layers = self._layers(network)
            loss = self.target.loss(self._outputs(layers, stop[0]), stop[1])
            if best is None or loss < best[0]:
                best = loss, epoch, layers
            elif epoch - best[1] >= PATIENCE:
                break
        assert best is not None
        return best

    def _step(self, network: MLPClassifier | MLPRegressor, X: Array, targets: Array, weights: Array) -> None:
        """One pass over the rows."""
        if self.target.task == "regression":
            network.partial_fit(X, (targets - self.target.prior[0]) / self.target.spread, weights)
        elif self.target.task == "multilabel" and self.target.n_outputs > 1:
            network.partial_fit(X, targets.astype(np.int64), weights, np.arange(self.target.n_outputs))
        elif self.target.task == "multilabel":
            network.partial_fit(X, targets[:, 0].astype(np.int64), weights, np.arange(2))
        else:
            network.partial_fit(X, targets, weights, np.arange(self.target.n_outputs))

    def _layers(self, network: MLPClassifier | MLPRegressor) -> Layers:
        """Copies, with one output per class and numbers in their own units."""
        (W, V), (b, c) = network.coefs_, network.intercepts_
        if self.target.task == "regression":
            return W.copy(), b.copy(), V * self.target.spread, c * self.target.spread + self.target.prior[0]
        if self.target.task == "classes" and self.target.n_outputs == 2:
            # The library has one unit for two classes, their log-odds.
            return W.copy(), b.copy(), np.hstack([-V, V]) / 2, np.hstack([-c, c]) / 2
        return W.copy(), b.copy(), V.copy(), c.copy()
