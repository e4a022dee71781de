"""Convolutions and a recurrent layer on log-mel spectrograms."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmcore.config import LogmelCrnnSettings
from mmcore.features.encoders.layers import Head, Outputs, convolution
from mmcore.features.encoders.logmel import LogmelEncoder


class LogmelCrnnEncoder(LogmelEncoder):
    """Strided convolutions, then gated recurrent units that read the columns both ways; mean and maximum over time."""

    settings: LogmelCrnnSettings
    frames_per_token: ClassVar[int] = 4

    def build(self) -> nn.Module:
        return _RecurrentNetwork(self.settings, len(self.classes))


class _RecurrentNetwork(nn.Module):
    def __init__(self, settings: LogmelCrnnSettings, classes: int) -> None:
        super().__init__()
        width = settings.width
        self.maps = nn.Sequential(
            *convolution(1, width, side=5, stride=2),
            *convolution(width, 2 * width, stride=2),
            *convolution(2 * width, 4 * width, stride=(2, 1)),
        )
        columns = 4 * width * math.ceil(settings.mels / 8)
        self.recurrent = nn.GRU(columns, settings.units, batch_first=True, bidirectional=True)
        self.token_dim = 2 * settings.units
        self.head = Head(2 * self.token_dim, settings, classes)

    def forward(self, spectrograms: Tensor) -> Outputs:
        columns = self.maps(spectrograms).flatten(1, 2).transpose(1, 2)
        tokens, _ = self.recurrent(columns)
        outputs: Outputs = self.head(torch.cat([tokens.mean(dim=1), tokens.amax(dim=1)], dim=1), tokens)
        return outputs
