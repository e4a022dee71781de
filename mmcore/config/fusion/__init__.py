"""The fusion methods and how the best of them is chosen."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from mmcore.config.base import Part
from mmcore.config.fusion.base import FusionMethod, Headed, NeuralFusion
from mmcore.config.fusion.baselines import MajoritySettings, MissingnessSettings
from mmcore.config.fusion.neural import AutoencoderSettings
from mmcore.config.fusion.plain import ConcatSettings, LateSettings, MultiplicativeSettings, WeightedSettings
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
    "MajoritySettings",
    "MethodSettings",
    "MissingnessSettings",
    "MultiplicativeSettings",
    "NeuralFusion",
    "WeightedSettings",
]

AnyFusion = Annotated[
    ConcatSettings
    | LateSettings
    | WeightedSettings
    | MultiplicativeSettings
    | CcaSettings
    | AutoencoderSettings
    | MajoritySettings
    | MissingnessSettings,
    Field(discriminator="method"),
]

IMPLEMENTATIONS = frozenset(
    settings.implementation
    for settings in (
        ConcatSettings,
        LateSettings,
        WeightedSettings,
        MultiplicativeSettings,
        CcaSettings,
        AutoencoderSettings,
        MajoritySettings,
        MissingnessSettings,
    )
)
"""The classes that a saved model may be an instance of."""


def _by_name(value: Any) -> Any:
    return {"method": value} if isinstance(value, str) else value


MethodName = Literal["concat", "late", "weighted", "multiplicative", "cca", "autoencoder", "majority", "missingness"]

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
