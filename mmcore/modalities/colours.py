"""Colour management: from what an ICC profile says to sRGB."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

from PIL import Image

MAX_PROFILE_BYTES = 4_000_000
"""A larger profile is no profile."""


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """A picture of mode L, RGB, RGBA or CMYK in sRGB; None where it is so already or its profile is unusable."""
    if len(profile) > MAX_PROFILE_BYTES:
        return None
    transform = _transform(profile, image.mode)
    if transform is None:
        return None
    found: Image.Image = transform.apply(image)
    return found


def from_lab(image: Image.Image) -> Image.Image:
    """A picture of mode LAB in sRGB."""
    from PIL import ImageCms

    srgb = ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), srgb, outputMode="RGB") or image


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> Any:
    """What turns this mode under this profile into sRGB; None where nothing has to or can be done.

    A data set's pictures share a handful of profiles.
    """
    # Only pictures with a profile need it.
    from PIL import ImageCms

    try:
        opened = ImageCms.getOpenProfile(io.BytesIO(profile))
        space = opened.profile.xcolor_space.strip()
        if space != {"L": "GRAY", "RGB": "RGB", "RGBA": "RGB", "CMYK": "CMYK"}[mode]:
            return None
        if space == "RGB" and "sRGB" in (ImageCms.getProfileDescription(opened) or ""):
            return None
        wanted = {"CMYK": "RGB"}.get(mode, mode)
        target = ImageCms.createProfile("sRGB")
        if mode == "L":
            # Grey stays grey: its tone curve alone is changed.
            wanted = "RGB"
        return ImageCms.buildTransform(opened, target, mode, wanted)
    except (ImageCms.PyCMSError, OSError, KeyError, ValueError, TypeError):
        return None
