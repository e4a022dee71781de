"""What the fusion methods' settings have in common."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from mmcore.config.base import Settings

Penalty = Literal["auto"] | Annotated[float, Field(gt=0)]


class FusionMethod(Settings):
    """What all fusion methods have in common. The fields are the constructor's arguments."""

    scaling: Literal["none", "standard", "l2"] = "standard"
    """How each view is scaled first, fitted on its present training rows."""
    modalities: list[str] | None = Field(None, min_length=1)
    """Only these; all when not given."""

    @field_validator("modalities")
    @classmethod
    def _each_once(cls, names: list[str] | None) -> list[str] | None:
        listed = names or []
        if twice := [name for name in listed if listed.count(name) > 1]:
            raise ValueError(f"{twice[0]!r} is listed {listed.count(twice[0])} times; list each modality once")
        return names


class Headed(FusionMethod):
    """What the methods have in common whose map is followed by a head that predicts."""

    head: Literal["linear"] = "linear"
    """What predicts from the fused vector: logistic (of numbers: ridge) regression."""
    C: Penalty = "auto"
    """Inverse strength of the head's penalty; `auto` takes the best of several on the validation split."""


class NeuralFusion(FusionMethod):
    """What the methods trained by backpropagation have in common."""

    version: ClassVar[int] = 2

    epochs: int = Field(100, ge=1)
    """At most this many passes over the training split."""
    patience: int = Field(20, ge=1)
    """Stop after this many epochs without a better validation loss."""
    batch_size: int = Field(128, ge=1)
    """Samples per training step."""
    learning_rate: float = Field(2e-3, gt=0)
    """The highest of the schedule."""
    weight_decay: float = Field(1e-2, ge=0)
    """How strongly AdamW pulls weights to zero."""
    modality_dropout: float = Field(0.5, ge=0, lt=1)
    """Share of present modalities hidden in training (one always stays), so that none is leaned on alone."""
