"""Plain fusion: views side by side, their products, weighted sums, one classifier per modality."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mmcore.config.fusion.base import Headed, NeuralFusion


class ConcatSettings(Headed):
    """Views side by side, absent ones imputed, then a head that reads all columns."""

    implementation: ClassVar[str] = "mmcore.fusion.concat:ConcatFusion"
    draws: ClassVar[bool] = False

    method: Literal["concat"] = "concat"
    impute: Literal["mean", "ridge"] = "ridge"
    """Absent views: the training mean, or ridge regression from the present ones."""


class LateSettings(Headed):
    """One classifier per modality; what those of the present modalities say is combined."""

    implementation: ClassVar[str] = "mmcore.fusion.late:LateFusion"
    draws: ClassVar[bool] = False

    method: Literal["late"] = "late"
    combine: Literal["product", "mean", "learned", "stacking"] = "product"
    """Log probabilities added, probabilities averaged, the same with weights learned for the modalities, or a
    classifier on top of all that the others say."""

    @property
    def seeded(self) -> bool:
        # Stacking deals training rows into folds.
        return super().seeded or self.combine == "stacking"


class MultiplicativeSettings(Headed):
    """All products of the views' leading principal components, then a head."""

    implementation: ClassVar[str] = "mmcore.fusion.multiplicative:MultiplicativeFusion"
    draws: ClassVar[bool] = False

    method: Literal["multiplicative"] = "multiplicative"
    dim: int = Field(16, ge=1)
    """Components per view at most; fewer where there would be more than 4,096 products."""
    impute: Literal["mean", "ridge"] = "ridge"
    """Absent views: the training mean, at which the products with them vanish, or ridge regression from the others."""


class WeightedSettings(NeuralFusion):
    """A weighted sum of per-modality projections."""

    implementation: ClassVar[str] = "mmcore.fusion.weighted:WeightedFusion"

    method: Literal["weighted"] = "weighted"
    weights: Literal["fixed", "learned", "gated"] = "learned"
    """Given numbers, one learned weight per modality, or weights for each sample from its own views."""
    fixed: dict[str, Annotated[float, Field(gt=0)]] | None = None
    """With `weights: fixed`, one number for each modality; equal ones when not given."""
    dim: int = Field(64, ge=1)
    """Width of the space in which the sum is taken."""

    @model_validator(mode="after")
    def _numbers_where_fixed(self) -> Self:
        if self.fixed is not None and self.weights != "fixed":
            raise ValueError(f"`fixed` gives weights, but `weights` is {self.weights}; set `weights: fixed`")
        return self
