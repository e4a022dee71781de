"""The fusion methods and how the best of them is chosen."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from mmcore.config.base import Part
from mmcore.config.fusion.base import FusionMethod, Headed, NeuralFusion
from mmcore.config.fusion.custom import CustomFusionSettings
from mmcore.config.fusion.neural import AutoencoderSettings
from mmcore.config.fusion.plain import ConcatSettings, LateSettings, WeightedSettings
from mmcore.config.fusion.subspace import CcaSettings
from mmcore.config.metrics import MetricName

__all__ = [
    "BASELINES",
    "IMPLEMENTATIONS",
    "AnyFusion",
    "AutoencoderSettings",
    "CcaSettings",
    "ConcatSettings",
    "CustomFusionSettings",
    "FusionConfig",
    "FusionMethod",
    "Headed",
    "LateSettings",
    "MethodSettings",
    "NeuralFusion",
    "WeightedSettings",
]

AnyFusion = Annotated[
    ConcatSettings | LateSettings | WeightedSettings | CcaSettings | AutoencoderSettings | CustomFusionSettings,
    Field(discriminator="method"),
]

IMPLEMENTATIONS = frozenset(
    settings.implementation
    for settings in (ConcatSettings, LateSettings, WeightedSettings, CcaSettings, AutoencoderSettings)
)
"""The classes that a saved model may be an instance of."""

BASELINES: tuple[type[FusionMethod], ...] = ()
"""Trained in every run beside the methods, on all modalities: what the others are held against."""


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
    metric: Literal["auto"] | MetricName = "auto"
    """What the best method is chosen by, on the validation split. `auto`: log loss, or RMSE for numbers. Classes:
    log_loss, accuracy, macro_f1; several labels also sample_f1, subset_accuracy, label_accuracy, micro_f1,
    mean_average_precision; numbers: rmse, mae, r2."""
    seed: int = Field(0, ge=0)
    """Seed of all fusion models."""
