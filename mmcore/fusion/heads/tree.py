"""The tree head: gradient-boosted trees by LightGBM."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, Literal, Self

import numpy as np
from scipy.special import logit

from mmcore.errors import FusionError
from mmcore.fusion.data import Array
from mmcore.fusion.heads.folds import held_out
from mmcore.fusion.targets import Target, calibrate
from mmcore.records import Json

C_GRID = (0.1, 1.0, 10.0)
"""Strengths tried for C = auto."""
MAX_ROUNDS = 500
PATIENCE = 20
"""Rounds without a lower loss after which boosting stops."""
FEW_ROUNDS = 50
"""Rounds where no row can be spared to stop by."""
LEARNING_RATE = 0.2
LEAVES = 7
BINS = 63
"""Values that a column is told apart by."""
COLUMNS = 64
"""Each tree reads so many columns at most, drawn anew: wide views would take minutes, and are learned better so."""
LEAF_ROWS = 20
"""At least so many rows in a leaf, or a twentieth of few rows."""

Learned = tuple[Array, Array, Array]
"""Rows (n, d), their targets, their weights."""


class TreeHead:
    """Gradient-boosted trees (Friedman 2001; Ke et al. 2017, "LightGBM").

    Each round adds one tree per class (softmax), label (logistic) or number (squared error, y in units of its
    deviation), grown on the gradients of Σᵢ wᵢ ℓᵢ + Σ v² / (2C) over the values v of its leaves. Validation rows tell
    how many rounds, which C of `C_GRID`, and the temperature of logits and log-odds. Without them a part of the
    training rows tells the first two, then all rows are learned from. Outputs are the sums of the leaves' values.

    Saved in LightGBM's text format, which holds numbers and nothing to execute.
    """

    contains_training_rows = False

    def __init__(
        self,
        target: Target,
        *,
        C: float | Literal["auto"] = "auto",
        random_state: int | None = None,
        threads: int = 1,
    ) -> None:
        self.target = target
        self.C = C
        self.random_state = random_state
        self.threads = threads
        self.texts: list[str] = []
        """One model for all classes or for the number, one per label; empty for a label that does not vary."""
        self.constants = np.zeros(0)
        """What is added to each model's output."""
        self.sharpness = 1.0
        self.tried: dict[str, Json] = {}
        self._boosters: list[Any] = []

    def fit(self, X: Array, targets: Array, weights: Array, validation: tuple[Array, Array] | None = None) -> Self:
        """Learn from rows (n, d) with encoded targets; `validation` is the same for other rows.

        Raises FusionError where LightGBM is not installed.
        """
        counted = weights > 0
        X, targets, weights = X[counted], targets[counted], weights[counted]
        every: Learned = X, targets, weights
        learned, stopping = every, validation
        if validation is None:
            held = held_out(self.target, targets, self.random_state)
            if held.any():
                learned, stopping = (X[~held], targets[~held], weights[~held]), (X[held], targets[held])
        grid = C_GRID if self.C == "auto" and stopping is not None else (1.0 if self.C == "auto" else self.C,)
        best, losses = None, {}
        for C in grid:
            rounds = self._take(C, learned, stopping, None)
            loss = 0.0 if stopping is None else self.target.loss(self.outputs(stopping[0]), stopping[1])
            losses[f"{C:g}"] = loss
            if best is None or loss < best[0]:
                best = loss, C, rounds, self.texts, self.constants, self._boosters
        assert best is not None
        _, self.C, rounds, self.texts, self.constants, self._boosters = best
        if validation is not None:
            self.sharpness = calibrate(self.target, self.outputs(validation[0]), validation[1])
        elif stopping is not None:
            rounds = self._take(self.C, every, None, rounds)
        self.tried = {"C": self.C, "log_loss": losses, "rounds": rounds}
        return self

    def outputs(self, X: Array) -> Array:
        """Logits (n, C), log-odds (n, L) or values (n,)."""
        raw = [
            constant + (booster.predict(X, raw_score=True, num_threads=self.threads) if booster else np.zeros(len(X)))
            for booster, constant in zip(self._boosters, self.constants, strict=True)
        ]
        if self.target.task == "regression":
            return np.asarray(raw[0] * self.target.spread + self.target.prior[0])
        return np.asarray((raw[0] if self.target.task == "classes" else np.stack(raw, axis=1)) * self.sharpness)

    def arrays(self, prefix: str) -> dict[str, Array]:
        texts = [np.frombuffer(text.encode(), np.uint8) for text in self.texts]
        return {
            f"{prefix}.trees": np.concatenate(texts),
            f"{prefix}.lengths": np.array([len(text) for text in texts]),
            f"{prefix}.constants": self.constants,
            f"{prefix}.sharpness": np.array([self.sharpness]),
        }

    @classmethod
    def restored(cls, target: Target, arrays: Mapping[str, Array], prefix: str) -> TreeHead:
        head = cls(target)
        edges = np.cumsum(arrays[f"{prefix}.lengths"])
        head.texts = [part.tobytes().decode() for part in np.split(arrays[f"{prefix}.trees"], edges[:-1])]
        head.constants, head.sharpness = arrays[f"{prefix}.constants"], float(arrays[f"{prefix}.sharpness"][0])
        head._boosters = [_opened(text) for text in head.texts]
        return head

    def _take(
        self, C: float, learned: Learned, stopping: tuple[Array, Array] | None, rounds: list[int] | None
    ) -> list[int]:
        """Keep models grown on these rows; returns the rounds of each: those given, or what `stopping` tells."""
        X, targets, weights = learned
        columns, held = self._columns(targets), None if stopping is None else self._columns(stopping[1])
        self.texts, self.constants, taken = [], np.zeros(len(columns)), []
        for number, column in enumerate(columns):
            if self.target.task == "multilabel" and len(np.unique(column)) < 2:
                # Laplace's rule of succession.
                self.constants[number] = logit((column.sum() + 1) / (len(column) + 2))
                self.texts.append("")
                taken.append(0)
                continue
            stop = None if stopping is None or held is None else (stopping[0], held[number])
            # A label that did not vary in the part that told the rounds has none.
            count = (rounds[number] if rounds else 0) or FEW_ROUNDS
            text, count = self._grown(C, (X, column, weights), stop, count)
            self.texts.append(text)
            taken.append(count)
        # Predicted from what is saved, so that a loaded model gives the same bits.
        self._boosters = [_opened(text) for text in self.texts]
        return taken

    def _columns(self, targets: Array) -> list[Array]:
        if self.target.task == "multilabel":
            return list(targets.T)
        return [targets if self.target.task == "classes" else (targets - self.target.prior[0]) / self.target.spread]

    def _grown(self, C: float, learned: Learned, stop: tuple[Array, Array] | None, rounds: int) -> tuple[str, int]:
        """One model as text, and its rounds: as many as given, or what the rows in `stop` tell."""
        X, column, weights = learned
        lightgbm = _lightgbm()
        settings = self._settings(C, X)
        data = lightgbm.Dataset(X, column, weight=weights, params=settings)
        if stop is None:
            booster = lightgbm.train(settings, data, rounds)
            return booster.model_to_string(), rounds
        booster = lightgbm.train(
            settings,
            data,
            MAX_ROUNDS,
            valid_sets=[lightgbm.Dataset(*stop, reference=data, params=settings)],
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
        )
        return booster.model_to_string(num_iteration=booster.best_iteration), booster.best_iteration

    def _settings(self, C: float, X: Array) -> dict[str, Any]:
        task = self.target.task
        return {
            "objective": {"classes": "multiclass", "multilabel": "binary", "regression": "regression"}[task],
            **({"num_class": self.target.n_outputs} if task == "classes" else {}),
            "lambda_l2": 1.0 / C,
            "learning_rate": LEARNING_RATE,
            "num_leaves": LEAVES,
            "max_bin": BINS,
            "feature_fraction": min(1.0, COLUMNS / X.shape[1]),
            "min_data_in_leaf": max(1, min(LEAF_ROWS, len(X) // 20)),
            "deterministic": True,
            "force_col_wise": True,
            "num_threads": self.threads,
            "seed": self.random_state or 0,
            "verbosity": -1,
        }


def _opened(text: str) -> Any:
    return _lightgbm().Booster(model_str=text) if text else None


def _lightgbm() -> ModuleType:
    try:
        import lightgbm
    except ImportError as error:
        missing = "the tree head needs lightgbm, which is not installed: pip install 'mmcore[trees]'"
        raise FusionError(missing) from error
    return lightgbm
