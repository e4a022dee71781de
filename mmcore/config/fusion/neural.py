"""Networks that learn a representation of all views."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from mmcore.config.fusion.base import NeuralFusion


class AutoencoderSettings(NeuralFusion):
    """A multimodal autoencoder: one code from the present modalities reconstructs all; a head predicts the class."""

    implementation: ClassVar[str] = "mmcore.fusion.autoencoder:AutoencoderFusion"

    method: Literal["autoencoder"] = "autoencoder"
    dim: int = Field(32, ge=1)
    """Width of the shared code."""
    hidden: int = Field(128, ge=1)
    """Width of the hidden layers."""
    reconstruction: float = Field(1.0, ge=0)
    """Weight of the reconstruction loss beside the classification loss."""
