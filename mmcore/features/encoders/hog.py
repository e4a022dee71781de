"""Pictures by a colour histogram and histograms of oriented gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mmcore.config import HogSettings
from mmcore.features.encoders.base import WHOLE, Array, Encoded, Encoder
from mmcore.modalities.pixels import resized

HYSTERESIS = 0.2
"""What a block's normalised histogram is clipped at."""
EPSILON = 1e-5
ROOTS = np.sqrt(np.arange(256) / 255)
"""Dalal and Triggs found the square root of each channel to serve slightly better than the channel itself."""


class HogEncoder(Encoder):
    """A joint histogram of hue, saturation and value (shares of pixels), then the histograms of gradients.

    Of each picture stretched to `size` x `size`. The width is the product of `colour_bins` plus
    (size // cell - block + 1)² · block² · orientations: 388 with the settings as they are. Grey pictures have hue and
    saturation 0.
    """

    settings: HogSettings
    # Bounds the memory of a batch; the vectors do not depend on it.
    batch = 64

    def ready(self, value: Array) -> Array:
        return resized(value, self.settings.size, self.settings.size)

    def collate(self, values: Sequence[Array]) -> Array:
        return np.stack(values)

    def encode(self, batch: Any, part: int = WHOLE) -> Encoded:
        settings = self.settings
        gradients = oriented_gradients(ROOTS[batch], settings.cell, settings.block, settings.orientations)
        return Encoded(np.concatenate([colours(batch, settings.colour_bins), gradients], axis=1).astype(np.float32))


def oriented_gradients(pictures: Array, cell: int, block: int, orientations: int) -> Array:
    """Histograms of oriented gradients (n, d) of pictures (n, h, w, channels), in float64.

    N. Dalal and B. Triggs, Histograms of Oriented Gradients for Human Detection, CVPR 2005: centred differences,
    of the channel where they are largest; unsigned orientation, each pixel's magnitude going to one bin of one cell
    (no interpolation between them, as in scikit-image's `feature.hog`); overlapping blocks one cell apart, L2-Hys.
    d = block rows · block columns · block² · orientations, in this order.
    """
    pictures = pictures.astype(np.float64, copy=False)
    down, across = np.zeros_like(pictures), np.zeros_like(pictures)
    down[:, 1:-1] = pictures[:, 2:] - pictures[:, :-2]
    across[:, :, 1:-1] = pictures[:, :, 2:] - pictures[:, :, :-2]
    magnitude = np.sqrt(down**2 + across**2)
    if pictures.shape[-1] > 1:
        largest = magnitude.argmax(axis=-1)[..., None]
        down, across, magnitude = (np.take_along_axis(a, largest, -1) for a in (down, across, magnitude))
    down, across, magnitude = down[..., 0], across[..., 0], magnitude[..., 0]
    turn = np.rad2deg(np.arctan2(down, across)) % 180
    numbers = np.minimum((turn / (180 / orientations)).astype(np.int64), orientations - 1)
    cells = _cells(numbers, magnitude, cell, orientations)
    blocks = sliding_window_view(cells, (block, block), axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3)
    flat = blocks.reshape(*blocks.shape[:3], -1)
    clipped = np.minimum(_unit(flat), HYSTERESIS)
    found: Array = _unit(clipped).reshape(len(pictures), -1)
    return found


def _cells(numbers: Array, magnitude: Array, cell: int, orientations: int) -> Array:
    """Each cell's mean magnitude per orientation (n, cell rows, cell columns, orientations)."""
    n, height, width = numbers.shape
    rows, columns = height // cell, width // cell
    at_row, at_column = np.arange(rows * cell) // cell, np.arange(columns * cell) // cell
    places = (np.arange(n)[:, None, None] * rows + at_row[None, :, None]) * columns + at_column
    inside = (slice(None), slice(rows * cell), slice(columns * cell))
    bins = places * orientations + numbers[inside]
    sums = np.bincount(bins.ravel(), magnitude[inside].ravel(), n * rows * columns * orientations)
    found: Array = sums.reshape(n, rows, columns, orientations) / cell**2
    return found


def _unit(histograms: Array) -> Array:
    lengths = np.sqrt((histograms**2).sum(axis=-1, keepdims=True) + EPSILON**2)
    unit: Array = histograms / lengths
    return unit


def colours(pictures: Array, bins: tuple[int, int, int]) -> Array:
    """Shares of pixels (n, product of bins) per bin of hue, saturation and value of uint8 pictures (n, h, w, 1 or 3).

    HSV after A. R. Smith, Color Gamut Transform Pairs, SIGGRAPH 1978, each from 0 to 1 and cut into equal bins.
    M. J. Swain and D. H. Ballard, Color Indexing, IJCV 1991, tell objects by such histograms.
    """
    n, *size, channels = pictures.shape
    # Whole numbers, so that what lies on the edge of a bin does so exactly.
    parts = _hsv(pictures.astype(np.float64)) if channels == 3 else (0.0, 0.0, pictures[..., 0] / 255)
    number: Array = np.zeros((n, *size), np.int64)
    for part, count in zip(parts, bins, strict=True):
        number = number * count + np.minimum((np.asarray(part) * count).astype(np.int64), count - 1)
    width = bins[0] * bins[1] * bins[2]
    flat = (np.arange(n)[:, None, None] * width + number).ravel()
    shares: Array = np.bincount(flat, minlength=n * width).reshape(n, width) / (size[0] * size[1])
    return shares


def _hsv(rgb: Array) -> tuple[Array, Array, Array]:
    """Hue, saturation and value, from 0 to 1, of colours (..., 3) from 0 to 255."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    value = rgb.max(axis=-1)
    chroma = value - rgb.min(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        saturation = np.where(value > 0, chroma / value, 0)
        sixths = np.select(
            [chroma == 0, value == red, value == green],
            [0, (green - blue) / chroma % 6, (blue - red) / chroma + 2],
            (red - green) / chroma + 4,
        )
    return sixths / 6, saturation, value / 255
