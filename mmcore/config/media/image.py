"""Settings of images."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mmcore.config.base import Settings

Side = Annotated[int, Field(ge=1, le=8192)]
BY_SIDE = frozenset({"shorter", "longer"})
"""Modes of which `size` is one length."""
ONE_SIZE = frozenset({"pad", "crop", "stretch"})
"""Modes that make all pictures equally large."""


class PixelSettings(Settings):
    """What pictures and the frames of videos have in common: size, colour, and how they are stored."""

    size: Side | tuple[Side, Side] = 64
    """Pixels: a length, for a square or a side; or width and height, for `fit`, `pad`, `crop` and `stretch`."""
    resize: Literal["shorter", "longer", "fit", "pad", "crop", "stretch", "none"] = "pad"
    """Scale the `shorter` or `longer` side to `size`; `fit` into the box of `size`; `pad` that box with `background`;
    `crop` the middle to fill the box; `stretch` to the box; or keep the size."""
    only_if_larger: bool = False
    """Shrink pictures, but do not enlarge them; for `shorter`, `longer`, `fit` and `pad`."""
    mode: Literal["rgb", "grey"] = "rgb"
    """Colour channels kept."""
    background: tuple[int, int, int] = (255, 255, 255)
    """RGB colour in the padding and under transparent pixels."""
    format: Literal["png", "jpeg", "webp"] = "png"
    """How members are stored."""
    quality: int = Field(90, ge=1, le=100)
    """Of JPEG and WebP; PNG has none."""

    @property
    def equally_large(self) -> bool:
        """Whether all stored pictures have one size."""
        return self.resize in ONE_SIZE

    @model_validator(mode="after")
    def _size_fits_mode(self) -> Self:
        if self.resize in BY_SIDE and not isinstance(self.size, int):
            raise ValueError(f"size: resize {self.resize!r} takes one length, and {list(self.size)} are two")
        if self.only_if_larger and self.resize in {"crop", "stretch", "none"}:
            raise ValueError(f"only_if_larger: resize {self.resize!r} has no use for it; see fit, pad, shorter, longer")
        return self


class ImageSettings(PixelSettings):
    """Images: upright, in sRGB or grey of 8 bits, resized, stored as PNG, JPEG or WebP."""

    implementation: ClassVar[str] = "mmcore.modalities.image:ImageModality"
    version: ClassVar[int] = 4
    outside_recipe: ClassVar[frozenset[str]] = frozenset({"column"})

    kind: Literal["image"] = "image"
    column: str
    """Manifest column with the file's path."""
    exact: bool = False
    """Decode JPEGs at full size and then shrink, which takes longer and is slightly closer to the ideal."""
    several: bool = False
    """The column holds a list of files; each is a member of its own."""
    min_size: int = Field(1, ge=1)
    """Pictures whose shorter side has fewer pixels are set aside."""
    max_bytes: int = Field(64_000_000, ge=1)
    """Larger files are set aside unread."""
    max_pixels: int = Field(100_000_000, ge=1)
    """Larger pictures are set aside before they are decoded."""
