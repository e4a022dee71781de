"""The encoders that turn one modality of a sample into a feature vector."""

from typing import Annotated

from pydantic import Field

from mmcore.config.encoders.base import Batched, EncoderSettings
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
    | PretrainedSettings,
    Field(discriminator="encoder"),
]

__all__ = [
    "AnyEncoder",
    "Batched",
    "BigruSettings",
    "CnnSettings",
    "EncoderSettings",
    "LogmelCnnSettings",
    "LogmelCrnnSettings",
    "LogmelSettings",
    "NeuralEncoder",
    "NgramSettings",
    "PretrainedSettings",
    "ResnetSettings",
    "TextNetworkSettings",
    "TextTransformerSettings",
    "TrainedEncoder",
]
