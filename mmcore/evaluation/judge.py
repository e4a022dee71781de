"""One fitted model on labelled rows: what it predicts of them in any state, and how good that is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from mmcore.errors import FusionError
from mmcore.evaluation.intervals import bootstrap_interval, wilson_interval
from mmcore.fusion.data import Array, LabelledViews, Views
from mmcore.fusion.scores import all_scores, explained, predictions_of, row_scores
from mmcore.records import Json

if TYPE_CHECKING:
    from mmcore.fusion.base import FusionModel

ALL = slice(None)


class Judge:
    """A model, what is true of n rows, and which group each is of (n,), where they come in groups.

    Raises FusionError for labels that the model did not learn, and for a row without one.
    """

    def __init__(self, model: FusionModel, rows: LabelledViews, groups: Array | None = None) -> None:
        self.model, self.rows, self.groups = model, rows, groups
        self.truth, labelled = model.target_.encode(rows.labels, len(rows))
        if not labelled.all():
            raise FusionError(f"row {rows.keys[~labelled][0]} has no label to be judged by")
        self.predicted_rows, self.seconds = 0, 0.0
        # The scale of R², which is that of all rows also where some of them are asked about.
        self._variance = float(np.var(self.truth)) if self.task == "regression" else 0.0

    @property
    def task(self) -> str:
        return str(self.model.task)

    def __len__(self) -> int:
        return len(self.rows)

    def predictions(self, views: Views) -> Array:
        """See `predictions_of`; counted and timed."""
        # A model may be handed more views than it learned from.
        known = views.only(list(self.model.view_shapes_))
        began = time.perf_counter()
        found = predictions_of(self.model, known)
        self.seconds += time.perf_counter() - began
        self.predicted_rows += len(known)
        return found

    def row_scores(self, predictions: Array, rows: Array | slice = ALL) -> Array:
        """One score per row (m,), whose mean is the headline metric, of predictions for these rows."""
        if self.task == "regression":
            return explained(self.truth[rows], predictions, self._variance)
        return row_scores(self.task, self.truth[rows], predictions)

    def __call__(self, views: Views, rows: Array) -> Array:
        """The score of each of these rows, shown as `views`."""
        return self.row_scores(self.predictions(views), rows)

    def summary(self, predictions: Array, rows: Array | slice = ALL) -> dict[str, Json]:
        """`n` and every metric of these of the rows; `predictions` are of all rows."""
        truth = self.truth[rows]
        return {"n": len(truth), **all_scores(self.task, truth, predictions[rows])}

    def headline(self, scores: Array, rows: Array | slice = ALL) -> dict[str, Json]:
        """`n` and the mean of the scores of these of the rows, as `score`, with its 95% interval."""
        mine = scores[rows]
        low, high = interval_of(mine, self.task, None if self.groups is None else self.groups[rows])
        return {"n": len(mine), "score": float(mine.mean()), "low": low, "high": high}


def interval_of(scores: Array, task: str, groups: Array | None) -> tuple[float, float]:
    """The 95% interval of the mean of rows' scores: Wilson's of a proportion, else the bootstrap's, by groups if any.

    A row's score may be its mean over seeds: then Wilson's interval is wider than it need be, never narrower.
    """
    if task == "classes" and groups is None:
        return wilson_interval(float(scores.sum()), len(scores))
    return bootstrap_interval(scores, groups)


def interval_words(task: str, *, grouped: bool) -> str:
    """How `interval_of` comes to its interval, for people."""
    if grouped:
        return "a bootstrap that draws whole groups of rows"
    return "Wilson's" if task == "classes" else "a bootstrap over rows"
