"""The pydantic models of one run's YAML: load, check, digest."""

from mmcore.config.base import Part, Settings
from mmcore.config.data import Columns, DataConfig, ShardsConfig
from mmcore.config.encoders import (
    Batched,
    CnnSettings,
    EncoderSettings,
    LogmelCnnSettings,
    NeuralEncoder,
    NgramSettings,
    PretrainedSettings,
    TrainedEncoder,
)
from mmcore.config.fusion import (
    AutoencoderSettings,
    CcaSettings,
    ConcatSettings,
    FusionConfig,
    FusionMethod,
    LateSettings,
    MethodSettings,
    NeuralFusion,
    WeightedSettings,
)
from mmcore.config.load import load
from mmcore.config.media import AudioSettings, ImageSettings, ModalitySettings, TextSettings, VideoSettings
from mmcore.config.run import ComputeConfig, DaskConfig, RunConfig, demand_learnable

__all__ = [
    "AudioSettings",
    "AutoencoderSettings",
    "Batched",
    "CcaSettings",
    "CnnSettings",
    "Columns",
    "ComputeConfig",
    "ConcatSettings",
    "DaskConfig",
    "DataConfig",
    "EncoderSettings",
    "FusionConfig",
    "FusionMethod",
    "ImageSettings",
    "LateSettings",
    "LogmelCnnSettings",
    "MethodSettings",
    "ModalitySettings",
    "NeuralEncoder",
    "NeuralFusion",
    "NgramSettings",
    "Part",
    "PretrainedSettings",
    "RunConfig",
    "Settings",
    "ShardsConfig",
    "TextSettings",
    "TrainedEncoder",
    "VideoSettings",
    "WeightedSettings",
    "demand_learnable",
    "load",
]
