"""What networks on images share: pixels, and how they are varied."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mmcore.features.encoders.base import Array
from mmcore.features.encoders.draws import Draws
from mmcore.features.encoders.network import NetworkEncoder

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


class ImageNetworkEncoder(NetworkEncoder):
    """A network that takes squares of pixels; trained on rotated, scaled, sheared, bent copies."""

    @property
    def size(self) -> int:
        """Width and height in pixels."""
        return int(self.modality["size"])

    @property
    def channels(self) -> int:
        return 1 if self.modality["mode"] == "grey" else 3

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
