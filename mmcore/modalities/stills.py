"""Pictures of any common format, read by Pillow: upright, 8 bits, in sRGB, nothing transparent."""

from __future__ import annotations

import io
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmcore.config.media import ImageSettings
from mmcore.modalities import colours
from mmcore.modalities.base import Rejected
from mmcore.modalities.chatter import stderr_dropped
from mmcore.modalities.pixels import Picture, Pixels

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "ICO", "TGA", "JPEG2000", "AVIF")
"""What is opened. Pillow knows more, some of which start other programs (EPS)."""
STARTS = ((b"\x89PNG\r\n", ("PNG",)), (b"\xff\xd8\xff", ("JPEG",)), (b"GIF8", ("GIF",)), (b"BM", ("BMP",)))
"""First bytes that leave no doubt, which saves asking every reader."""
HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})

BAND_PIXELS = 1 << 20
"""Pixels of more than 8 bits that are scaled at a time."""
TIFF_STARTS = (b"II", b"MM")
# Pillow also logs some of the errors that it raises; a reject says it once.
logging.getLogger("PIL").setLevel(logging.CRITICAL)
_PILLOW_STATE = threading.Lock()
"""Held while Pillow's pixel limit and Python's warning filters, both global, are ours."""


def decode(data: bytes, settings: ImageSettings) -> Picture | Rejected:
    """The first picture in the file.

    More than 8 bits a channel become 8 by the depth's full range (16-bit 65535 is 255); floats and 32-bit integers by
    the smallest of the ranges 0 to 1 (floats), 0 to 255 and 0 to 65535 that holds all values, else by their own
    minimum and maximum.
    """
    formats: tuple[str, ...] = next((names for start, names in STARTS if data.startswith(start)), FORMATS)
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
        if not _can_read_heif():
            return Rejected("missing-library", "HEIC needs pillow-heif; install mmcore[heic] and try again")
        formats = (*FORMATS, "HEIF")
    # libtiff prints what it finds wrong with a file.
    quiet = stderr_dropped() if data.startswith(TIFF_STARTS) else nullcontext()
    with _own_limits(settings.max_pixels), quiet:
        try:
            image = Image.open(io.BytesIO(data), formats=formats)
        # Pillow's readers raise whatever their parsing stumbles on.
        except Exception as error:
            return _why_not_opened(data, error, settings)
        try:
            width, height = image.size
            if width < 1 or height < 1:
                return Rejected("corrupt", f"a picture of {width} x {height} pixels")
            if width * height > settings.max_pixels:
                return too_large(f"{width} x {height} pixels", settings)
            return _read(image, settings)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            return too_large(_claimed(error), settings)
        except _NotFiniteError as error:
            return Rejected("not-finite", str(error))
        except Exception as error:
            return _why_not_decoded(error)


def too_large(got: str, settings: ImageSettings) -> Rejected:
    """The reject of a picture with more than `max_pixels`."""
    return Rejected("too-large", f"{got}; max_pixels is {settings.max_pixels:,}")


def _read(image: Image.Image, settings: ImageSettings) -> Picture:
    mode, kind, frames = image.mode, image.format or "", getattr(image, "n_frames", 1)
    image.load()
    applied = ["first-frame"] if frames > 1 else []
    if _turn_upright(image):
        applied.append("exif-orientation")
    profile = image.info.get("icc_profile")
    plain = _in_turn(image, _eight_bits(image, profile, applied))
    width, height = plain.size
    if plain.mode == "RGBA":
        applied.append("alpha-on-background")
        below = Image.new("RGB", plain.size, settings.background)
        below.paste(plain, mask=plain)
        plain = _in_turn(plain, below)
    return Picture(_pixels(plain), width, height, kind, mode, tuple(applied))


def _in_turn(before: Image.Image, after: Image.Image) -> Image.Image:
    """`after`, the memory of `before` given back: a picture may take hundreds of megabytes."""
    if after is not before:
        before.close()
    return after


def _pixels(image: Image.Image) -> Pixels:
    channels = len(image.getbands())
    if image.width * image.height <= BAND_PIXELS:
        return np.asarray(image).reshape(image.height, image.width, channels)
    # Band by band, as Pillow copies what it hands over twice.
    pixels = np.empty((image.height, image.width, channels), np.uint8)
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        band = np.asarray(image.crop((0, top, image.width, bottom)))
        pixels[top:bottom] = band.reshape(bottom - top, image.width, channels)
    return pixels


def _can_read_heif() -> bool:
    if "HEIF" not in Image.OPEN:
        try:
            import pillow_heif
        except ImportError:
            return False
        pillow_heif.options.THUMBNAILS = False
        pillow_heif.register_heif_opener()
    return True


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


def _turn_upright(image: Image.Image) -> bool:
    """Whether there was something to turn."""
    # In place, since a picture may take hundreds of megabytes. Broken EXIF is common and no fault of the pixels.
    with suppress(Exception):
        turned = bool(image.getexif().get(0x0112, 1) != 1)
        ImageOps.exif_transpose(image, in_place=True)
        return turned
    return False


class _NotFiniteError(ValueError):
    """A float picture holds NaN or infinity."""


def _eight_bits(image: Image.Image, profile: bytes | None, applied: list[str]) -> Image.Image:
    """The picture in mode L, RGB or RGBA, in sRGB where it says what else it is in."""
    if image.mode.startswith(("I", "F")):
        applied.append("to-8-bits")
        return _scaled(image)
    if image.mode == "LAB":
        applied.append("lab-to-rgb")
        return colours.from_lab(image)
    if image.mode == "CMYK":
        applied.append("cmyk-to-rgb")
    elif image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
    elif image.mode not in {"L", "RGB"}:
        image = image.convert("L" if image.mode == "1" else "RGB")
    if profile and (converted := colours.to_srgb(image, profile)):
        applied.append("icc-to-srgb")
        return converted
    return image if image.mode != "CMYK" else image.convert("RGB")


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


def _why_not_opened(data: bytes, error: Exception, settings: ImageSettings) -> Rejected:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return too_large(_claimed(error), settings)
    if _is_known(data[:16].ljust(16, b"\0")):
        why = "" if isinstance(error, UnidentifiedImageError) else f" ({_short(error)})"
        return Rejected("corrupt", f"the file's header is broken{why}")
    return Rejected("unknown-format", "the bytes are of no picture format that is read here")


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
