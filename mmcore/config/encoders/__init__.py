"""The encoders that turn one modality of a sample into a feature vector."""

from typing import Annotated

from pydantic import Field

from mmcore.config.encoders.base import Batched, EncoderSettings
from mmcore.config.encoders.classical import CLASSICAL, HogSettings, MelStatsSettings, TfidfSettings
from mmcore.config.encoders.custom import CustomSettings
from mmcore.config.encoders.neural import (
    BigruSettings,
    CnnSettings,
    LogmelCnnSettings,
    LogmelCrnnSettings,
    LogmelSettings,
    NeuralEncoder,
    ResnetSettings,
    TextNetworkSettings,
    TextTransformerSettings,
)
from mmcore.config.encoders.onnx import OnnxSettings
from mmcore.config.encoders.pretrained import PretrainedSettings
from mmcore.config.encoders.trained import NgramSettings, TrainedEncoder

AnyEncoder = Annotated[
    CnnSettings
    | ResnetSettings
    | LogmelCnnSettings
    | LogmelCrnnSettings
    | NgramSettings
    | BigruSettings
    | TextTransformerSettings
    | PretrainedSettings
    | HogSettings
    | MelStatsSettings
    | TfidfSettings
    | CustomSettings
    | OnnxSettings,
    Field(discriminator="encoder"),
]

__all__ = [
    "CLASSICAL",
    "AnyEncoder",
    "Batched",
    "BigruSettings",
    "CnnSettings",
    "CustomSettings",
    "EncoderSettings",
    "HogSettings",
    "LogmelCnnSettings",
    "LogmelCrnnSettings",
    "LogmelSettings",
    "MelStatsSettings",
    "NeuralEncoder",
    "NgramSettings",
    "OnnxSettings",
    "PretrainedSettings",
    "ResnetSettings",
    "TextNetworkSettings",
    "TextTransformerSettings",
    "TfidfSettings",
    "TrainedEncoder",
]
