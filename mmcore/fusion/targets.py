"""What a fusion model predicts: one class, several labels, or a number; and how each is encoded, scored and said."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, logit

from mmcore.errors import FusionError
from mmcore.fusion.data import Array
from mmcore.records import Json

Task = Literal["classes", "multilabel", "regression"]

SMALLEST_SHARE = 1e-12
"""Shares are kept this far from 0 and 1 where their logarithms or log-odds are taken."""


class Target(ABC):
    """What is predicted, learned from the labels of training rows.

    `prior` is what a row gets of which nothing is known: the classes' shares (C,), the labels' rates (L,), the mean
    (1,). A method's outputs are logits (n, C) for classes, log-odds (n, L) for several labels, values (n,) for numbers.
    """

    task: ClassVar[Task]

    def __init__(self, classes: Array, prior: Array, spread: float = 1.0) -> None:
        self.classes = classes
        """Sorted names of the classes or labels; empty for numbers."""
        self.prior = prior
        self.spread = spread
        """Standard deviation of the training numbers; 1 for classes and labels."""

    @property
    def n_outputs(self) -> int:
        return len(self.prior)

    @abstractmethod
    def encode(self, y: npt.ArrayLike, rows: int, what: str = "y") -> tuple[Array, Array]:
        """Targets of `rows` labels, and which rows are labelled. Raises FusionError for what cannot be one."""

    @abstractmethod
    def constant(self, rows: int) -> Array:
        """The outputs of rows of which nothing is known."""

    @abstractmethod
    def finished(self, outputs: Array) -> Array:
        """A method's outputs as they are handed on: log probabilities for classes, else unchanged."""

    @abstractmethod
    def predicted(self, outputs: Array) -> Array:
        """What outputs say: classes (n,), labels (n, L) of 0 and 1, or numbers (n,)."""

    @abstractmethod
    def loss(self, outputs: Array, targets: Array, weights: Array | None = None) -> float:
        """Mean log loss in nats (per row; per row and label), or mean squared error in units of `spread`²."""

    @abstractmethod
    def score(self, predicted: Array, truth: Array, weights: Array | None = None) -> float:
        """Accuracy, the share of rows with every label right, or R²; of `predicted` and encoded targets."""

    def facts(self) -> Json:
        return {"task": self.task, "classes": self.classes.tolist(), "spread": self.spread}


class ClassTarget(Target):
    """One of several classes."""

    task = "classes"

    def encode(self, y: npt.ArrayLike, rows: int, what: str = "y") -> tuple[Array, Array]:
        labels, labelled = _names(y, rows, what)
        codes = np.clip(np.searchsorted(self.classes, labels), 0, len(self.classes) - 1)
        if (unseen := labelled & (self.classes[codes] != labels)).any():
            raise FusionError(
                f"labels that training did not have: {sorted(set(labels[unseen].tolist()))}; "
                f"it had {self.classes.tolist()}"
            )
        return codes, labelled

    def constant(self, rows: int) -> Array:
        return np.tile(np.log(np.maximum(self.prior, np.finfo(float).tiny)), (rows, 1))

    def finished(self, outputs: Array) -> Array:
        return np.asarray(log_softmax(outputs, axis=1))

    def predicted(self, outputs: Array) -> Array:
        return np.asarray(self.classes[outputs.argmax(axis=1)])

    def loss(self, outputs: Array, targets: Array, weights: Array | None = None) -> float:
        right = log_softmax(outputs, axis=1)[np.arange(len(targets)), targets]
        return float(-np.average(right, weights=weights))

    def score(self, predicted: Array, truth: Array, weights: Array | None = None) -> float:
        return float(np.average(predicted == self.classes[truth], weights=weights))


