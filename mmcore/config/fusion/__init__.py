"""The fusion methods and how the best of them is chosen."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from mmcore.config.base import Part
from mmcore.config.fusion.base import FusionMethod, Headed, NeuralFusion
from mmcore.config.fusion.neural import AutoencoderSettings
from mmcore.config.fusion.plain import ConcatSettings, LateSettings, WeightedSettings
from mmcore.config.fusion.subspace import CcaSettings

__all__ = [
    "IMPLEMENTATIONS",
    "AnyFusion",
    "AutoencoderSettings",
    "CcaSettings",
    "ConcatSettings",
    "FusionConfig",
    "FusionMethod",
    "Headed",
    "LateSettings",
    "MethodSettings",
    "NeuralFusion",
    "WeightedSettings",
]

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
    memory_bytes: int = Field(1 << 30, ge=1)
    """Where the features of train and val take more than this (4 bytes a number), neural methods read them from the
    store batch by batch, with the same result; otherwise they are kept on the device. Other methods take all into
    memory."""
