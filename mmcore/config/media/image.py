"""Settings of images."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from mmcore.config.base import Settings


class ImageSettings(Settings):
    """Images: decoded to RGB or grey, resized to one square size, stored as PNG or JPEG."""

    implementation: ClassVar[str] = "mmcore.modalities.image:ImageModality"
    outside_recipe: ClassVar[frozenset[str]] = frozenset({"column"})

    kind: Literal["image"] = "image"
    column: str
    """Manifest column with the file's path."""
    size: int = Field(64, ge=1, le=4096)
    """Side of the stored square, in pixels."""
    resize: Literal["pad", "crop", "stretch"] = "pad"
    """Keep all and pad with `background`, keep the middle square, or ignore the aspect ratio."""
    mode: Literal["rgb", "grey"] = "rgb"
    """Colour channels kept."""
    background: tuple[int, int, int] = (255, 255, 255)
    """RGB colour under transparent pixels and in the padding."""
    format: Literal["png", "jpeg"] = "png"
    """How members are stored."""
    quality: int = Field(90, ge=1, le=100)
    """JPEG quality; PNG has none."""
    several: bool = False
    """The column holds a list of files; each is a member of its own."""
    max_bytes: int = Field(64_000_000, ge=1)
    """Larger files are set aside unread."""
    max_pixels: int = Field(100_000_000, ge=1)
    """Larger pictures are set aside before they are decoded."""
