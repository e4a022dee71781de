"""Methods that learn their map from moments alone, so that the rows need not fit in memory."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

import numpy as np
import numpy.typing as npt

from mmcore.errors import FusionError
from mmcore.fusion.base import AnyViews, FitRun, Rows, any_present
from mmcore.fusion.data import Array, LabelledViews, Views
from mmcore.fusion.headed import HeadedFusion
from mmcore.fusion.moments import Moments
from mmcore.fusion.rows import checked_weights
from mmcore.fusion.scaling import Scaler
from mmcore.fusion.targets import learn_target

ROWS_AT_ONCE = 8_192
"""Rows mapped at a time where only moments of all are at hand."""


class MomentsFusion(HeadedFusion):
    """Base of the methods whose map follows from `Moments` of the training rows.

    A method writes `learn_moments` in place of `_learn`, and may be fitted in two ways: by `fit`, from rows, or by
    `fit_from_moments`, from the moments of all rows and some rows for the head. Both learn the same map.
    """

    handles_missing = "native"

    def fit_from_moments(
        self,
        moments: Moments,
        X: AnyViews,
        y: npt.ArrayLike,
        *,
        validation: LabelledViews | tuple[AnyViews, npt.ArrayLike] | None = None,
        sample_weight: npt.ArrayLike | None = None,
        run: FitRun | None = None,
    ) -> Self:
        """`fit` with the moments of all training rows; scaling and map come from them, head and prior from X and y.

        `moments` are of rows as they are, only with `scaling: l2` of rows that have it already. Raises FusionError as
        `fit` does, and where X does not have the views of `moments`.
        """
        if self.task not in self.tasks:
            raise FusionError(f"{type(self).__name__} learns {', '.join(sorted(self.tasks))}, not {self.task}")
        self.view_shapes_ = {name: (width,) for name, width in moments.widths.items()}
        self.modalities_ = self._chosen()
        used = moments.only(self.modalities_)
        if never := [name for name, weight in used.weights().items() if not weight > 0]:
            raise FusionError(f"view {never[0]}: present in no training row; leave it out")
        if bad := [name for name, span in used.spans.items() if not np.isfinite(used.means()[span]).all()]:
            raise FusionError(f"view {bad[0]}: a row is marked present but holds NaN or infinity")
        self.scaler_ = Scaler(self.scaling)
        if self.scaling == "standard":
            means, deviations = used.means(), used.deviations()
            self.scaler_.moments = {name: (means[span], deviations[span]) for name, span in used.spans.items()}
            used = used.scaled(means, deviations)
        self.curves_ = {}
        self.learn_moments(used)
        views = Views.of(X)
        weights = checked_weights(sample_weight, len(views))
        self._set_target(learn_target(self.task, y, weights))
        known = self._mapped(views, y, weights)
        if known is None:
            raise FusionError("y: every labelled row lacks all views")
        held = None
        if validation is not None:
            rows = validation if isinstance(validation, tuple) else (validation.views, validation.labels)
            held = self._mapped(Views.of(rows[0]), rows[1], np.ones(len(Views.of(rows[0]))))
        self._fit_head(*known, None if held is None else held[:2], run or FitRun())
        return self

    @abstractmethod
    def learn_moments(self, moments: Moments) -> None:
        """Learn the map from the moments of scaled rows. May note what it did in `curves_`."""

    def _learn(self, train: Rows, validation: Rows | None, run: FitRun) -> None:
        self.learn_moments(Moments.of(train.views, train.weights))

    def _mapped(self, views: Views, y: npt.ArrayLike, weights: Array) -> tuple[Array, Array, Array] | None:
        """The labelled rows with something present, mapped a few at a time; their targets and weights."""
        targets, labelled = self.target_.encode(y, len(views))
        checked = self._checked(views)
        kept = labelled & any_present(checked)
        rows = np.flatnonzero(kept)
        if not len(rows):
            return None
        parts = (rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE))
        points = [self._features(self.scaler_.transform(checked[part])) for part in parts]
        return np.concatenate(points), targets[kept], weights[kept]
