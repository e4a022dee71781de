"""Images: any common format in, one square of RGB or grey out."""

from __future__ import annotations

import io
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mmcore.config.media import ImageSettings
from mmcore.modalities.base import Modality, Rejected
from mmcore.modalities.chatter import stderr_dropped
from mmcore.records import Json

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "ICO", "TGA", "JPEG2000", "AVIF")
"""What is opened. Pillow knows more, some of which start other programs (EPS)."""

BAND_PIXELS = 1 << 20
"""Pixels of more than 8 bits that are scaled at a time."""
TIFF_STARTS = (b"II", b"MM")
# Pillow also logs some of the errors that it raises; a reject says it once.
logging.getLogger("PIL").setLevel(logging.CRITICAL)
_PILLOW_STATE = threading.Lock()
"""Held while Pillow's pixel limit and Python's warning filters, both global, are ours."""


@dataclass(frozen=True)
class Picture:
    """A decoded, upright picture of mode L, RGB or RGBA, with the facts of the file it came from."""

    image: Image.Image
    format: str
    mode: str
    """Pillow's name of the file's own mode, as `P` or `I;16`."""


class ImageModality(Modality[Picture]):
    """Decodes with Pillow, applies EXIF orientation, lays transparency on the background, resizes with Lanczos.

    More than 8 bits a channel become 8 by the depth's full range (16-bit 65535 is 255); floats and 32-bit integers by
    the smallest of the ranges 0 to 1 (floats), 0 to 255 and 0 to 65535 that holds all values, else by their own
    minimum and maximum. Of an animation or a multi-page file the first picture is taken.
    """

    kind: ClassVar[str] = "image"

    def __init__(self, settings: ImageSettings) -> None:
        self.settings = settings
        self.several = settings.several

    @property
    def extension(self) -> str:
        return "png" if self.settings.format == "png" else "jpg"

    def decode(self, data: bytes) -> Picture | Rejected:
        if len(data) > self.settings.max_bytes:
            return Rejected("too-many-bytes", f"{len(data):,} bytes; max_bytes is {self.settings.max_bytes:,}")
        # libtiff prints what it finds wrong with a file.
        quiet = stderr_dropped() if data.startswith(TIFF_STARTS) else nullcontext()
        with _own_limits(self.settings.max_pixels), quiet:
            try:
                image = Image.open(io.BytesIO(data), formats=FORMATS)
            # Pillow's readers raise whatever their parsing stumbles on.
            except Exception as error:
                return self._why_not_opened(data, error)
            try:
                width, height = image.size
                if width < 1 or height < 1:
                    return Rejected("corrupt", f"a picture of {width} x {height} pixels")
                if width * height > self.settings.max_pixels:
                    return self._too_large(f"{width} x {height} pixels")
                mode, kind = image.mode, image.format or ""
                image.load()
                _turn_upright(image)
                return Picture(_eight_bits(image), kind, mode)
            except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
                return self._too_large(_claimed(error))
            except _NotFiniteError as error:
                return Rejected("not-finite", str(error))
            except Exception as error:
                return _why_not_decoded(error)

    def check(self, value: Picture) -> dict[str, Json] | Rejected:
        """Width and height (upright, in pixels), and the file's mode and format in Pillow's words."""
        width, height = value.image.size
        return {"width": width, "height": height, "mode": value.mode, "format": value.format}

    def normalise(self, value: Picture) -> Picture:
        image = value.image
        side = self.settings.size
        if self.settings.resize == "crop":
            image = ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)
        elif self.settings.resize == "stretch":
            image = image.resize((side, side), Image.Resampling.LANCZOS)
        else:
            scale = side / max(image.size)
            width, height = (max(1, round(length * scale)) for length in image.size)
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        return replace(value, image=self._on_background(image))

    def _on_background(self, image: Image.Image) -> Image.Image:
        """The picture in the middle of a square of the background, in the stored mode."""
        side = self.settings.size
        square = Image.new("RGB", (side, side), self.settings.background)
        corner = ((side - image.width) // 2, (side - image.height) // 2)
        square.paste(image.convert("RGB"), corner, image if image.mode == "RGBA" else None)
        return square if self.settings.mode == "rgb" else square.convert("L")

    def encode(self, value: Picture) -> bytes:
        out = io.BytesIO()
        if self.settings.format == "png":
            value.image.save(out, "PNG", compress_level=6, optimize=False)
        else:
            value.image.save(
                out, "JPEG", quality=self.settings.quality, subsampling="4:2:0", optimize=False, progressive=False
            )
        return out.getvalue()

    def load(self, data: bytes) -> NDArray[np.uint8]:
        """The member as (height, width, channels) of 0 to 255; one channel for grey."""
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            pixels = np.array(image, dtype=np.uint8)
        return pixels[:, :, None] if pixels.ndim == 2 else pixels

    def _too_large(self, got: str) -> Rejected:
        return Rejected("too-large", f"{got}; max_pixels is {self.settings.max_pixels:,}")

    def _why_not_opened(self, data: bytes, error: Exception) -> Rejected:
        if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
            return self._too_large(_claimed(error))
        if _is_known(data[:16].ljust(16, b"\0")):
            why = "" if isinstance(error, UnidentifiedImageError) else f" ({_short(error)})"
            return Rejected("corrupt", f"the file's header is broken{why}")
        return Rejected("unknown-format", "the bytes are of no picture format that is read here")


@contextmanager
def _own_limits(max_pixels: int) -> Iterator[None]:
    """Pillow checks every canvas, frame and tile against `max_pixels`; its other warnings are dropped."""
    with _PILLOW_STATE, warnings.catch_warnings():
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = max_pixels
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _turn_upright(image: Image.Image) -> None:
    # In place, since a picture may take hundreds of megabytes. Broken EXIF is common and no fault of the pixels.
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


class _NotFiniteError(ValueError):
    """A float picture holds NaN or infinity."""


def _eight_bits(image: Image.Image) -> Image.Image:
    """The picture in mode L, RGB or RGBA."""
    if image.mode.startswith(("I", "F")):
        return _scaled(image)
    if image.mode == "LAB":
        from PIL import ImageCms

        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), srgb, outputMode="RGB") or image
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    grey = image.mode in {"L", "1"}
    return image if image.mode in {"L", "RGB"} else image.convert("L" if grey else "RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """Grey of 12, 16 or 32 bits or of floats as 8 bits; band by band, as floats take four times the memory."""
    low, high = _value_range(image)
    transparent = image.info.get("transparency")
    channels = 4 if isinstance(transparent, int) else 1
    pixels = np.empty((image.height, image.width, channels), np.uint8)
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        values = np.asarray(band).astype(np.float32)
        if not np.isfinite(values).all():
            raise _NotFiniteError("the picture holds NaN or infinity")
        part = pixels[top : top + rows]
        part[:, :, :3] = np.clip(np.rint((values - low) * (255 / (high - low))), 0, 255)[:, :, None]
        if channels == 4:
            part[:, :, 3] = np.where(values == transparent, 0, 255)
    return Image.fromarray(pixels if channels == 4 else pixels[:, :, 0])


def _value_range(image: Image.Image) -> tuple[float, float]:
    """The values that become 0 and 255."""
    if image.mode.startswith("I;16"):
        tags: Any = getattr(image, "tag_v2", {})
        bits = tags.get(258, (16,))  # BitsPerSample: a TIFF may have 12
        return 0.0, float(2 ** min(bits[0] if isinstance(bits, tuple) else bits, 16) - 1)
    low, high = cast("tuple[float, float]", image.getextrema())
    tops = [1.0, 255.0, 65535.0] if image.mode == "F" else [255.0, 65535.0]
    if image.mode == "I" and image.format in {"PNG", "PPM"}:
        tops = [65535.0]
    for top in tops:
        if low >= 0 and high <= top:
            return 0.0, top
    return low, high if high > low else low + 1


def _is_known(start: bytes) -> bool:
    """Whether the first bytes are those of one of the formats that are opened."""
    return any(
        accepts(start) is True
        for kind in FORMATS
        if kind in Image.OPEN and (accepts := Image.OPEN[kind][1]) is not None
    )


def _why_not_decoded(error: Exception) -> Rejected:
    message = _short(error)
    if any(sign in message.lower() for sign in ("truncat", "end of file", "eof", "not enough image data")):
        return Rejected("truncated", f"the picture's data end too early ({message})")
    return Rejected("corrupt", f"the picture cannot be decoded ({message})")


def _claimed(error: Exception | Warning) -> str:
    """How many pixels the file says it has, out of Pillow's message."""
    found = re.search(r"\((\d+) pixels\)", str(error))
    return f"{int(found[1]):,} pixels claimed" if found else "too many pixels claimed"


def _short(error: Exception) -> str:
    message = str(error) or type(error).__name__
    return re.sub(r"<[^<>]* at 0x[0-9a-f]+>", "it", message)[:200]  # an address differs from run to run
