"""A small convolutional network on images."""

from __future__ import annotations

from torch import Tensor, nn

from mmcore.config import CnnSettings
from mmcore.features.encoders.image_network import ImageNetworkEncoder
from mmcore.features.encoders.layers import Head, Outputs, convolution

SMALLEST_MAP = 8
"""Maps are halved until they are at most this wide."""
STEM_LIMIT = 40
"""Larger pictures are halved by the first layer already, which saves three quarters of the work."""
POOLED = 3
"""The last maps are averaged over so many parts along each side."""


class CnnEncoder(ImageNetworkEncoder):
    """Stages of two 3x3 convolutions, each halving the maps."""

    settings: CnnSettings

    def build(self) -> nn.Module:
        return _ImageNetwork(self.size, self.channels, self.settings, len(self.classes))


class _ImageNetwork(nn.Module):
    def __init__(self, size: int, channels: int, settings: CnnSettings, classes: int) -> None:
        super().__init__()
        width, side = settings.width, size
        stride = 2 if side > STEM_LIMIT else 1
        layers = convolution(channels, width, stride=stride)
        side = -(-side // stride)
        while side > SMALLEST_MAP:
            wider = min(2 * width, 4 * settings.width)
            layers += [nn.MaxPool2d(2), *convolution(width, wider), *convolution(wider, wider)]
            width, side = wider, side // 2
        self.maps = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(min(POOLED, side))
        self.head = Head(width * min(POOLED, side) ** 2, settings, classes)
        self.token_dim = width

    def forward(self, images: Tensor) -> Outputs:
        maps = self.maps(images)
        outputs: Outputs = self.head(self.pool(maps).flatten(1), maps.flatten(2).transpose(1, 2))
        return outputs
