"""Images: any common format in, RGB or grey of 8 bits at the wanted size out."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from PIL import Image

from mmcore.config.media import ImageSettings
from mmcore.modalities import colours, jpeg, looks, png, stills
from mmcore.modalities.base import Member, Modality, Rejected
from mmcore.modalities.pixels import (
    Picture,
    Pixels,
    framed,
    in_mode,
    packed,
    resized,
    target,
    unpacked,
)
from mmcore.records import Json


class ImageModality(Modality[Picture]):
    """Decodes, turns upright, converts to sRGB, lays transparency on the background, resizes with an area filter.

    JPEGs are decoded at half, a quarter or an eighth of their size where that is enough, unless `exact`. Of an
    animation or a multi-page file the first picture is taken.
    """

    kind: ClassVar[str] = "image"

    def __init__(self, settings: ImageSettings) -> None:
        self.settings = settings
        self.several = settings.several

    @property
    def extension(self) -> str:
        return "jpg" if self.settings.format == "jpeg" else self.settings.format

    def decode(self, data: bytes) -> Picture | Rejected:
        settings = self.settings
        if len(data) > settings.max_bytes:
            return Rejected("too-many-bytes", f"{len(data):,} bytes; max_bytes is {settings.max_bytes:,}")
        if header := jpeg.read_header(data):
            if header.width * header.height > settings.max_pixels:
                return stills.too_large(f"{header.width} x {header.height} pixels", settings)
            if picture := jpeg.decode(data, header, settings):
                return picture
        return png.decode(data, settings) or stills.decode(data, settings)

    def check(self, value: Picture) -> dict[str, Json] | Rejected:
        """Width and height (upright, in pixels), and the file's mode and format in Pillow's words."""
        if min(value.width, value.height) < self.settings.min_size:
            what = f"{value.width} x {value.height} pixels; min_size is {self.settings.min_size:,}"
            return Rejected("too-small", what)
        return {"width": value.width, "height": value.height, "mode": value.mode, "format": value.format}

    def normalise(self, value: Picture) -> Picture:
        return self._framed(self._resized(value))

    def encode(self, value: Picture) -> bytes:
        return packed(value.pixels, self.settings.format, self.settings.quality)

    def signature(self, value: Picture) -> bytes | None:
        """73 bytes: see `looks`."""
        return looks.signature(value.pixels, min(value.width, value.height))

    def load(self, data: bytes) -> Pixels:
        """The member as (height, width, channels) of 0 to 255; one channel for grey."""
        return unpacked(data, self.settings.mode)

    def process(self, data: bytes) -> Member | Rejected:
        """As for any modality, but the signature is taken of the resized picture, which holds all that it looks at."""
        if not data:
            return Rejected("empty-file", "the file has no bytes")
        value = self.decode(data)
        if isinstance(value, Rejected):
            return value
        facts = self.check(value)
        if isinstance(facts, Rejected):
            return facts
        small = self._resized(value)
        signature = self.signature(small)
        stored = self._framed(small)
        if stored.applied:
            facts["applied"] = list(stored.applied)
        return Member((self.encode(stored),), facts, signature)

    def _resized(self, value: Picture) -> Picture:
        """The whole picture at its new size, and in sRGB."""
        pixels, applied = value.pixels, value.applied
        wanted = target(value.width, value.height, self.settings)
        if wanted != (pixels.shape[1], pixels.shape[0]):
            pixels = resized(pixels, *wanted)
        if wanted != (value.width, value.height):
            applied = (*applied, "resized")
        if value.profile and (converted := _in_srgb(pixels, value.profile)) is not None:
            pixels, applied = converted, (*applied, "icc-to-srgb")
        if pixels is value.pixels and applied == value.applied:
            return value
        return replace(value, pixels=pixels, applied=applied, profile=None)

    def _framed(self, value: Picture) -> Picture:
        pixels = framed(value.pixels, self.settings)
        applied = value.applied
        if pixels.shape[:2] != value.pixels.shape[:2]:
            applied = (*applied, "padded" if self.settings.resize == "pad" else "cropped")
        pixels = in_mode(pixels, self.settings.mode)
        return value if pixels is value.pixels else replace(value, pixels=pixels, applied=applied)


def _in_srgb(pixels: Pixels, profile: bytes) -> Pixels | None:
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    converted = colours.to_srgb(image, profile)
    return None if converted is None else np.asarray(converted)
