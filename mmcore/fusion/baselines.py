"""What every table has beside the methods: what can be said without looking at any value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mmcore.fusion.base import Columns, FitRun, FusionModel, Rows
from mmcore.fusion.data import Array, Views
from mmcore.fusion.headed import HeadedFusion
from mmcore.fusion.heads import HeadKind, Strength
from mmcore.fusion.scaling import Scaling
from mmcore.fusion.targets import Task
from mmcore.records import Json


class Majority(FusionModel):
    """The classes' shares, the labels' rates or the mean of the training rows, whatever the views hold."""

    handles_missing = "native"

    def __init__(
        self,
        *,
        scaling: Scaling = "none",
        modalities: Sequence[str] | None = None,
        random_state: int | None = 0,
        task: Task = "classes",
        columns: Columns | None = None,
    ) -> None:
        self.scaling = scaling
        self.modalities = modalities
        self.random_state = random_state
        self.task = task
        self.columns = columns

    def _fit(self, train: Rows, validation: Rows | None, run: FitRun) -> None:
        """The base class has learned all there is."""

    def _outputs(self, views: Views) -> Array:
        return self.target_.constant(len(views))

    def _state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        return {}, {}

    def _restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        pass


class Missingness(HeadedFusion):
    """A head on which modalities a row has, and on nothing else: one column of 0 and 1 per modality.

    Where it is better than `Majority`, what is missing tells something about the label, and a method's score with
    missing modalities may come from that. A row with nothing present gets the training rows' shares, as from every
    method.
    """

    handles_missing = "native"
    uses_unlabelled = False

    def __init__(
        self,
        *,
        head: HeadKind = "linear",
        C: Strength = "auto",
        scaling: Scaling = "none",
        modalities: Sequence[str] | None = None,
        random_state: int | None = 0,
        task: Task = "classes",
        columns: Columns | None = None,
    ) -> None:
        self.head = head
        self.C = C
        self.scaling = scaling
        self.modalities = modalities
        self.random_state = random_state
        self.task = task
        self.columns = columns

    def _learn(self, train: Rows, validation: Rows | None, run: FitRun) -> None:
        """There is nothing to learn before the head."""

    def _features(self, views: Views) -> Array:
        return np.stack([view.present for _, view in views.items()], axis=1).astype(np.float64)

    def _map_state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        return {}, {}

    def _map_restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        pass
