"""Pixels as arrays: resized, framed, hashed, packed and unpacked. With OpenCV, one thread, for equal bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from mmcore.config.media import PixelSettings

cv2.setNumThreads(1)

PNG_SMALL = 1024
"""Values of a picture up to which a PNG's rows are not predicted from each other."""
_PNG_SMALL = (cv2.IMWRITE_PNG_COMPRESSION, 3, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE)
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_ALL_FILTERS)

Pixels = NDArray[np.uint8]
"""(height, width, channels): 3 for RGB, 1 for grey."""

HASH_SIDE = 32
HASH_WAVES = 11
"""Frequencies per direction among which the 64 lowest are."""
FLAT = 2.0
"""A picture whose pattern deviates by less (root mean square, in steps of 256) has no hash: noise would decide."""


@dataclass(frozen=True)
class Picture:
    """A decoded, upright picture with the facts of the file it came from."""

    pixels: Pixels
    """Possibly scaled down already, but not below what the settings ask for."""
    width: int
    """Of the upright file, in pixels."""
    height: int
    format: str
    mode: str
    """Pillow's name of the file's own mode, as `P` or `I;16`."""
    applied: tuple[str, ...] = ()
    """What was normalised so far."""
    profile: bytes | None = None
    """An ICC profile that is still to be applied."""


def target(width: int, height: int, settings: PixelSettings) -> tuple[int, int]:
    """Width and height that a picture of `width` x `height` is scaled to, before it is padded or cropped."""
    mode, size = settings.resize, settings.size
    if mode == "none":
        return width, height
    across, down = (size, size) if isinstance(size, int) else size
    if mode == "stretch":
        return across, down
    scales = across / width, down / height
    scale = max(scales) if mode in {"shorter", "crop"} else min(scales)
    if settings.only_if_larger:
        scale = min(scale, 1.0)
    return max(1, round(width * scale)), max(1, round(height * scale))


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    """Area filtering where a side shrinks, cubic interpolation where one grows."""
    before_height, before_width = pixels.shape[:2]
    small = min(width, before_width), min(height, before_height)
    if small != (before_width, before_height):
        pixels = _with_channels(cv2.resize(pixels, small, interpolation=cv2.INTER_AREA))
    if small != (width, height):
        pixels = _with_channels(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC))
    return pixels


def framed(pixels: Pixels, settings: PixelSettings) -> Pixels:
    """Padded or cropped to the box of `size`, where the mode asks for that."""
    if settings.resize not in {"pad", "crop"}:
        return pixels
    across, down = (settings.size, settings.size) if isinstance(settings.size, int) else settings.size
    height, width = pixels.shape[:2]
    if (width, height) == (across, down):
        return pixels
    if settings.resize == "crop":
        left, top = (width - across) // 2, (height - down) // 2
        return pixels[top : top + down, left : left + across]
    pixels = in_mode(pixels, settings.mode)
    background = in_mode(np.array([[settings.background]], np.uint8), settings.mode)
    frame = np.empty((down, across, pixels.shape[2]), np.uint8)
    frame[:] = background[0, 0]
    left, top = (across - width) // 2, (down - height) // 2
    frame[top : top + height, left : left + width] = pixels
    return frame


def in_mode(pixels: Pixels, mode: str) -> Pixels:
    """As RGB or grey (ITU-R BT.601 luma)."""
    channels = pixels.shape[2]
    if mode == "grey":
        return pixels if channels == 1 else _with_channels(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    return pixels if channels == 3 else _with_channels(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB))