class LabelTarget(Target):
    """Any number of several labels: a row of 0 and 1 per sample."""

    task = "multilabel"

    def encode(self, y: npt.ArrayLike, rows: int, what: str = "y") -> tuple[Array, Array]:
        names, matrix, labelled = _label_matrix(y, rows, what, self.classes)
        if unseen := sorted(set(names.tolist()) - set(self.classes.tolist())):
            raise FusionError(f"{what}: labels that training did not have: {unseen}; it had {self.classes.tolist()}")
        return matrix, labelled

    def constant(self, rows: int) -> Array:
        return np.tile(logit(np.clip(self.prior, SMALLEST_SHARE, 1 - SMALLEST_SHARE)), (rows, 1))

    def finished(self, outputs: Array) -> Array:
        return outputs

    def predicted(self, outputs: Array) -> Array:
        return (outputs > 0).astype(np.int64)

    def loss(self, outputs: Array, targets: Array, weights: Array | None = None) -> float:
        each = targets * log_expit(outputs) + (1 - targets) * log_expit(-outputs)
        return float(-np.average(each.mean(axis=1), weights=weights))

    def score(self, predicted: Array, truth: Array, weights: Array | None = None) -> float:
        return float(np.average((predicted == truth).all(axis=1), weights=weights))


class NumberTarget(Target):
    """A number."""

    task = "regression"

    def encode(self, y: npt.ArrayLike, rows: int, what: str = "y") -> tuple[Array, Array]:
        return _numbers(y, rows, what)

    def constant(self, rows: int) -> Array:
        return np.full(rows, self.prior[0])

    def finished(self, outputs: Array) -> Array:
        return outputs

    def predicted(self, outputs: Array) -> Array:
        return outputs

    def loss(self, outputs: Array, targets: Array, weights: Array | None = None) -> float:
        return float(np.average(((outputs - targets) / self.spread) ** 2, weights=weights))

    def score(self, predicted: Array, truth: Array, weights: Array | None = None) -> float:
        from sklearn.metrics import r2_score

        return float(r2_score(truth, predicted, sample_weight=weights))


TARGETS: dict[Task, type[Target]] = {kind.task: kind for kind in (ClassTarget, LabelTarget, NumberTarget)}


def learn_target(task: Task, y: npt.ArrayLike, weights: Array) -> Target:
    """What these training labels ask for. Raises FusionError for labels that do not fit the task, or only one class."""
    rows = len(weights)
    if task == "classes":
        labels, labelled = _names(y, rows, "y")
        weights = _counted(weights, labelled)
        classes = np.unique(labels[labelled])
        if len(classes) < 2:
            raise FusionError(f"y: needs at least two classes, got {classes.tolist()} (one class only)")
        shares = np.bincount(np.searchsorted(classes, labels[labelled]), weights, len(classes)) / weights.sum()
        return ClassTarget(classes, shares)
    if task == "multilabel":
        names, matrix, labelled = _label_matrix(y, rows, "y", None)
        if not len(names):
            raise FusionError("y: no row has a label")
        return LabelTarget(names, np.average(matrix[labelled], axis=0, weights=_counted(weights, labelled)))
    if task == "regression":
        numbers, labelled = _numbers(y, rows, "y")
        if labelled.sum() == 1:
            raise FusionError("y: needs numbers in at least 2 rows, got n_samples = 1")
        weights = _counted(weights, labelled)
        mean = np.average(numbers[labelled], weights=weights)
        spread = float(np.sqrt(np.average((numbers[labelled] - mean) ** 2, weights=weights)))
        return NumberTarget(np.array([], np.str_), np.array([mean]), spread if spread > 0 else 1.0)
    raise FusionError(f"task: needs to be one of {', '.join(TARGETS)}, got {task!r}")


def restored_target(facts: Mapping[str, Json], prior: Array) -> Target:
    """The opposite of `Target.facts`, with `Target.prior`."""
    return TARGETS[facts["task"]](np.array(facts["classes"]), prior, facts["spread"])


def calibrate(target: Target, outputs: Array, targets: Array) -> float:
    """The factor on the outputs with the lowest log loss on these rows: one over the temperature; 1 for numbers.

    A standard normal prior on its logarithm keeps it finite where all rows are classified rightly. Source: Guo et al.
    2017, "On calibration of modern neural networks".
    """
    if target.task == "regression":
        return 1.0

    def loss(log_factor: float) -> float:
        return target.loss(np.exp(log_factor) * outputs, targets) + log_factor**2 / (2 * len(targets))

    found = minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def probabilities(target: Target, outputs: Array) -> Array:
    """Probabilities (n, C) of classes or (n, L) of labels from finished outputs."""
    return np.asarray(expit(outputs) if target.task == "multilabel" else np.exp(outputs))


def _counted(weights: Array, labelled: Array) -> Array:
    if not labelled.any():
        raise FusionError("y: no row has a label")
    if not weights[labelled].sum() > 0:
        raise FusionError("sample_weight: all labelled rows weigh nothing")
    return np.asarray(weights[labelled])


