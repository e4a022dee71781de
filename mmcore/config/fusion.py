"""The fusion methods and how the best of them is chosen."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator

from mmcore.config.base import Part, Settings

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


class NeuralFusion(FusionMethod):
    """What the methods trained by backpropagation have in common."""

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


class ConcatSettings(FusionMethod):
    """Views side by side, absent ones imputed, then a regularised linear classifier."""

    implementation: ClassVar[str] = "mmcore.fusion.concat:ConcatFusion"

    method: Literal["concat"] = "concat"
    C: Penalty = "auto"
    """Inverse strength of the L2 penalty; `auto` takes the best of several on the validation split."""
    impute: Literal["mean", "ridge"] = "ridge"
    """Absent views: the training mean, or ridge regression from the present ones."""


class LateSettings(FusionMethod):
    """The mean of the log probabilities of one linear classifier per modality, over the present modalities."""

    implementation: ClassVar[str] = "mmcore.fusion.late:LateFusion"

    method: Literal["late"] = "late"
    C: Penalty = "auto"
    """Inverse strength of each classifier's L2 penalty; `auto` takes the best of several on the validation split."""


class WeightedSettings(NeuralFusion):
    """A weighted sum of per-modality projections; the weights are learned."""

    implementation: ClassVar[str] = "mmcore.fusion.weighted:WeightedFusion"

    method: Literal["weighted"] = "weighted"
    weights: Literal["learned", "gated"] = "learned"
    """One weight per modality, or weights for each sample from its own views."""
    dim: int = Field(64, ge=1)
    """Width of the space in which the sum is taken."""


class CcaSettings(FusionMethod):
    """Regularised (multiset) canonical correlation analysis, then a linear classifier on the shared space."""

    implementation: ClassVar[str] = "mmcore.fusion.cca:CcaFusion"

    method: Literal["cca"] = "cca"
    n_components: int = Field(32, ge=1)
    """Width of the shared space."""
    shrinkage: float = Field(0.1, ge=0, le=1)
    """Ridge on each view's covariance: 0 is CCA, 1 is PLS."""
    C: Penalty = "auto"
    """Inverse strength of the classifier's L2 penalty; `auto` takes the best of several on the validation split."""


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


AnyFusion = Annotated[
    ConcatSettings | LateSettings | WeightedSettings | CcaSettings | AutoencoderSettings, Field(discriminator="method")
]

IMPLEMENTATIONS = frozenset(
    settings.implementation
    for settings in (ConcatSettings, LateSettings, WeightedSettings, CcaSettings, AutoencoderSettings)
)
"""The classes that a saved model may be an instance of."""


def _by_name(value: Any) -> Any:
    return {"method": value} if isinstance(value, str) else value


MethodName = Literal["concat", "late", "weighted", "cca", "autoencoder"]

# The JSON schema admits the bare name too: a server checks a deployment's parameters against it.
MethodSettings = Annotated[AnyFusion, BeforeValidator(_by_name, json_schema_input_type=MethodName | AnyFusion)]


def _one_of_each() -> list[AnyFusion]:
    return [ConcatSettings(), WeightedSettings(), CcaSettings(), AutoencoderSettings()]


class FusionConfig(Part):
    """Which methods are trained and how the best is chosen."""

    methods: list[MethodSettings] = Field(default_factory=_one_of_each, min_length=1)
    """Names, or names with settings: `[concat, {method: cca, n_components: 8}]`."""
    metric: Literal["log_loss", "accuracy", "macro_f1"] = "log_loss"
    """What the best method is chosen by, on the validation split."""
    seed: int = Field(0, ge=0)
    """Seed of all fusion models."""
