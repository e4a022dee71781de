"""A small convolutional network on images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmcore.config import CnnSettings
from mmcore.features.encoders.base import Array
from mmcore.features.encoders.network import ClassifierHead, Draws, NetworkEncoder, convolution

ROTATION = math.radians(15)
SCALE = 0.15
SHEAR = 0.15
SHIFT = 0.1
"""Largest change of position, as a share of half the side."""
ELASTIC = 0.05
"""Standard deviation of the local displacements, as a share of half the side."""
ELASTIC_POINTS = 4
"""Local displacements are given at so many points along each side and are smooth between them."""
CONTRAST = 0.2
BRIGHTNESS = 0.1
"""Largest change of contrast (a factor's distance from 1) and brightness (1 is white)."""

SMALLEST_MAP = 8
"""Maps are halved until they are at most this wide."""
STEM_LIMIT = 40
"""Larger pictures are halved by the first layer already, which saves three quarters of the work."""
POOLED = 3
"""The last maps are averaged over so many parts along each side."""


class CnnEncoder(NetworkEncoder):
    """Stages of two 3x3 convolutions, each halving the maps; trained on rotated, scaled, sheared, bent copies."""

    settings: CnnSettings

    def build(self) -> nn.Module:
        channels = 1 if self.modality["mode"] == "grey" else 3
        return _ImageNetwork(int(self.modality["size"]), channels, self.settings, len(self.classes))

    def prepare(self, values: Sequence[Array]) -> Tensor:
        """Bytes (n, channels, height, width)."""
        return torch.from_numpy(np.ascontiguousarray(np.stack(values).transpose(0, 3, 1, 2)))

    def inputs(self, prepared: Tensor, rows: Array, draws: Draws | None) -> Tensor:
        """Pixels of -1 to 1."""
        images = prepared[torch.from_numpy(rows)].to(self.device).float() / 127.5 - 1
        return images if draws is None else varied(images, draws)


def varied(images: Tensor, draws: Draws) -> Tensor:
    """Each image (n, c, h, w) rotated, scaled, sheared, shifted, bent and lit a little differently."""
    n = len(images)
    angle, shear = draws.uniform(-ROTATION, ROTATION, n), draws.uniform(-SHEAR, SHEAR, n)
    wide, high = (torch.exp(draws.uniform(-SCALE, SCALE, n)) for _ in "xy")
    right, down = (draws.uniform(-SHIFT, SHIFT, n) for _ in "xy")
    cosine, sine = torch.cos(angle), torch.sin(angle)
    top = torch.stack([wide * cosine, high * (shear * cosine - sine), right], dim=1)
    bottom = torch.stack([wide * sine, high * (shear * sine + cosine), down], dim=1)
    grid = functional.affine_grid(torch.stack([top, bottom], dim=1), list(images.shape), align_corners=False)
    points = ELASTIC * draws.normal(n, 2, ELASTIC_POINTS, ELASTIC_POINTS)
    bent = functional.interpolate(points, size=images.shape[2:], mode="bilinear", align_corners=True)
    grid = grid + bent.permute(0, 2, 3, 1)
    moved = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    contrast = draws.uniform(1 - CONTRAST, 1 + CONTRAST, n, 1, 1, 1)
    # Twice, as pixels go from -1 to 1.
    return moved * contrast + 2 * draws.uniform(-BRIGHTNESS, BRIGHTNESS, n, 1, 1, 1)


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
        pooled = min(POOLED, side)
        self.maps = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(pooled), nn.Flatten())
        self.head = ClassifierHead(width * pooled**2, settings.hidden, classes, settings.dropout)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        scores, hidden = self.head(self.maps(images))
        return scores, hidden
