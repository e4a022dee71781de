"""What a fusion method is: it learns from several views and predicts labels, or maps views into one shared space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from mmcore.errors import FusionError
from mmcore.fusion.data import Array, LabelledViews, View, Views
from mmcore.fusion.saving import read_model, write_model
from mmcore.fusion.scaling import Scaler, Scaling
from mmcore.records import Json

if TYPE_CHECKING:
    from mmcore.training.checkpoint import Checkpoints

AnyViews = Views | Mapping[str, View | npt.ArrayLike]


@dataclass(frozen=True)
class FitRun:
    """Where and how a fit runs: its checkpoints, who hears of its epochs, and what computes it."""

    checkpoints: Checkpoints | None = None
    on_epoch: Callable[[int, int, dict[str, float]], None] | None = None
    threads: int = 1
    device: str = "cpu"


@dataclass(frozen=True)
class Rows:
    """Prepared rows as a method's `_fit` gets them: scaled views (absent rows zero), class codes, weights."""

    views: Views
    codes: Array
    """(n,) positions in `classes_`."""
    weights: Array
    """(n,) not negative; ones where none were given."""

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: Array) -> Rows:
        return Rows(self.views[rows], self.codes[rows], self.weights[rows])


class FusionModel(ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """Base of all fusion methods, in scikit-learn's manners.

    A method writes `_fit` and `_log_proba` and the two halves of saving. Here are the checks, the scaling, and what a
    row with nothing present gets: the classes' shares in the training rows (`class_prior_`), flagged by `unknown`.

    Learned: `classes_` (sorted), `class_prior_`, `modalities_` (those used, in order), `view_shapes_` (all that `fit`
    saw), `curves_` (what was tried while fitting, as JSON).
    Raises FusionError for views or labels that do not fit.
    """

    handles_missing: ClassVar[Literal["native", "imputed", "complete-only"]]
    """`native`: learns and predicts from what is present; `imputed`: absent views are filled in first."""

    scaling: Scaling
    modalities: Sequence[str] | None
    random_state: int | None

    # What users call

    def fit(
        self,
        X: AnyViews,
        y: npt.ArrayLike,
        *,
        validation: LabelledViews | tuple[AnyViews, npt.ArrayLike] | None = None,
        sample_weight: npt.ArrayLike | None = None,
        run: FitRun | None = None,
    ) -> Self:
        """Learn from views of n samples and their n labels.

        `validation` (views, labels) stops training, chooses strengths of penalties and calibrates; it is never learned
        from otherwise. Training rows in which nothing is present only count for `class_prior_`.
        """
        views = Views.of(X)
        self.view_shapes_ = {name: view.shape for name, view in views.items()}
        self.modalities_ = self._chosen()
        labels = _labels(y, len(views), "y")
        self.classes_ = np.unique(labels)
        if len(self.classes_) < 2:
            raise FusionError(f"y: needs at least two classes, got {self.classes_.tolist()}")
        weights = _weights(sample_weight, len(views))
        codes = self.label_codes(labels)
        self.class_prior_ = np.bincount(codes, weights, len(self.classes_)) / weights.sum()
        used = self._checked(views)
        if never := [name for name, view in used.items() if not weights[view.present].any()]:
            raise FusionError(f"view {never[0]}: present in no training row; leave it out")
        self.scaler_ = Scaler(self.scaling).fit(used, weights)
        train = self._rows(used, codes, weights)
        self.curves_: dict[str, Json] = {}
        self._fit(train, self._validation_rows(validation), run or FitRun())
        return self

    def predict(self, X: AnyViews) -> Array:
        """The most probable class of each row: (n,)."""
        proba = self.predict_proba(X)
        return np.asarray(self.classes_[proba.argmax(axis=1)])

    def predict_proba(self, X: AnyViews) -> Array:
        """Probabilities (n, classes) in the order of `classes_`."""
        return np.exp(self.predict_log_proba(X))

    def predict_log_proba(self, X: AnyViews) -> Array:
        """Natural logarithms of `predict_proba`."""
        views = self._prepared(X)
        known = any_present(views)
        log_proba = np.tile(np.log(np.maximum(self.class_prior_, np.finfo(float).tiny)), (len(views), 1))
        if known.any():
            log_proba[known] = self._log_proba(views[known])
        return log_proba

    def unknown(self, X: AnyViews) -> Array:
        """Which rows have nothing that this model reads, so that they get `class_prior_`: booleans (n,)."""
        return ~any_present(self._prepared(X))

    def score(self, X: AnyViews, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> float:
        """Accuracy. Raises FusionError for labels that `fit` did not see."""
        proba = self.predict_proba(X)
        correct = proba.argmax(axis=1) == self.label_codes(_labels(y, len(proba), "y"))
        return float(np.average(correct, weights=None if sample_weight is None else np.asarray(sample_weight)))

    def label_codes(self, y: npt.ArrayLike) -> Array:
        """Positions of labels in `classes_`: (n,). Raises FusionError for a label that was not in training."""
        labels = np.asarray(y)
        codes = np.clip(np.searchsorted(self.classes_, labels), 0, len(self.classes_) - 1)
        if (unseen := self.classes_[codes] != labels).any():
            raise FusionError(
                f"labels that training did not have: {sorted(set(labels[unseen].tolist()))}; "
                f"it had {self.classes_.tolist()}"
            )
        return codes

    def save(self, folder: str | Path) -> None:
        """Write `model.safetensors` and `model.json` into an existing folder: equal models, equal bytes."""
        check_is_fitted(self, "classes_")
        arrays, facts = self._state()
        write_model(
            Path(folder),
            type(self),
            settings=self.get_params(deep=False),
            classes=self.classes_,
            shapes=self.view_shapes_,
            arrays={**arrays, **self.scaler_.arrays(), "class_prior": self.class_prior_},
            facts={"curves": self.curves_, **facts},
        )

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The model saved in `folder`. Nothing in the file is executed.

        Called on `FusionModel` it takes any method of this library, called on a method only that one.
        Raises FusionError for another class or a file that is not such a model.
        """
        saved = read_model(Path(folder), cls, base=cls is FusionModel)
        model: Self = saved.kind(**saved.settings)
        model.classes_, model.view_shapes_ = saved.classes, saved.shapes
        model.modalities_ = model._chosen()
        model.class_prior_ = saved.arrays["class_prior"]
        model.curves_ = saved.facts["curves"]
        model.scaler_ = Scaler.restored(model.scaling, saved.arrays, model.modalities_)
        model._restore(saved.arrays, saved.facts)
        return model

    # What a method writes

    @abstractmethod
    def _fit(self, train: Rows, validation: Rows | None, run: FitRun) -> None:
        """Learn from rows that each have something present."""

    @abstractmethod
    def _log_proba(self, views: Views) -> Array:
        """Normalised log probabilities (n, classes) of prepared rows that each have something present."""

    @abstractmethod
    def _state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        """What `_fit` learned, as arrays and as JSON."""

    @abstractmethod
    def _restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        """The opposite of `_state`."""

    # What is the same for all

    def _chosen(self) -> list[str]:
        if self.modalities is None:
            return list(self.view_shapes_)
        if missing := [name for name in self.modalities if name not in self.view_shapes_]:
            raise FusionError(f"modalities: no view {missing[0]!r}; there are {', '.join(self.view_shapes_)}")
        return list(self.modalities)

    def _checked(self, views: Views) -> Views:
        """The views that the model uses, in its order; one that is not there is absent in every row."""
        unknown = [name for name in views if name not in self.view_shapes_]
        # A model of chosen modalities may be handed all that a data set has.
        if unknown and self.modalities is None:
            raise FusionError(f"unknown view {unknown[0]!r}; this model knows {', '.join(self.view_shapes_)}")
        used = {
            name: views[name] if name in views else View.absent(len(views), self.view_shapes_[name])
            for name in self.modalities_
        }
        for name, view in used.items():
            if len(view.shape) != 1:
                raise FusionError(f"view {name}: needs one vector per row, (n, d), got {view.values.shape}")
            if view.shape != self.view_shapes_[name]:
                needed = (len(view), *self.view_shapes_[name])
                raise FusionError(f"view {name}: needs the shape {needed}, got {view.values.shape}")
            _check_finite(name, view)
        return Views(used)

    def _prepared(self, X: AnyViews) -> Views:
        check_is_fitted(self, "classes_")
        return self.scaler_.transform(self._checked(Views.of(X)))

    def _rows(self, used: Views, codes: Array, weights: Array) -> Rows:
        known = any_present(used)
        return Rows(self.scaler_.transform(used), codes, weights)[known]

    def _validation_rows(self, validation: LabelledViews | tuple[AnyViews, npt.ArrayLike] | None) -> Rows | None:
        if validation is None:
            return None
        X, y = (validation.views, validation.labels) if isinstance(validation, LabelledViews) else validation
        views = Views.of(X)
        try:
            codes = self.label_codes(_labels(y, len(views), "validation labels"))
            rows = self._rows(self._checked(views), codes, np.ones(len(views)))
        except FusionError as error:
            raise FusionError(f"validation: {error}") from None
        return rows if len(rows) else None


class SharedSpace(FusionModel):
    """A fusion method that maps every modality into one space, and a row to one point of it.

    A method writes `_project`; `fuse` is the mean of the present modalities' points unless it says otherwise, so
    that `transform(v)[m] == fuse({m: v[m]})`.
    """

    def transform(self, X: AnyViews) -> dict[str, Array]:
        """Each modality in the shared space: (n, k), NaN where a row does not have it."""
        views = self._prepared(X)
        points = {}
        for name, view in views.items():
            projected = self._project(name, view.values)
            projected[~view.present] = np.nan
            points[name] = projected
        return points

    def fuse(self, X: AnyViews) -> Array:
        """Each row as one point of the shared space: (n, k), NaN where nothing is present."""
        views = self._prepared(X)
        fused = self._fused(views)
        fused[~any_present(views)] = np.nan
        return fused

    @abstractmethod
    def _project(self, name: str, values: Array) -> Array:
        """Prepared rows (n, d) of one modality in the shared space: a new array (n, k)."""

    def _fused(self, views: Views) -> Array:
        """Prepared rows in the shared space, from what is present: a new array (n, k)."""
        total: Any = 0.0
        for name, view in views.items():
            total = total + self._project(name, view.values) * view.present[:, None]
        return np.asarray(total / np.maximum(present_counts(views), 1)[:, None])


def present_counts(views: Views) -> Array:
    """How many modalities each row has: (n,)."""
    return np.asarray(np.sum([view.present for _, view in views.items()], axis=0))


def any_present(views: Views) -> Array:
    """Which rows have at least one modality: booleans (n,)."""
    return np.asarray(present_counts(views) > 0)


def _check_finite(name: str, view: View) -> None:
    finite = np.isfinite(view.values[view.present]).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(view.present)[~finite][0])
        raise FusionError(f"view {name}: row {row} is marked present but holds NaN or infinity")


def _labels(y: npt.ArrayLike, rows: int, what: str) -> Array:
    labels = np.asarray(y)
    if labels.shape != (rows,):
        raise FusionError(f"{what}: needs one label per row, shape ({rows},), got {labels.shape}")
    if labels.dtype == object:
        if not all(isinstance(label, str) for label in labels):
            raise FusionError(f"{what}: labels need to be all strings or all whole numbers")
        labels = labels.astype(np.str_)
    if labels.dtype.kind not in "Uiub":
        raise FusionError(f"{what}: labels need to be strings or whole numbers, got {labels.dtype}")
    return labels


def _weights(sample_weight: npt.ArrayLike | None, rows: int) -> Array:
    weights = np.ones(rows) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (rows,) or not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
        raise FusionError(f"sample_weight: needs {rows} numbers, none negative and not all zero")
    return weights
