"""Sizes, filters and hashes of pictures against closed forms, Pillow and made copies."""

import io
import struct
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFilter, ImageOps
from pydantic import ValidationError

from mmcore.config import ImageSettings, RunConfig
from mmcore.modalities.base import Member
from mmcore.modalities.image import ImageModality
from mmcore.modalities.jpeg import read_header
from mmcore.modalities.pixels import perceptual_hash, target


def settings(**values):
    return ImageSettings(column="image", **values)


def photo(width, height, seed=0):
    """Large shapes and fine noise, as photographs have."""
    draws = np.random.default_rng(seed)
    rough = draws.normal(128, 60, (height // 32 + 2, width // 32 + 2, 3)).clip(0, 255).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC), np.float64)
    return Image.fromarray((smooth + draws.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8))


def saved(image, kind="JPEG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def member_of(data, **values):
    member = ImageModality(settings(**values)).process(data)
    assert isinstance(member, Member), member
    return member


def pixels_of(data, **values):
    return ImageModality(settings(**values)).load(member_of(data, **values).data)


def psnr(one, other):
    error = np.mean((np.asarray(one, float) - np.asarray(other, float)) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-9))


@pytest.mark.parametrize(
    ("values", "source", "expected"),
    [
        ({"resize": "shorter", "size": 50}, (200, 100), (100, 50)),
        ({"resize": "shorter", "size": 50}, (30, 20), (75, 50)),
        ({"resize": "shorter", "size": 50, "only_if_larger": True}, (30, 20), (30, 20)),
        ({"resize": "longer", "size": 50}, (200, 100), (50, 25)),
        ({"resize": "longer", "size": 50, "only_if_larger": True}, (40, 10), (40, 10)),
        ({"resize": "fit", "size": (60, 20)}, (200, 100), (40, 20)),
        ({"resize": "fit", "size": 64}, (200, 100), (64, 32)),
        ({"resize": "pad", "size": (60, 20)}, (200, 100), (60, 20)),
        ({"resize": "pad", "size": 300, "only_if_larger": True}, (200, 100), (300, 300)),
        ({"resize": "crop", "size": (30, 60)}, (200, 100), (30, 60)),
        ({"resize": "stretch", "size": (30, 600)}, (200, 100), (30, 600)),
        ({"resize": "none"}, (201, 101), (201, 101)),
        ({"resize": "longer", "size": 8}, (5000, 1), (8, 1)),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_every_mode_gives_its_size(values, source, expected, kind):
    data = saved(photo(*source), kind)
    got = pixels_of(data, **values)
    assert (got.shape[1], got.shape[0]) == expected
    facts = member_of(data, **values).facts
    assert (facts["width"], facts["height"]) == source


def test_only_if_larger_pads_without_enlarging():
    image = Image.new("RGB", (4, 2), (1, 2, 3))
    got = pixels_of(saved(image, "PNG"), resize="pad", size=8, only_if_larger=True, background=(9, 9, 9))
    assert (got[3:5, 2:6] == (1, 2, 3)).all()
    assert (got == (9, 9, 9)).all(axis=2).sum() == 64 - 8


@pytest.mark.parametrize(
    "values",
    [
        {"resize": "shorter", "size": (20, 30)},
        {"resize": "crop", "only_if_larger": True},
        {"resize": "none", "only_if_larger": True},
        {"size": 0},
        {"size": (5, 0)},
    ],
)
def test_settings_that_make_no_sense(values):
    with pytest.raises(ValidationError):
        settings(**values)


def test_networks_take_squares():
    modality = {"kind": "image", "column": "image", "resize": "shorter"}
    data = {"manifest": "m.csv", "modalities": {"image": modality}}
    with pytest.raises(ValidationError, match="takes squares"):
        RunConfig.model_validate({"data": data, "features": {"image": {"encoder": "cnn"}}})


@pytest.mark.parametrize(("width", "height"), [(640, 480), (2048, 1536), (1000, 333)])
def test_close_to_the_ideal(width, height):
    """Against Pillow's Lanczos filter on the fully decoded picture; the copy is stored without loss."""
    data = saved(photo(width, height), quality=90)
    full = Image.open(io.BytesIO(data))
    wanted = target(width, height, settings(resize="shorter", size=256))
    ideal = np.asarray(full.resize(wanted, Image.Resampling.LANCZOS))
    exact = psnr(pixels_of(data, resize="shorter", size=256, exact=True), ideal)
    default = psnr(pixels_of(data, resize="shorter", size=256), ideal)
    assert exact > 38
    assert default > 36
    assert exact >= default - 0.5


def test_shrinking_averages_areas():
    """Whole multiples: each pixel is the mean of those that it covers."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    got = pixels_of(saved(Image.fromarray(pixels), "PNG"), resize="longer", size=24)
    ideal = pixels.reshape(16, 4, 24, 4, 3).mean(axis=(1, 3))
    assert np.abs(got - ideal).max() <= 0.5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [16, 200])
def test_jpegs_are_turned_upright(orientation, size):
    """The fast way gives what Pillow's own transposition does."""
    image, exif = photo(400, 240), Image.Exif()
    exif[0x0112] = orientation
    data = saved(image, exif=exif, quality=95)
    header = read_header(data)
    assert header is not None
    assert header.orientation == orientation
    member = member_of(data, resize="longer", size=size)
    with Image.open(io.BytesIO(data)) as opened:
        upright = ImageOps.exif_transpose(opened)
    wanted = target(*upright.size, settings(resize="longer", size=size))
    ideal = upright.resize(wanted, Image.Resampling.BOX)
    got = ImageModality(settings(resize="longer", size=size)).load(member.data)
    assert (member.facts["width"], member.facts["height"]) == upright.size
    assert psnr(got, ideal) > 33
    assert ("exif-orientation" in member.facts["applied"]) == (orientation > 1)


def test_only_ordinary_jpegs_take_the_fast_way():
    image = photo(64, 48)
    assert read_header(saved(image)).channels == 3
    assert read_header(saved(image, progressive=True)).width == 64
    assert read_header(saved(image.convert("L"))).channels == 1
    assert read_header(saved(image.convert("CMYK"))) is None
    assert read_header(saved(image, "PNG")) is None
    data = saved(image)
    for cut in range(len(data)):
        read_header(data[:cut])
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    assert read_header(saved(image, xmp=xmp)) is None


def test_a_profile_is_applied_once_on_either_way():
    """sRGB primaries, gamma 1: linear values become sRGB's own."""
    profile = _linear_profile()
    image = Image.new("RGB", (64, 64), (55, 55, 55))
    expected = round(255 * (1.055 * (55 / 255) ** (1 / 2.4) - 0.055))
    for kind in ("JPEG", "PNG", "WEBP"):
        data = saved(image, kind, icc_profile=profile)
        member = member_of(data, size=32)
        got = pixels_of(data, size=32)
        assert np.abs(got.astype(int) - expected).max() <= 2, kind
        assert "icc-to-srgb" in member.facts["applied"]


@pytest.mark.parametrize("profile", [b"nothing", b"\0" * 500, None])
def test_srgb_and_broken_profiles_change_nothing(profile):
    profile = profile or ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = photo(40, 40)
    for kind in ("JPEG", "PNG"):
        member = member_of(saved(image, kind, icc_profile=profile), size=40)
        assert "applied" not in member.facts
        assert member.data == member_of(saved(image, kind), size=40).data


@pytest.mark.parametrize("kind", ["jpeg", "webp", "png"])
@pytest.mark.parametrize("mode", ["rgb", "grey"])
def test_every_format_holds_the_pixels(kind, mode):
    image = photo(96, 64)
    data = saved(image, "PNG")
    got = pixels_of(data, resize="none", format=kind, mode=mode, quality=95)
    ideal = np.asarray(image.convert("L"))[:, :, None] if mode == "grey" else np.asarray(image)
    assert got.shape == ideal.shape
    assert psnr(got, ideal) > {"jpeg": 30, "webp": 28, "png": 50}[kind]
    member = member_of(data, resize="none", format=kind, mode=mode, quality=95)
    assert Image.open(io.BytesIO(member.data)).format == kind.upper()


def test_small_pictures_are_set_aside():
    data = saved(photo(100, 30))
    assert ImageModality(settings(min_size=31)).process(data).code == "too-small"
    assert isinstance(ImageModality(settings(min_size=30)).process(data), Member)


def _bits(one, other):
    return sum((a ^ b).bit_count() for a, b in zip(one[:8], other[:8], strict=True))


def test_copies_share_their_hash_and_others_do_not():
    """Recompressed, resized and blurred copies differ in a few of the 64 bits, other pictures in about half."""
    hashes, copies = [], []
    for seed in range(40):
        image = photo(320, 240, seed)
        own = member_of(saved(image, quality=92), resize="shorter", size=128).signature
        hashes.append(own)
        made = (
            saved(image, quality=35),
            saved(image.resize((200, 150), Image.Resampling.BICUBIC), quality=80),
            saved(image.resize((640, 480), Image.Resampling.BICUBIC), "PNG"),
            saved(image.filter(ImageFilter.GaussianBlur(1)), "WEBP", quality=60),
        )
        copies += [_bits(own, member_of(copy, resize="shorter", size=128).signature) for copy in made]
    others = [_bits(one, other) for one, other in combinations(hashes, 2)]
    assert np.quantile(copies, 0.95) <= 4
    assert np.quantile(others, 0.01) > 12


def test_pictures_without_a_pattern_have_no_hash():
    draws = np.random.default_rng(0)
    assert perceptual_hash(np.full((50, 40, 3), 77, np.uint8)) is None
    assert perceptual_hash(draws.integers(120, 123, (64, 64, 1), dtype=np.uint8)) is None
    assert len(perceptual_hash(np.asarray(photo(64, 64)))) == 8


def _linear_profile():
    """An ICC version 2 profile with sRGB's primaries and a straight tone curve (specification ICC.1:2001-04)."""

    def xyz(values):
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    text = b"linear\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 78,
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": xyz((0.9642, 1.0, 0.8249)),
        b"rXYZ": xyz((0.4360, 0.2225, 0.0139)),
        b"gXYZ": xyz((0.3851, 0.7169, 0.0971)),
        b"bXYZ": xyz((0.1431, 0.0606, 0.7141)),
        **{name: b"curv\0\0\0\0" + struct.pack(">I", 0) for name in (b"rTRC", b"gTRC", b"bTRC")},
    }
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        data = value + b"\0" * (-len(value) % 4)
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    size = start + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ") + b"\0" * 12 + b"acsp"
    head = head.ljust(68, b"\0") + xyz((0.9642, 1.0, 0.8249))[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
