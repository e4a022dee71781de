"""Methods that are a map from views to one vector per row, and a head that predicts from it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from mmcore.fusion.base import FitRun, FusionModel, Rows
from mmcore.fusion.data import Array, Views
from mmcore.fusion.heads import HeadKind, Strength, holds_training_rows, make_head, restored_head
from mmcore.records import Json


class HeadedFusion(FusionModel):
    """Base of the methods that learn a map first and a head on the mapped rows then.

    A method writes `_learn` (the map, from all rows, labelled or not), `_features` (rows mapped) and the two halves of
    saving the map. Settings: `head` and `C`, the strength of the head's penalty.
    """

    uses_unlabelled = True

    head: HeadKind
    C: Strength

    @property
    def contains_training_rows(self) -> bool:  # type: ignore[override]
        """Whether the head is one that keeps rows."""
        return holds_training_rows(self.head)

    def _fit(self, train: Rows, validation: Rows | None, run: FitRun) -> None:
        self._learn(train, validation, run)
        known = train[train.labelled]
        held = None if validation is None else (self._features(validation.views), validation.targets)
        self._fit_head(self._features(known.views), known.targets, known.weights, held, run)

    def _fit_head(
        self, X: Array, targets: Array, weights: Array, held: tuple[Array, Array] | None, run: FitRun
    ) -> None:
        """Fit the head on mapped rows (n, k); `held` are those of validation, and their targets."""
        # Of no columns, as constant views give, the linear head's intercepts learn the prior.
        kind = self.head if X.shape[1] else "linear"
        head = make_head(kind, self.target_, C=self.C, random_state=self.random_state, threads=run.threads)
        self.head_ = head.fit(X, targets, weights, held)
        self.curves_ = {**self.curves_, "head": self.head_.tried}

    def _outputs(self, views: Views) -> Array:
        return self.head_.outputs(self._features(views))

    def _state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        arrays, facts = self._map_state()
        return {**arrays, **self.head_.arrays("head")}, facts

    def _restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        self._map_restore(arrays, facts)
        kind: HeadKind = "linear" if "head.weights" in arrays else self.head
        self.head_ = restored_head(kind, self.target_, arrays, "head")

    @abstractmethod
    def _learn(self, train: Rows, validation: Rows | None, run: FitRun) -> None:
        """Learn the map; `validation` is for choosing strengths alone. May note what it did in `curves_`."""

    @abstractmethod
    def _features(self, views: Views) -> Array:
        """Prepared rows that each have something present, mapped: (n, k) without NaN."""

    @abstractmethod
    def _map_state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        """What `_learn` learned, as arrays and as JSON."""

    @abstractmethod
    def _map_restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        """The opposite of `_map_state`."""
