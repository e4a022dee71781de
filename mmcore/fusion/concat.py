"""Early fusion: views side by side, then one linear classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from mmcore.fusion.base import AnyViews, FitRun, FusionModel, Rows
from mmcore.fusion.data import Array, Views
from mmcore.fusion.impute import Imputer
from mmcore.fusion.linear import LinearHead
from mmcore.fusion.scaling import Scaling
from mmcore.records import Json


class ConcatFusion(FusionModel):
    """Concatenation: absent views are imputed, and multinomial logistic regression reads all columns together.

    See `Imputer` and `LinearHead` for the formulas. There is no space that modalities share, hence no `transform`;
    `fuse` gives the imputed, scaled columns.
    """

    handles_missing = "imputed"

    def __init__(
        self,
        *,
        C: float | Literal["auto"] = "auto",
        impute: Literal["mean", "ridge"] = "ridge",
        scaling: Scaling = "standard",
        modalities: Sequence[str] | None = None,
        random_state: int | None = 0,
    ) -> None:
        self.C = C
        self.impute = impute
        self.scaling = scaling
        self.modalities = modalities
        self.random_state = random_state

    def fuse(self, X: AnyViews) -> Array:
        """Each row's views side by side, scaled and imputed: (n, widths in all)."""
        return self.imputer_.transform(self._prepared(X))

    def _fit(self, train: Rows, validation: Rows | None, run: FitRun) -> None:
        self.imputer_ = Imputer(self.impute).fit(train.views, train.weights)
        held = None if validation is None else (self.imputer_.transform(validation.views), validation.codes)
        X = self.imputer_.transform(train.views)
        head = LinearHead(self.C, self.random_state)
        self.head_ = head.fit(X, train.codes, len(self.classes_), train.weights, held)
        self.curves_ = {"head": self.head_.tried}

    def _log_proba(self, views: Views) -> Array:
        return self.head_.log_proba(self.imputer_.transform(views))

    def _state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        return {**self.imputer_.arrays(), **self.head_.arrays("head")}, {}

    def _restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        self.imputer_ = Imputer.restored(self.impute, arrays)
        self.head_ = LinearHead.restored(arrays, "head")
