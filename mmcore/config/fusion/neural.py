"""Networks that learn a representation of all views."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from mmcore.config.fusion.base import Headed, NeuralFusion


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


class VaeSettings(NeuralFusion):
    """A multimodal variational autoencoder: a density of all views; a head predicts from the code."""

    implementation: ClassVar[str] = "mmcore.fusion.vae:VaeFusion"

    method: Literal["vae"] = "vae"
    posterior: Literal["product", "mixture", "product-mixture"] = "product"
    """How the modalities' posteriors become one: MVAE, MMVAE or MoPoE."""
    dim: int = Field(32, ge=1)
    """Width of the code."""
    hidden: int = Field(128, ge=1)
    """Width of the hidden layers."""
    generation: float = Field(1.0, ge=0)
    """Weight of the bound on the views' likelihood, per column, beside the classification loss."""
    beta: float = Field(1.0, ge=0)
    """Weight of the divergence from the prior within the bound."""


class DbmSettings(Headed):
    """A multimodal deep Boltzmann machine: a density of all views; a head predicts from its joint layer."""

    implementation: ClassVar[str] = "mmcore.fusion.boltzmann:DbmFusion"
    in_epochs: ClassVar[bool] = True

    method: Literal["dbm"] = "dbm"
    hidden: int = Field(128, ge=1)
    """Units of each hidden layer of a modality's pathway."""
    depth: int = Field(1, ge=1)
    """Hidden layers of each pathway, below the joint one."""
    dim: int = Field(128, ge=1)
    """Units of the joint layer."""
    visibles: Literal["auto", "gaussian", "binary"] = "auto"
    """What the views are: numbers, or 0 and 1; `auto` looks at each."""
    pretrain_epochs: int = Field(20, ge=0)
    """Passes over the training split for each layer by itself, before the whole."""
    epochs: int = Field(40, ge=1)
    """Passes over the training split for the whole machine."""
    batch_size: int = Field(100, ge=1)
    """Samples per training step, and chains of Gibbs sampling."""
    learning_rate: float = Field(3e-3, gt=0)
    """The first of each phase; it falls to zero."""
    weight_decay: float = Field(1e-2, ge=0)
    """How strongly AdamW pulls weights to zero."""
    mean_field_steps: int = Field(10, ge=1)
    """Rounds of mean-field inference."""
    gibbs_steps: int = Field(5, ge=1)
    """Rounds of Gibbs sampling of the chains per training step."""
