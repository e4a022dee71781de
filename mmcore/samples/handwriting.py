"""Handwritten digits: scikit-learn's bundled 8x8 scans, enlarged and varied.

They are the 1,797 test images of UCI's optical recognition set, by 13 people who are not named. Each split draws from
a contiguous block of the file, so no scan is in two splits, and no writer but perhaps those at the blocks' borders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

SIDE = 28
"""Side of the pictures, in pixels."""
SMUDGED = 0.25
"""Share of the pictures with a blot on them."""
BLOCKS: Mapping[str, tuple[float, float]] = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
"""The part of the file, from start to end, that each split draws from."""


class Handwriting:
    """The scans of one split, by digit."""

    def __init__(self, split: str) -> None:
        from sklearn.datasets import load_digits

        found = load_digits()
        start, end = (round(share * len(found.target)) for share in BLOCKS[split])
        images, digits = found.images[start:end], found.target[start:end]
        self._scans = [images[digits == digit] for digit in range(10)]

    def write(self, digit: int, turn: int, rng: np.random.Generator) -> Image.Image:
        """A grey picture, white on black, of the split's scan number `turn` of the digit (counting round)."""
        scans = self._scans[digit]
        return _vary(scans[turn % len(scans)] * (255 / 16), rng)


def _vary(scan: NDArray[np.float64], rng: np.random.Generator) -> Image.Image:
    """The 8x8 scan of 0 to 255 as 28x28: enlarged, turned, slanted, moved, blurred, with a stroke missing and noise."""
    angle, slant = math.radians(rng.normal(0, 9)), rng.normal(0, 0.15)
    scale = 8 / 22 / rng.uniform(0.8, 1.1)
    moved = rng.uniform(-2, 2, size=2)
    # What Image.transform wants: for each pixel of the result the place in the scan that it comes from.
    turned = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = scale * turned @ np.array([[1, slant], [0, 1]])
    shift = np.array([4.0, 4.0]) - matrix @ (np.array([SIDE / 2, SIDE / 2]) + moved)
    data = (*matrix[0], shift[0], *matrix[1], shift[1])
    picture = Image.fromarray(scan.astype(np.float32)).transform(
        (SIDE, SIDE), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC, fillcolor=0
    )
    pixels = np.clip(np.asarray(picture, dtype=np.float32), 0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.9)))
    inked = np.asarray(picture, dtype=np.float32) * rng.uniform(0.5, 1.0)
    if rng.random() < SMUDGED:
        left, top = rng.integers(4, 18, size=2)
        inked[top : top + 7, left : left + 7] = rng.uniform(0, 160)
    noisy = inked + rng.normal(0, rng.uniform(2, 22), inked.shape)
    return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