def _names(y: npt.ArrayLike, rows: int, what: str) -> tuple[Array, Array]:
    """Class names (n,), and which rows have one (None: not labelled)."""
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape == (rows, 1):
        labels = _column(labels)
    if labels.shape != (rows,):
        raise FusionError(f"{what}: needs one label per row, shape ({rows},), got {labels.shape}")
    labelled = np.ones(rows, bool)
    if labels.dtype == object:
        labelled = np.array([label is not None for label in labels], bool)
        known = labels[labelled].tolist()
        if len({isinstance(label, str) for label in known}) > 1:
            raise FusionError(f"{what}: labels need to be all strings or all whole numbers")
        filled = np.array(known) if known else np.array([""])
        labels = np.full(rows, filled[0], filled.dtype)
        labels[labelled] = filled[: len(known)]
    if labels.dtype.kind == "f" and np.isfinite(labels).all() and (labels == np.round(labels)).all():
        return labels, labelled
    if labels.dtype.kind not in "Uiub":
        raise FusionError(
            f"Unknown label type: {what}: labels need to be strings or whole numbers, got {labels.dtype}; "
            "for numbers set task='regression'"
        )
    return labels, labelled


def _label_matrix(y: Any, rows: int, what: str, classes: Array | None) -> tuple[Array, Array, Array]:
    """Names (L,) found, 0 and 1 (n, L) float64 in the order of `classes` or of the names, which rows have labels."""
    try:
        matrix = np.asarray(y)
    except ValueError:
        # Rows of different lengths.
        matrix = np.array([], dtype=object)
    if matrix.ndim == 2 and matrix.dtype.kind in "biuf":
        labelled = np.asarray(~np.isnan(matrix.astype(np.float64)).any(axis=1))
        known = matrix[labelled]
        if len(matrix) != rows or not np.isin(known, (0, 1)).all():
            raise FusionError(f"{what}: needs 0 and 1 of shape ({rows}, labels), got {matrix.shape}")
        names: Array = np.arange(matrix.shape[1])
        if classes is not None and len(classes) != len(names):
            raise FusionError(f"{what}: needs {len(classes)} columns, one per label, got {len(names)}")
        filled = np.where(labelled[:, None], matrix, 0).astype(np.float64)
        # Columns stand for the labels that training named.
        return (names if classes is None else classes), filled, labelled
    sets = list(y)
    if len(sets) != rows:
        raise FusionError(f"{what}: needs the labels of {rows} rows, got {len(sets)}")
    if any(isinstance(one, str) or (one is not None and not np.iterable(one)) for one in sets):
        raise FusionError(f"{what}: several labels per row need to be a list of names, or 0 and 1 of shape (n, labels)")
    labelled = np.array([one is not None for one in sets], bool)
    names = np.array(sorted({name for one in sets if one is not None for name in one}))
    order = {name: number for number, name in enumerate((names if classes is None else classes).tolist())}
    filled = np.zeros((rows, len(order)))
    for row, one in enumerate(sets):
        for name in one or ():
            if name in order:
                filled[row, order[name]] = 1.0
    return names, filled, labelled


def _numbers(y: npt.ArrayLike, rows: int, what: str) -> tuple[Array, Array]:
    """Numbers (n,) float64, and which rows have one (NaN: not labelled)."""
    numbers = np.asarray(y)
    if numbers.ndim == 2 and numbers.shape == (rows, 1):
        numbers = _column(numbers)
    if numbers.shape != (rows,):
        raise FusionError(f"{what}: needs one number per row, shape ({rows},), got {numbers.shape}")
    try:
        numbers = numbers.astype(np.float64)
    except (TypeError, ValueError):
        raise FusionError(f"{what}: needs numbers, got {numbers.dtype}") from None
    if np.isinf(numbers).any():
        raise FusionError(f"{what}: holds infinity")
    labelled = ~np.isnan(numbers)
    return np.where(labelled, numbers, 0.0), labelled


def _column(y: Array) -> Array:
    import warnings

    from sklearn.exceptions import DataConversionWarning

    warnings.warn("A column-vector y was passed when a 1d array was expected.", DataConversionWarning, stacklevel=5)
    return y[:, 0]
