"""A small convolutional network on log-mel spectrograms."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmcore.config import LogmelCnnSettings
from mmcore.features.encoders.layers import Head, Outputs, convolution
from mmcore.features.encoders.logmel import LogmelEncoder


class LogmelCnnEncoder(LogmelEncoder):
    """Strided convolutions; maps are pooled over time (mean and maximum), not over frequency."""

    settings: LogmelCnnSettings
    frames_per_token: ClassVar[int] = 8

    def build(self) -> nn.Module:
        return _SoundNetwork(self.settings, len(self.classes))


class _SoundNetwork(nn.Module):
    def __init__(self, settings: LogmelCnnSettings, classes: int) -> None:
        super().__init__()
        width = settings.width
        self.maps = nn.Sequential(
            *convolution(1, width, side=5, stride=2),
            *convolution(width, 2 * width, stride=2),
            *convolution(2 * width, 4 * width, stride=2),
            *convolution(4 * width, 4 * width),
        )
        self.token_dim = 4 * width * math.ceil(settings.mels / 8)
        self.head = Head(2 * self.token_dim, settings, classes)

    def forward(self, spectrograms: Tensor) -> Outputs:
        maps = self.maps(spectrograms)
        pooled = torch.cat([maps.mean(dim=3), maps.amax(dim=3)], dim=1).flatten(1)
        outputs: Outputs = self.head(pooled, maps.flatten(1, 2).transpose(1, 2))
        return outputs
