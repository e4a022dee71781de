"""Late fusion: one classifier per modality, their log probabilities added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmcore.fusion.base import Columns, FitRun, Rows, SharedSpace, present_counts
from mmcore.fusion.data import Array, Views
from mmcore.fusion.heads import HeadKind, Strength, make_head, restored_head
from mmcore.fusion.scaling import Scaling
from mmcore.fusion.targets import Task, calibrate
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
        head: HeadKind = "linear",
        C: Strength = "auto",
        scaling: Scaling = "standard",
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

    def _fit(self, train: Rows, validation: Rows | None, run: FitRun) -> None:
        self.heads_ = {}
        for name, view in train.views.items():
            rows = train[view.present]
            held = None if validation is None else validation[validation.views[name].present]
            head = make_head(self.head, self.target_, C=self.C, random_state=self.random_state)
            self.heads_[name] = head.fit(
                rows.views[name].values,
                rows.targets,
                rows.weights,
                (held.views[name].values, held.targets) if held is not None and len(held) else None,
            )
        self.curves_ = {name: head.tried for name, head in self.heads_.items()}
        self.sharpness_ = 1.0
        if validation is not None and len(self.heads_) > 1:
            self.sharpness_ = calibrate(self.target_, self._summed(validation.views), validation.targets)

    def _project(self, name: str, values: Array) -> Array:
        return self._points(self.target_.finished(self.heads_[name].outputs(values)))

    def _summed(self, views: Views) -> Array:
        """Log probabilities or log-odds added; of numbers the mean."""
        if self.task == "regression":
            return self._fused(views)[:, 0]
        return self._fused(views) * present_counts(views)[:, None]

    def _points(self, outputs: Array) -> Array:
        return outputs[:, None] if self.task == "regression" else outputs

    def _outputs(self, views: Views) -> Array:
        return self.sharpness_ * self._summed(views)

    def _state(self) -> tuple[dict[str, Array], dict[str, Json]]:
        arrays = {
            key: array for name, head in self.heads_.items() for key, array in head.arrays(f"head.{name}").items()
        }
        return arrays, {"sharpness": self.sharpness_}

    def _restore(self, arrays: Mapping[str, Array], facts: Mapping[str, Json]) -> None:
        self.heads_ = {
            name: restored_head(self.head, self.target_, arrays, f"head.{name}") for name in self.modalities_
        }
        self.sharpness_ = facts["sharpness"]
