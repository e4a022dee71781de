"""Ordinary JPEGs, fast: decoded by libjpeg-turbo at the scale that is needed. The odd ones are left to Pillow."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import simplejpeg

from mmcore.config.media import ImageSettings
from mmcore.modalities.pixels import Picture, Pixels, target

FACTORS = (8, 4, 2)
"""Scales at which the cosine transform is cut short cheaply; others cost more than they save."""
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_START_OF_SCAN, _END, _APP1, _APP2 = 0xDA, 0xD9, 0xE1, 0xE2
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
"""Markers that have no length."""
_TURNS: Mapping[int, Callable[[Any], Any]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: cv2.transpose,
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.flip(cv2.transpose(pixels), -1),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
"""From how a camera stored the picture to upright, by the EXIF orientation."""


@dataclass(frozen=True)
class Header:
    """What a JPEG says before its pixels."""

    width: int
    height: int
    channels: int
    orientation: int
    profile: bytes | None


def read_header(data: bytes) -> Header | None:
    """The header of an ordinary JPEG: 8 bits, grey or of three colours, nothing unclear; None for any other file."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    orientation, profiles, frame = 1, [], None
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _BARE or marker == _END:
            return None
        length = struct.unpack_from(">H", data, at + 2)[0]
        if marker == _START_OF_SCAN:
            break
        start, stop = at + 4, at + 2 + length
        if length < 2 or stop > len(data):
            return None
        if marker in {_BASELINE, _EXTENDED, _PROGRESSIVE}:
            if length < 8 or frame:
                return None
            frame = struct.unpack_from(">BHHB", data, start)
        elif marker == _APP1:
            found = _orientation(data[start:stop])
            if found is None:
                return None
            orientation = found if found != 1 else orientation
        elif marker == _APP2 and data.startswith(b"ICC_PROFILE\0", start):
            profiles.append(data[start + 12 : stop])
        at = stop
    if frame is None or frame[0] != 8 or frame[3] not in (1, 3) or not frame[1] or not frame[2]:
        return None
    _, height, width, channels = frame
    profile = b"".join(part[2:] for part in sorted(profiles, key=lambda part: part[:1])) or None
    return Header(width, height, channels, orientation, profile)


def decode(data: bytes, header: Header, settings: ImageSettings) -> Picture | None:
    """The picture, upright and at least as large as the settings need it; None where it is not sound.

    Strict: what libjpeg would only warn of (an early end, say) is not sound either.
    """
    turned = header.orientation >= 5
    upright = (header.height, header.width) if turned else (header.width, header.height)
    wanted = target(*upright, settings)
    if turned:
        wanted = wanted[1], wanted[0]
    factor = 1 if settings.exact else _factor(header.width, header.height, *wanted)
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            data,
            "GRAY" if header.channels == 1 else "RGB",
            min_height=-(-header.height // factor) if factor > 1 else 0,
            min_width=-(-header.width // factor) if factor > 1 else 0,
        )
    except ValueError:
        return None
    applied: tuple[str, ...] = ()
    if header.orientation > 1:
        pixels = _TURNS[header.orientation](pixels)
        applied = ("exif-orientation",)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    mode = "L" if header.channels == 1 else "RGB"
    return Picture(pixels, *upright, "JPEG", mode, applied, header.profile)


def _factor(width: int, height: int, least_width: int, least_height: int) -> int:
    for factor in FACTORS:
        if -(-width // factor) >= least_width and -(-height // factor) >= least_height:
            return factor
    return 1


def _orientation(segment: bytes) -> int | None:
    """The orientation in an APP1 segment, 1 where there is none; None where it takes more than a look to tell."""
    if not segment.startswith(b"Exif\0"):
        # XMP may hold an orientation too.
        return None if b"Orientation" in segment else 1
    tiff = segment[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(count):
            tag, kind, values, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * entry)
            if tag == 0x0112:
                return value if kind == 3 and values == 1 and 1 <= value <= 8 else None
    except struct.error:
        return None
    return 1
