"""The encoders that turn one modality of a sample into a feature vector."""

from typing import Annotated

from pydantic import Field

from mmcore.config.encoders.base import Batched, EncoderSettings
from mmcore.config.encoders.pretrained import PretrainedSettings
from mmcore.config.encoders.trained import (
    CnnSettings,
    LogmelCnnSettings,
    NeuralEncoder,
    NgramSettings,
    TrainedEncoder,
)

AnyEncoder = Annotated[
    CnnSettings | LogmelCnnSettings | NgramSettings | PretrainedSettings, Field(discriminator="encoder")
]

__all__ = [
    "AnyEncoder",
    "Batched",
    "CnnSettings",
    "EncoderSettings",
    "LogmelCnnSettings",
    "NeuralEncoder",
    "NgramSettings",
    "PretrainedSettings",
    "TrainedEncoder",
]
