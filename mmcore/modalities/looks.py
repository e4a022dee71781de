"""Signatures of pictures: 73 bytes from which it can be told whether two show the same.

    8 bytes     the perceptual hash, by which candidates are found: see `pixels.perceptual_hash`
    64 bytes    the 64 lowest frequencies themselves, as 8-bit numbers, by which candidates are confirmed
    1 byte      the picture's shorter side in pixels, up to 255

Signs alone call many small flat pictures the same: of 2,348 handwritten digits of 28 pixels, no two alike, a fifth is
within 4 of 64 bits of another one. So the frequencies are compared too, by the cosine of the angle between them. Each
is weighted by 1 + its number, since amplitudes of natural pictures fall by about that (D. Field, Relations between the
statistics of natural images and the response properties of cortical cells, 1987): fine shapes count as much as coarse.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmcore.modalities.pixels import NUMBERS, Pixels, lowest_frequencies, signs_of

HASH_BYTES = 8
BYTES = HASH_BYTES + len(NUMBERS) + 1
SMALL_SIDE = 64
"""Pictures with a shorter side show so little that two must be closer to be the same."""
SMALL_SHARE = 0.4
"""By so much: the share of what two other pictures may differ by."""

_WEIGHTS = (1 + NUMBERS).astype(np.float32)


def signature(pixels: Pixels, side: int) -> bytes | None:
    """The signature of a picture whose shorter side had `side` pixels when it came; None without a pattern."""
    low = lowest_frequencies(pixels)
    if low is None:
        return None
    weighted = low * _WEIGHTS
    steps = np.rint(weighted * np.float32(127 / max(weighted.max(), -weighted.min()))).astype(np.int8)
    found: bytes = signs_of(low) + steps.tobytes() + bytes([min(side, *pixels.shape[:2], 255)])
    return found


def frequencies(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The frequencies in signatures (n, 73) as vectors (n, 64) of length 1, so that their product is a cosine."""
    steps = np.ascontiguousarray(signatures[:, HASH_BYTES:-1]).view(np.int8).astype(np.float32)
    steps /= np.maximum(np.sqrt(np.einsum("ij,ij->i", steps, steps)), 1e-6)[:, None]
    return steps


def alike(
    cosine: NDArray[np.float32], left: NDArray[np.uint8], right: NDArray[np.uint8], least: float
) -> NDArray[np.bool_]:
    """Whether pictures are the same, by the cosines of their frequencies and their signatures' last bytes, the sides.

    The cosine is at least `least`; where one is smaller than `SMALL_SIDE`, they may differ by `SMALL_SHARE` of that.
    """
    small = np.minimum(left, right) < SMALL_SIDE
    return np.asarray(1 - cosine <= (1 - least) * np.where(small, SMALL_SHARE, 1.0) + 1e-6)
