"""Late fusion: one classifier per modality, and a combination of what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mmcore.fusion.base import AnyViews, Columns, FitRun, Rows, SharedSpace, any_present
from mmcore.fusion.combining import Combine, Scores, make_combiner
from mmcore.fusion.data import Array, Views
from mmcore.fusion.heads import Head, HeadKind, Strength, holds_training_rows, make_head, restored_head
from mmcore.fusion.heads.folds import folds
from mmcore.fusion.scaling import Scaling
from mmcore.fusion.targets import Task
from mmcore.records import Json


class LateFusion(SharedSpace):
    """One classifier (a head, see `heads`) per modality, from the rows that have it, and what they say combined.

    `product`, `mean` and `learned` are pools of the present modalities' opinions (see `combining.Pool`), `stacking` is
    a classifier on top of them (`combining.Stack`). The pools' outputs are sharpened by one number β, calibrated on
    validation rows (1 without). `product`: softmax(β Σ_{m∈P} log p(y | x_m)), more certain where more modalities agree.
    With one modality a pool is that modality's own classifier. A modality that no labelled row has is left out: it says
    nothing, and a row with nothing else gets the prior.

    Weights are learned from validation rows, or without them from training rows out of fold; the classifier on top
    always from the latter: each modality's rows are scored by classifiers of at most 5 folds that did not learn from
    them, at the strength chosen on all rows.

    The shared space is that of what is averaged: log probabilities or log-odds (`product`, `stacking`), probabilities
    (`mean`, `learned`), or numbers; a row is fused to their (weighted) mean over its modalities.
    Learned: `heads_` {view: head}, `combiner_`.
    """

    handles_missing = "native"

    def __init__(
        self,
        *,
        combine: Combine = "product",
        head: HeadKind = "linear",
        C: Strength = "auto",
        scaling: Scaling = "standard",
        modalities: Sequence[str] | None = None,
        random_state: int | None = 0,
        task: Task = "classes",
        columns: Columns | None = None,
    ) -> None:
        self.combine = combine
        self.head = head
        self.C = C
        self.scaling = scaling
        self.modalities = modalities
        self.random_state = random_state
        self.task = task
        self.columns = columns

    @property
    def contains_training_rows(self) -> bool:  # type: ignore[override]
        """Whether the heads are ones that keep rows."""
        return holds_training_rows(self.head)

    def unknown(self, X: AnyViews | npt.ArrayLike) -> Array:
        return ~any_present(self._heard(self._prepared(X)))

    def _fit(self, train: Rows, validation: Rows | None, run: FitRun) -> None:
        taught = [name for name, view in train.views.items() if view.present.any()]
        self.heads_ = {name: self._learned(name, train, validation, run, self.C) for name in taught}
        self.curves_ = {name: head.tried for name, head in self.heads_.items()}
        self.combiner_ = make_combiner(self.combine, self.target_, len(self.heads_), self.random_state)
        held = None if validation is None else self._scores(validation)
        # Rows of which only modalities that are left out are present tell nothing.
        held = held if held is not None and len(held) else None
        unseen = None
        if self.combiner_.learns:
            by_validation = held is not None and self.combine != "stacking"
            unseen = held if by_validation else self._out_of_fold(train, validation, run)
        self.combiner_.fit(unseen, held)
        if self.combiner_.tried:
            self.curves_ = {**self.curves_, "combine": self.combiner_.tried}

    def _learned(self, name: str, train: Rows, validation: Rows | None, run: FitRun, C: Strength) -> Head:
        """The head of one modality, from the rows that have it."""
        rows = train[train.views[name].present]
        held = None if validation is None else validation[validation.views[name].present]
        head = make_head(self.head, self.target_, C=C, random_state=self.random_state, threads=run.threads)
        return head.fit(
            rows.views[name].values,
            rows.targets,
            rows.weights,
            (held.views[name].values, held.targets) if held is not None and len(held) else None,
        )

    def _out_of_fold(self, train: Rows, validation: Rows | None, run: FitRun) -> Scores:
        """Scores of training rows by heads that did not learn from them (by those that did where rows are too few)."""
        scores = self._scores(train)
        for number, name in enumerate(self.heads_):
            view = train.views[name]
            there = np.flatnonzero(view.present)
            for fit, held in folds(self.target_, train.targets[there], self.random_state):
                head = self._learned(name, train[there[fit]], validation, run, self.heads_[name].tried["C"])
                scores.outputs[there[held], number] = self._said(head, view.values[there[held]])
        return scores

    def _scores(self, rows: Rows) -> Scores:
        """Those of the rows that have a modality with a head."""
        rows = rows[any_present(self._heard(rows.views))]
        return Scores(*self._all_said(rows.views), rows.targets, rows.weights)

    def _heard(self, views: Views) -> Views:
        """The modalities that have a head."""
        return views.only(list(self.heads_))

    def _all_said(self, views: Views) -> tuple[Array, Array]:
        """Finished outputs (n, M, k) of each modality's head, and which are present (n, M)."""
        said = np.stack([self._said(head, views[name].values) for name, head in self.heads_.items()], axis=1)
        return said, np.stack([views[name].present for name in self.heads_], axis=1)

    def _said(self, head: Head, values: Array) -> Array:
        return self._column(head.outputs(values))

    def _column(self, outputs: Array) -> Array:
        """Finished outputs (n, k) of outputs."""
        outputs = self.target_.finished(outputs)
        return outputs[:, None] if self.task == "regression" else outputs

    def _project(self, name: str, values: Array) -> Array:
        if name not in self.heads_:
            return self._unheard(len(values))
        return self.combiner_.points(self._said(self.heads_[name], values))

    def _unheard(self, rows: int) -> Array:
        """The point of rows of which nothing is known, (n, k)."""
        return self.combiner_.points(self._column(self.target_.constant(rows)))

    def _fused(self, views: Views) -> Array:
        said, present = self._all_said(views)
        fused = self.combiner_.fused(self.combiner_.points(said), present)
        unheard = ~present.any(axis=1)
        fused[unheard] = self._unheard(int(unheard.sum()))
        return fused

    def _outputs(self, views: Views) -> Array:
        said, present = self._all_said(views)
        outputs = self.combiner_.outputs(said, present)
        unheard = ~present.any(axis=1)
        outputs[unheard] = self.target_.constant(int(unheard.sum()))
        return outputs

    def _state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        arrays, facts = self.combiner_.state()
        for name, head in self.heads_.items():
            arrays |= head.arrays(f"head.{name}")
        return arrays, {**facts, "heard": list(self.heads_)}

    def _restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        self.heads_ = {name: restored_head(self.head, self.target_, arrays, f"head.{name}") for name in facts["heard"]}
        self.combiner_ = make_combiner(self.combine, self.target_, len(self.heads_), self.random_state)
        self.combiner_.restore(arrays, facts)
