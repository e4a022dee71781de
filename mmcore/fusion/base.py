"""What a fusion method is: it learns from several views and predicts labels, or maps views into one shared space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from scipy.sparse import issparse
from scipy.special import log_expit
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import ClassifierTags, RegressorTags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from mmcore.errors import FusionError
from mmcore.fusion.data import Array, LabelledViews, View, Views
from mmcore.fusion.impute import Imputer
from mmcore.fusion.rows import FitRun, Rows, any_present, check_finite, checked_weights, present_counts, source_labels
from mmcore.fusion.saving import read_model, write_model
from mmcore.fusion.scaling import Scaler, Scaling
from mmcore.fusion.targets import Target, Task, learn_target, probabilities, restored_target
from mmcore.records import Json

__all__ = ["AnyViews", "Columns", "FitRun", "FusionModel", "Rows", "SharedSpace", "any_present", "present_counts"]

AnyViews = Views | Mapping[str, Any]
"""Views, or names with `View`s, arrays or `Features`."""
Columns = Mapping[str, slice | Sequence[int]]
"""Which columns of one plain array are which view: slices, or `[start, stop]` or `[start, stop, step]`."""


def _predicts_probabilities(model: FusionModel) -> bool:
    if model.task == "regression":
        raise AttributeError("a regression has no probabilities; use predict")
    return True


class FusionModel(BaseEstimator, ABC):  # type: ignore[misc]
    """Base of all fusion methods, in scikit-learn's manners.

    A method writes `_fit` and `_outputs` and the two halves of saving. Here are the checks, the scaling, the filling in
    of absent views for methods that need it, and what a row with nothing present gets: the classes' shares, the labels'
    rates or the mean of the training rows (`prior_`), flagged by `unknown`.

    X is `Views`, a mapping of names to arrays or features, or, where the setting `columns` says which columns are which
    view, one array (n, d). A row of NaN in a plain array is an absent one. y is, by the setting `task`: `classes`, one
    name or whole number per row (None: not labelled); `multilabel`, 0 and 1 of shape (n, L) or lists of names;
    `regression`, one number per row (NaN: not labelled).

    Learned: `classes_` (sorted; of labels, their names), `prior_`, `target_`, `modalities_` (those used, in order),
    `view_shapes_` (all that `fit` saw), `curves_` (what was tried while fitting, as JSON).
    Raises FusionError for views or labels that do not fit.
    """

    handles_missing: ClassVar[Literal["native", "imputed", "complete-only"]]
    """`native`: learns and predicts from what is present; `imputed`: absent views are filled in first; `complete-only`:
    learns from rows that have every view, and predicts others with absent views filled in."""
    tasks: ClassVar[frozenset[Task]] = frozenset({"classes", "multilabel", "regression"})
    """What the method can learn."""
    uses_unlabelled: ClassVar[bool] = False
    """Whether `_fit` gets the rows without a label too."""
    streams: ClassVar[bool] = False
    """Whether it reads views a batch at a time, so that they may stay in the feature store (`View.stored`)."""
    contains_training_rows: ClassVar[bool] = False
    """Whether the saved model holds rows that it learned from, as kernels do."""

    scaling: Scaling
    modalities: Sequence[str] | None
    random_state: int | None
    task: Task
    columns: Columns | None
    impute: Literal["mean", "ridge"]
    """How absent views are filled in; a setting of the methods that are not native."""

    # What users call

    def fit(
        self,
        X: AnyViews | npt.ArrayLike,
        y: npt.ArrayLike,
        *,
        validation: LabelledViews | tuple[AnyViews | npt.ArrayLike, npt.ArrayLike] | None = None,
        domain: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
        run: FitRun | None = None,
    ) -> Self:
        """Learn from views of n samples and their n labels.

        `validation` (views, labels) stops training, chooses strengths of penalties and calibrates; it is never learned
        from otherwise. `domain` (n,) says "source" or "target" of each row: labels of target rows are not looked at.
        Training rows in which nothing is present only count for `prior_`, rows that weigh nothing for nothing but the
        names of classes.
        """
        if self.task not in self.tasks:
            raise FusionError(f"{type(self).__name__} learns {', '.join(sorted(self.tasks))}, not {self.task}")
        if y is None:
            raise FusionError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        views = self._views(X, reset=True)
        self.view_shapes_ = {name: view.shape for name, view in views.items()}
        self.modalities_ = self._chosen()
        weights = checked_weights(sample_weight, len(views))
        y = source_labels(y, domain, len(views), self.task)
        self._set_target(learn_target(self.task, y, weights))
        targets, labelled = self.target_.encode(y, len(views))
        used = self._checked(views)
        if never := [name for name, view in used.items() if not weights[view.present].any()]:
            raise FusionError(f"view {never[0]}: present in no training row; leave it out")
        self.scaler_ = Scaler(self.scaling).fit(used, weights, in_parts=self.streams)
        kept = any_present(used) & (labelled | self.uses_unlabelled) & (weights > 0)
        if not (kept & labelled).any():
            raise FusionError("y: every labelled row that weighs anything lacks all views")
        train = Rows(self.scaler_.transform(used), targets, weights, labelled)[kept]
        self.curves_: dict[str, Json] = {}
        if self.handles_missing != "native":
            self.imputer_ = Imputer(self.impute).fit(train.views, train.weights)
            train = self._complete(train)
        self._fit(train, self._validation_rows(validation), run or FitRun())
        return self

    def predict(self, X: AnyViews | npt.ArrayLike) -> Array:
        """The most probable class of each row (n,), its labels (n, L) of 0 and 1, or its number (n,)."""
        outputs = self._finished(X)
        return self.target_.predicted(outputs)

    @available_if(_predicts_probabilities)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: AnyViews | npt.ArrayLike) -> Array:
        """Probabilities (n, C) of classes in the order of `classes_`, or of each label (n, L)."""
        outputs = self._finished(X)
        return probabilities(self.target_, outputs)

    @available_if(_predicts_probabilities)  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: AnyViews | npt.ArrayLike) -> Array:
        """Natural logarithms of `predict_proba`."""
        outputs = self._finished(X)
        return outputs if self.task == "classes" else np.asarray(log_expit(outputs))

    def unknown(self, X: AnyViews | npt.ArrayLike) -> Array:
        """Which rows have nothing that this model reads, so that they get `prior_`: booleans (n,)."""
        return ~any_present(self._prepared(X))

    def score(self, X: AnyViews | npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> float:
        """Accuracy, the share of rows with every label right, or R²; of the labelled rows.

        Raises FusionError for labels that `fit` did not see.
        """
        predicted = self.predict(X)
        truth, labelled = self.target_.encode(y, len(predicted))
        weights = None if sample_weight is None else np.asarray(sample_weight)[labelled]
        return self.target_.score(predicted[labelled], truth[labelled], weights)

    def label_codes(self, y: npt.ArrayLike) -> Array:
        """Labels as the model counts them: positions in `classes_` (n,), 0 and 1 (n, L), or numbers.

        Raises FusionError for a label that was not in training.
        """
        codes, labelled = self.target_.encode(y, len(y))  # type: ignore[arg-type]
        if not labelled.all():
            raise FusionError(f"y: row {int(np.flatnonzero(~labelled)[0])} has no label")
        return codes

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.allow_nan = True
        if self.task == "regression":
            tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
        else:
            tags.estimator_type = "classifier"
            tags.classifier_tags = ClassifierTags(multi_label=self.task == "multilabel")
        return tags

    def save(self, folder: str | Path) -> None:
        """Write `model.safetensors` and `model.json` into an existing folder: equal models, equal bytes."""
        check_is_fitted(self, "target_")
        arrays, facts = self._state()
        filled = {} if self.handles_missing == "native" else self.imputer_.arrays()
        write_model(
            Path(folder),
            type(self),
            settings=self.get_params(deep=False),
            shapes=self.view_shapes_,
            arrays={**arrays, **filled, **self.scaler_.arrays(), "prior": self.prior_},
            facts={
                **facts,
                "curves": self.curves_,
                "target": self.target_.facts(),
                "contains_training_rows": self.contains_training_rows,
            },
        )

    @classmethod
    def load(cls, folder: str | Path, *, trusted: Sequence[type[FusionModel]] = ()) -> Self:
        """The model saved in `folder`. Nothing in the file is executed, and no module that it names is imported.

        Called on `FusionModel` it takes any method of this library and the classes `trusted`, called on a method only
        that one. Raises FusionError for another class or a file that is not such a model.
        """
        saved = read_model(Path(folder), cls, base=cls is FusionModel, trusted=trusted)
        model: Self = saved.kind(**saved.settings)
        model.view_shapes_ = saved.shapes
        model.modalities_ = model._chosen()
        model._set_target(restored_target(saved.facts["target"], saved.arrays["prior"]))
        model.curves_ = saved.facts["curves"]
        model.scaler_ = Scaler.restored(model.scaling, saved.arrays, model.modalities_)
        if model.handles_missing != "native":
            model.imputer_ = Imputer.restored(model.impute, saved.arrays)
        if model.columns is not None:
            model.n_features_in_ = sum(shape[0] for shape in saved.shapes.values())
        model._restore(saved.arrays, saved.facts)
        return model

    # What a method writes

    @abstractmethod
    def _fit(self, train: Rows, validation: Rows | None, run: FitRun) -> None:
        """Learn from rows that each have something present."""

    @abstractmethod
    def _outputs(self, views: Views) -> Array:
        """Outputs of prepared rows that each have something present, see `Target`: logits, log-odds or values."""

    @abstractmethod
    def _state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        """What `_fit` learned, as arrays and as JSON."""

    @abstractmethod
    def _restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        """The opposite of `_state`."""

    # What is the same for all

    def _set_target(self, target: Target) -> None:
        self.target_, self.classes_, self.prior_ = target, target.classes, target.prior

    def _views(self, X: AnyViews | npt.ArrayLike, *, reset: bool = False) -> Views:
        """X as views; one array is cut into its columns."""
        if isinstance(X, Views | Mapping) and not self._is_plain(X):
            return Views.of(X) if self.streams else Views.of(X).read()
        if self.columns is None:
            raise FusionError(
                f"views need to be `Views` or a mapping of modality names to arrays, got {type(X).__name__}; "
                "for one array set columns={name: slice(start, stop)}"
            )
        array = validate_data(self, X, reset=reset, dtype="numeric", ensure_all_finite="allow-nan")
        spans = {name: span if isinstance(span, slice) else slice(*span) for name, span in self.columns.items()}
        if empty := [name for name, span in spans.items() if not array[:, span].shape[1]]:
            width = array.shape[1]
            raise FusionError(f"columns: {empty[0]} has none of the {width} columns (n_features = {width})")
        return Views({name: array[:, span] for name, span in spans.items()})

    @staticmethod
    def _is_plain(X: Any) -> bool:
        """Whether X is one array; some sparse arrays are mappings too."""
        return issparse(X) or not isinstance(X, Views | Mapping)

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
            if not view.shape[0]:
                raise FusionError(f"view {name}: has no columns, got the shape {view.values.shape}")
            if view.shape != self.view_shapes_[name]:
                needed = (len(view), *self.view_shapes_[name])
                raise FusionError(f"view {name}: needs the shape {needed}, got {view.values.shape}")
            check_finite(name, view)
        return Views(used)

    def _prepared(self, X: AnyViews | npt.ArrayLike) -> Views:
        check_is_fitted(self, "target_")
        return self.scaler_.transform(self._checked(self._views(X)))

    def _filled(self, views: Views) -> Views:
        """Prepared rows as the method reads them: absent views filled in, where it needs that."""
        return views if self.handles_missing == "native" else self.imputer_.filled(views)

    def _finished(self, X: AnyViews | npt.ArrayLike) -> Array:
        """Finished outputs of all rows; those with nothing present get the prior."""
        views = self._prepared(X)
        known = any_present(views)
        outputs = self.target_.constant(len(views))
        if known.any():
            outputs[known] = self._outputs(self._filled(views[known]))
        return self.target_.finished(outputs)

    def _complete(self, train: Rows) -> Rows:
        """The rows that a method which is not native learns from, with nothing absent."""
        if self.handles_missing == "complete-only":
            every = np.all([view.present for _, view in train.views.items()], axis=0)
            if not (every & train.labelled).any():
                raise FusionError(
                    f"{type(self).__name__} learns from rows that have every view, and no labelled row has: "
                    + ", ".join(f"{name} in {int(view.present.sum())}" for name, view in train.views.items())
                    + f" of {len(train)} rows"
                )
            train = train[every]
        return replace(train, views=self._filled(train.views))

    def _validation_rows(
        self, validation: LabelledViews | tuple[AnyViews | npt.ArrayLike, npt.ArrayLike] | None
    ) -> Rows | None:
        if validation is None:
            return None
        X, y = (validation.views, validation.labels) if isinstance(validation, LabelledViews) else validation
        views = self._views(X)
        try:
            targets, labelled = self.target_.encode(y, len(views), "validation labels")
            used = self._checked(views)
        except FusionError as error:
            raise FusionError(f"validation: {error}") from None
        rows = Rows(self.scaler_.transform(used), targets, np.ones(len(views)), labelled)[labelled & any_present(used)]
        return replace(rows, views=self._filled(rows.views)) if len(rows) else None


class SharedSpace(TransformerMixin, FusionModel):  # type: ignore[misc]
    """A fusion method that maps every modality into one space, and a row to one point of it.

    A method writes `_project`; `fuse` is the mean of the present modalities' points unless it says otherwise, so
    that `transform(v)[m] == fuse({m: v[m]})`.
    """

    def transform(self, X: AnyViews | npt.ArrayLike) -> dict[str, Array] | Array:
        """Each modality in the shared space: (n, k), NaN where a row does not have it.

        Of one array (see `columns`) it is what `fuse` gives, so that the model can stand before any other in a
        scikit-learn pipeline.
        """
        if self._is_plain(X):
            return self.fuse(X)
        views = self._prepared(X)
        points = {}
        for name, view in views.items():
            projected = self._project(name, view.values)
            projected[~view.present] = np.nan
            points[name] = projected
        return points

    def fuse(self, X: AnyViews | npt.ArrayLike) -> Array:
        """Each row as one point of the shared space: (n, k), NaN where nothing is present."""
        views = self._prepared(X)
        fused = self._fused(self._filled(views))
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