def packed(pixels: Pixels, kind: str, quality: int) -> bytes:
    """A PNG, JPEG (4:2:0) or WebP file."""
    pixels = np.ascontiguousarray(pixels)
    grey = pixels.shape[2] == 1
    if kind == "jpeg":
        colours = ("GRAY", "GRAY") if grey else ("RGB", "420")
        return bytes(simplejpeg.encode_jpeg(pixels, quality, colours[0], colours[1]))
    other = pixels if grey else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    if kind == "png":
        # Of very small pictures, prediction saves no block of a tar; of others, it saves more than a higher level.
        how = _PNG_SMALL if pixels.size <= PNG_SMALL else _PNG
        found, data = cv2.imencode(".png", other, how)
    else:
        found, data = cv2.imencode(".webp", other, [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not found:
        raise ValueError(f"a picture of {pixels.shape[1]} x {pixels.shape[0]} pixels cannot be stored as {kind}")
    return data.tobytes()


def unpacked(data: bytes, mode: str) -> Pixels:
    """A member's pixels. Raises ValueError where they cannot be decoded."""
    how = cv2.IMREAD_GRAYSCALE if mode == "grey" else cv2.IMREAD_COLOR_RGB
    pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    if pixels is None:
        raise ValueError("the member is no picture that can be decoded")
    return _with_channels(pixels)


def perceptual_hash(pixels: Pixels) -> bytes | None:
    """64 bits that a resized or recompressed copy shares but for a few; None for a picture without a pattern.

    The signs, about their median, of the 64 lowest frequencies (but the mean) of the cosine transform of the grey
    picture at 32 x 32, after C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010.
    """
    low = lowest_frequencies(pixels)
    return None if low is None else signs_of(low)


def signs_of(low: NDArray[np.float32]) -> bytes:
    """The signs of 64 numbers about their median, as bits."""
    ordered = np.sort(low)  # numpy's median takes ten times as long
    middle = len(low) // 2
    return np.packbits(low > (ordered[middle - 1] + ordered[middle]) / 2).tobytes()


def lowest_frequencies(pixels: Pixels) -> NDArray[np.float32] | None:
    """The 64 lowest frequencies but the mean of the grey picture at 32 x 32; None for one without a pattern."""
    # Of a large picture every so manieth pixel does, at a fraction of the time: what counts are the large shapes.
    step = max(1, min(pixels.shape[:2]) // (2 * HASH_SIDE))
    grey = in_mode(pixels[::step], "grey")[:, ::step, 0]
    # Enlarged smoothly, so that tiny pictures have no steps.
    how = cv2.INTER_AREA if min(grey.shape) >= HASH_SIDE else cv2.INTER_LINEAR
    small = cv2.resize(grey, (HASH_SIDE, HASH_SIDE), interpolation=how).astype(np.float32)
    found: Any = (_WAVES @ small @ _WAVES.T).ravel()[_LOW]
    low: NDArray[np.float32] = found
    return None if low @ low < (FLAT * HASH_SIDE) ** 2 else low


def _waves() -> NDArray[np.float32]:
    """The lowest 11 rows of the matrix of the cosine transform (DCT-II, orthonormal), all that the hash needs."""
    angle = np.pi * np.outer(np.arange(HASH_WAVES), np.arange(HASH_SIDE) + 0.5) / HASH_SIDE
    waves: NDArray[np.float32] = (np.cos(angle) * np.sqrt(2 / HASH_SIDE)).astype(np.float32)
    waves[0] /= np.float32(np.sqrt(2))
    return waves


def _lowest() -> NDArray[np.intp]:
    """Places of the 64 lowest frequencies but the mean, by the sum of both, then by the vertical one."""
    order = sorted((y + x, y, x) for y in range(HASH_WAVES) for x in range(HASH_WAVES))[1:65]
    return np.array([y * HASH_WAVES + x for _, y, x in order], np.intp)


_WAVES = _waves()
_LOW = _lowest()
NUMBERS: NDArray[np.intp] = _LOW // HASH_WAVES + _LOW % HASH_WAVES
"""Of each of these frequencies, the half waves down and across the picture, added."""


def _with_channels(pixels: Any) -> Pixels:
    found: Pixels = pixels if pixels.ndim == 3 else pixels[:, :, None]
    return found
