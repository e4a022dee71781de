"""Plain fusion: views side by side, weighted sums, one classifier per modality."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from mmcore.config.fusion.base import Headed, NeuralFusion


class ConcatSettings(Headed):
    """Views side by side, absent ones imputed, then a regularised linear classifier."""

    implementation: ClassVar[str] = "mmcore.fusion.concat:ConcatFusion"
    draws: ClassVar[bool] = False

    method: Literal["concat"] = "concat"
    impute: Literal["mean", "ridge"] = "ridge"
    """Absent views: the training mean, or ridge regression from the present ones."""


class LateSettings(Headed):
    """The mean of the log probabilities of one linear classifier per modality, over the present modalities."""

    implementation: ClassVar[str] = "mmcore.fusion.late:LateFusion"
    draws: ClassVar[bool] = False

    method: Literal["late"] = "late"


class WeightedSettings(NeuralFusion):
    """A weighted sum of per-modality projections; the weights are learned."""

    implementation: ClassVar[str] = "mmcore.fusion.weighted:WeightedFusion"

    method: Literal["weighted"] = "weighted"
    weights: Literal["learned", "gated"] = "learned"
    """One weight per modality, or weights for each sample from its own views."""
    dim: int = Field(64, ge=1)
    """Width of the space in which the sum is taken."""
