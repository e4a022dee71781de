"""Late fusion: one classifier per modality, their log probabilities added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from scipy.special import log_softmax

from mmcore.fusion.base import FitRun, Rows, SharedSpace, present_counts
from mmcore.fusion.data import Array, Views
from mmcore.fusion.linear import LinearHead, calibrate
from mmcore.fusion.scaling import Scaling
from mmcore.records import Json


class LateFusion(SharedSpace):
    """The mean of the log probabilities of one linear classifier per modality, over the present modalities.

    Each classifier (see `LinearHead`) learns from the rows that have its modality. The shared space is that of
    class log probabilities, z_m = log p(y | x_m), and a row with the modalities P is fused to z = Σ_{m∈P} z_m / |P|.
    Probabilities are softmax(β |P| z), the product of experts (Hinton 2002) with one sharpness β, calibrated on
    validation rows (1 without): the class with the highest mean, more certain where more modalities agree.
    With one modality it is that modality's own classifier.
    """

    handles_missing = "native"

    def __init__(
        self,
        *,
        C: float | Literal["auto"] = "auto",
        scaling: Scaling = "standard",
        modalities: Sequence[str] | None = None,
        random_state: int | None = 0,
    ) -> None:
        self.C = C
        self.scaling = scaling
        self.modalities = modalities
        self.random_state = random_state

    def _fit(self, train: Rows, validation: Rows | None, run: FitRun) -> None:
        self.heads_ = {}
        for name, view in train.views.items():
            rows = train[view.present]
            held = None if validation is None else validation[validation.views[name].present]
            self.heads_[name] = LinearHead(self.C, self.random_state).fit(
                rows.views[name].values,
                rows.codes,
                len(self.classes_),
                rows.weights,
                (held.views[name].values, held.codes) if held is not None and len(held) else None,
            )
        self.curves_ = {name: head.tried for name, head in self.heads_.items()}
        self.sharpness_ = 1.0
        if validation is not None and len(self.heads_) > 1:
            self.sharpness_ = calibrate(self._summed(validation.views), validation.codes)

    def _project(self, name: str, values: Array) -> Array:
        return self.heads_[name].log_proba(values)

    def _summed(self, views: Views) -> Array:
        return self._fused(views) * present_counts(views)[:, None]

    def _log_proba(self, views: Views) -> Array:
        return np.asarray(log_softmax(self.sharpness_ * self._summed(views), axis=1))

    def _state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        arrays = {
            key: array for name, head in self.heads_.items() for key, array in head.arrays(f"head.{name}").items()
        }
        return arrays, {"sharpness": self.sharpness_}

    def _restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        self.heads_ = {name: LinearHead.restored(arrays, f"head.{name}") for name in self.modalities_}
        self.sharpness_ = facts["sharpness"]
