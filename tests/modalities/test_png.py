"""The quick way through small PNGs gives what Pillow gives, and takes nothing that Pillow would refuse."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mmcore.config import ImageSettings
from mmcore.modalities import png, stills

SETTINGS = ImageSettings(column="x")


def saved(image, **how):
    out = io.BytesIO()
    image.save(out, "PNG", **how)
    return out.getvalue()


def picture(mode, width=37, height=29):
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "LA": (2,)}[mode]
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, *channels), np.uint8), mode=None)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(data, kind, body):
    return data[:33] + chunk(kind, body) + data[33:]


def made(rows, *, packed=None, width=4, height=3):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return png._START + head + chunk(b"IDAT", packed or zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("level", [0, 9])
def test_the_same_picture_as_pillow_decodes(mode, level):
    data = saved(picture(mode), compress_level=level)
    for file in (data, with_chunk(data, b"gAMA", struct.pack(">I", 45_455)), data + b"rubbish"):
        quick, slow = png.decode(file, SETTINGS), stills.decode(file, SETTINGS)
        assert np.array_equal(quick.pixels, slow.pixels)
        assert quick.pixels.shape == slow.pixels.shape
        facts = [(p.width, p.height, p.format, p.mode, p.applied, p.profile) for p in (quick, slow)]
        assert facts[0] == facts[1]


@pytest.mark.parametrize("kind", range(5))
def test_every_filter(kind):
    rows = b"".join(bytes([kind, *range(n, n + 4)]) for n in range(3))
    quick, slow = png.decode(made(rows), SETTINGS), stills.decode(made(rows), SETTINGS)
    assert np.array_equal(quick.pixels, slow.pixels)


def test_odd_pictures_are_left_to_pillow():
    turned = Image.Exif()
    turned[0x0112] = 6
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", "x")
    grey = picture("L")
    odd = [
        saved(picture("RGBA")),
        saved(picture("LA")),
        saved(grey.convert("P")),
        saved(grey.convert("1")),
        saved(grey.convert("I;16")),
        saved(grey, transparency=7),
        saved(grey, exif=turned),
        saved(grey, pnginfo=text),
        saved(grey, icc_profile=b"x" * 200),
        saved(grey, save_all=True, append_images=[picture("L").rotate(180)]),
        saved(picture("L", 600, 600)),
        b"",
        b"\x89PNG\r\n\x1a\n",
        saved(grey)[:40],
    ]
    assert [png.decode(data, SETTINGS) for data in odd] == [None] * len(odd)
    assert png.decode(saved(grey), ImageSettings(column="x", max_pixels=100)) is None


def test_unsound_pictures_are_left_to_pillow():
    good = b"".join(bytes([0, 1, 2, 3, 4]) for _ in range(3))
    assert png.decode(made(good), SETTINGS) is not None
    packed = zlib.compress(good)
    bad = [made(good[:-1]), made(good + b"\0"), made(b"\5" + good[1:]), made(b"", packed=packed[:-1])]
    bad += [made(b"", packed=b"rubbish"), made(good, width=0), made(good, height=4)]
    assert [png.decode(data, SETTINGS) for data in bad] == [None] * len(bad)
    data = saved(picture("L"))
    for at in range(8, len(data) - 12, 7):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        assert png.decode(bytes(damaged), SETTINGS) is None


HARMLESS = [
    (b"gAMA", struct.pack(">I", 45_455)),
    (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
    (b"sRGB", b"\0"),
    (b"pHYs", struct.pack(">IIB", 2835, 2835, 1)),
    (b"tIME", struct.pack(">HBBBBB", 2020, 1, 2, 3, 4, 5)),
    (b"bKGD", bytes(2)),
]


def test_chunks_in_any_order():
    """Doubled, lost, split or out of order, with right checksums: what is taken is what Pillow reads, to the pixel."""
    rows = b"".join(bytes([0, n, n + 1, 2 * n, 9]) for n in range(3))
    head, packed = (b"IHDR", struct.pack(">IIBBBBB", 4, 3, 8, 0, 0, 0, 0)), zlib.compress(rows)
    whole, end = (b"IDAT", packed), (b"IEND", b"")
    pieces = [head, whole, (b"IDAT", packed[:5]), (b"IDAT", packed[5:]), end, (b"IHDR", b""), *HARMLESS]
    draws, taken = random.Random(0), 0
    for _ in range(3000):
        chunks = [head, *draws.choices(pieces, k=draws.randrange(1, 6)), end]
        data = png._START + b"".join(chunk(*one) for one in chunks)
        if quick := png.decode(data, SETTINGS):
            assert np.array_equal(quick.pixels, stills.decode(data, SETTINGS).pixels), chunks
            taken += 1
    assert taken > 100


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_no_cut_or_changed_file_is_taken(mode):
    data, draws = saved(picture(mode, 9, 7)), random.Random(0)
    assert all(png.decode(data[:stop], SETTINGS) is None for stop in range(len(data)))
    for at in range(8, len(data)):
        damaged = bytearray(data)
        damaged[at] ^= draws.randrange(1, 256)
        assert png.decode(bytes(damaged), SETTINGS) is None, at
