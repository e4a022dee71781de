"""Small ordinary PNGs, fast: checked here, decoded by OpenCV. The large and the odd ones are left to Pillow.

Of a small picture, Pillow's time is nearly all preparation; of a large one, both spend it on the pixels.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import cv2
import numpy as np

from mmcore.config.media import ImageSettings
from mmcore.modalities.pixels import Picture

SMALL_PIXELS = 65_536
_START = b"\x89PNG\r\n\x1a\n"
_HARMLESS = frozenset({b"IHDR", b"IDAT", b"IEND", b"pHYs", b"tIME", b"gAMA", b"cHRM", b"sRGB", b"bKGD"})
"""Chunks that change no pixel, neither here nor with Pillow."""
_MODES = {0: ("L", 1, cv2.IMREAD_GRAYSCALE), 2: ("RGB", 3, cv2.IMREAD_COLOR_RGB)}
_HIGHEST_FILTER = 4


def decode(data: bytes, settings: ImageSettings) -> Picture | None:
    """The picture in a small PNG of 8 bits, grey or RGB, sound to the last checksum; None for any other file."""
    if not data.startswith(_START) or data[12:16] != b"IHDR" or len(data) < 33:
        return None
    width, height, bits, colours, *rest = struct.unpack_from(">IIBBBBB", data, 16)
    if bits != 8 or colours not in _MODES or any(rest):
        return None
    if not 0 < width * height <= min(SMALL_PIXELS, settings.max_pixels):
        return None
    mode, channels, how = _MODES[colours]
    packed = _packed_pixels(data)
    if packed is None or not _is_sound(packed, height, 1 + width * channels):
        return None
    pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    if pixels is None:
        return None
    return Picture(pixels.reshape(height, width, channels), width, height, "PNG", mode)


def _packed_pixels(data: bytes) -> bytes | None:
    """What all chunks of pixels hold; None where a chunk is broken or may change the picture."""
    at = len(_START)
    found: list[bytes] = []
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        stop = at + 8 + length
        if kind not in _HARMLESS or stop + 4 > len(data):
            return None
        if zlib.crc32(data[at + 4 : stop]).to_bytes(4) != data[stop : stop + 4]:
            return None
        if kind == b"IEND":
            return b"".join(found)
        if kind == b"IDAT":
            found.append(data[at + 8 : stop])
        at = stop + 4
    return None


def _is_sound(packed: bytes, rows: int, row_bytes: int) -> bool:
    """Whether it unpacks to exactly so many rows, each of a filter that there is."""
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(packed, rows * row_bytes + 1)
    except zlib.error:
        return False
    return inflater.eof and len(found) == rows * row_bytes and max(found[::row_bytes]) <= _HIGHEST_FILTER
