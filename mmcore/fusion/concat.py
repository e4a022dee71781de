"""Early fusion: views side by side, then one linear classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from mmcore.fusion.base import AnyViews, Columns, FitRun, Rows
from mmcore.fusion.data import Array, Views
from mmcore.fusion.headed import HeadedFusion
from mmcore.fusion.heads import HeadKind, Strength
from mmcore.fusion.impute import side_by_side
from mmcore.fusion.scaling import Scaling
from mmcore.fusion.targets import Task
from mmcore.records import Json


class ConcatFusion(HeadedFusion):
    """Concatenation: absent views are imputed, and one head reads all columns together.

    See `Imputer` and `heads` for the formulas. There is no space that modalities share, hence no `transform`;
    `fuse` gives the imputed, scaled columns.
    """

    handles_missing = "imputed"

    def __init__(
        self,
        *,
        head: HeadKind = "linear",
        C: Strength = "auto",
        impute: Literal["mean", "ridge"] = "ridge",
        scaling: Scaling = "standard",
        modalities: Sequence[str] | None = None,
        random_state: int | None = 0,
        task: Task = "classes",
        columns: Columns | None = None,
    ) -> None:
        self.head = head
        self.C = C
        self.impute = impute
        self.scaling = scaling
        self.modalities = modalities
        self.random_state = random_state
        self.task = task
        self.columns = columns

    def fuse(self, X: AnyViews) -> Array:
        """Each row's views side by side, scaled and imputed: (n, widths in all)."""
        return self._features(self._filled(self._prepared(X)))

    def _learn(self, train: Rows, validation: Rows | None, run: FitRun) -> None:
        """There is nothing to learn before the head."""

    def _features(self, views: Views) -> Array:
        return side_by_side(views)[0]

    def _map_state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        return {}, {}

    def _map_restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        pass
