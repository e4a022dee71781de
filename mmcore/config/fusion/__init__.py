"""The fusion methods and how the best of them is chosen."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from mmcore.config.base import Part
from mmcore.config.fusion.base import FusionMethod, Headed, MemoryBytes, NeuralFusion
from mmcore.config.fusion.baselines import MajoritySettings, MissingnessSettings
from mmcore.config.fusion.custom import CustomFusionSettings
from mmcore.config.fusion.factor import SharedFactorSettings
from mmcore.config.fusion.kernel import (
    AverageKernelSettings,
    EasyMklSettings,
    KernelAlignmentSettings,
    KernelMethod,
    LpMklSettings,
)
from mmcore.config.fusion.neural import AutoencoderSettings, DbmSettings, VaeSettings
from mmcore.config.fusion.plain import ConcatSettings, LateSettings, MultiplicativeSettings, WeightedSettings
from mmcore.config.fusion.subspace import CcaSettings, GccaSettings, KccaSettings, PlsSettings, Subspace
from mmcore.config.metrics import MetricName

__all__ = [
    "BASELINES",
    "IMPLEMENTATIONS",
    "AnyFusion",
    "AutoencoderSettings",
    "AverageKernelSettings",
    "CcaSettings",
    "ConcatSettings",
    "CustomFusionSettings",
    "DbmSettings",
    "EasyMklSettings",
    "FusionConfig",
    "FusionMethod",
    "GccaSettings",
    "Headed",
    "KccaSettings",
    "KernelAlignmentSettings",
    "KernelMethod",
    "LateSettings",
    "LpMklSettings",
    "MajoritySettings",
    "MethodSettings",
    "MissingnessSettings",
    "MultiplicativeSettings",
    "NeuralFusion",
    "PlsSettings",
    "SharedFactorSettings",
    "Subspace",
    "VaeSettings",
    "WeightedSettings",
]

OwnFusion = (
    ConcatSettings
    | LateSettings
    | WeightedSettings
    | MultiplicativeSettings
    | AverageKernelSettings
    | EasyMklSettings
    | LpMklSettings
    | KernelAlignmentSettings
    | CcaSettings
    | GccaSettings
    | PlsSettings
    | KccaSettings
    | SharedFactorSettings
    | AutoencoderSettings
    | VaeSettings
    | DbmSettings
    | MajoritySettings
    | MissingnessSettings
)
AnyFusion = Annotated[OwnFusion | CustomFusionSettings, Field(discriminator="method")]

IMPLEMENTATIONS = frozenset(settings.implementation for settings in get_args(OwnFusion))
"""The classes that a saved model may be an instance of."""

BASELINES: tuple[type[FusionMethod], ...] = (MajoritySettings, MissingnessSettings)
"""Trained in every run beside the methods, on all modalities: what the others are held against."""


def _by_name(value: Any) -> Any:
    return {"method": value} if isinstance(value, str) else value


MethodName = Literal[
    "concat",
    "late",
    "weighted",
    "multiplicative",
    "average-kernel",
    "easymkl",
    "lpmkl",
    "kernel-alignment",
    "cca",
    "gcca",
    "pls",
    "kcca",
    "shared-factor",
    "autoencoder",
    "vae",
    "dbm",
    "majority",
    "missingness",
]

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
    memory_bytes: MemoryBytes = 1 << 30
    """As `4GiB`: where the features of train and val take more (4 bytes a number), cca, gcca, pls and shared-factor
    learn out of core: their map from all rows, the head from about 200,000; and neural methods read their batches from
    the store, with the same result. The others take all into memory, and several times as much beside."""
