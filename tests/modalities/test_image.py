"""Pictures in and out: closed forms for colours, sizes, orientation, depth and transparency."""

import io
import struct
import subprocess
import sys
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from mmcore.config import ImageSettings
from mmcore.modalities.base import Member, Rejected
from mmcore.modalities.image import ImageModality


def modality(**settings):
    return ImageModality(ImageSettings(column="image", **settings))


def saved(image, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pixels_of(data, **settings):
    one = modality(**settings)
    member = one.process(data)
    assert isinstance(member, Member), member
    return one.load(member.data)


@pytest.mark.parametrize("resize", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("size", [(5, 5), (300, 300), (1, 1)])
def test_a_constant_picture_stays_constant(resize, size):
    got = pixels_of(saved(Image.new("RGB", size, (200, 30, 90))), resize=resize, size=20)
    assert got.shape == (20, 20, 3)
    assert got.dtype == np.uint8
    assert (got == (200, 30, 90)).all()


def test_a_picture_of_the_stored_size_passes_unchanged():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert (pixels_of(saved(Image.fromarray(pixels)), size=32) == pixels).all()
    grey = pixels[:, :, 0]
    got = pixels_of(saved(Image.fromarray(grey)), size=32, mode="grey")
    assert got.shape == (32, 32, 1)
    assert (got[:, :, 0] == grey).all()


def test_pad_keeps_all_crop_keeps_the_middle_stretch_ignores_the_ratio():
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, :15], wide[:, 15:25], wide[:, 25:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    data = saved(Image.fromarray(wide))
    padded = pixels_of(data, size=40, background=(9, 8, 7))
    assert (padded[15:25] == wide).all()
    assert (np.delete(padded, range(15, 25), axis=0) == (9, 8, 7)).all()
    assert (pixels_of(data, size=10, resize="crop")[:, 2:8] == (0, 255, 0)).all()
    stretched = pixels_of(data, size=40, resize="stretch")
    assert (stretched[:, 2] == (255, 0, 0)).all()
    assert (stretched[:, -2] == (0, 0, 255)).all()
    grey = pixels_of(data, size=40, background=(100, 100, 100), mode="grey")
    assert (grey[0] == 100).all()


def test_extreme_ratios_keep_a_pixel():
    data = saved(Image.new("RGB", (5000, 1), (0, 0, 0)))
    got = pixels_of(data, size=8)
    assert (got[3] == 0).all()
    assert (np.delete(got, 3, axis=0) == 255).all()


def test_shrinking_a_smooth_picture_keeps_its_values():
    ramp = np.broadcast_to(np.linspace(0, 255, 256), (256, 256))
    got = pixels_of(saved(Image.fromarray(ramp.astype(np.uint8))), size=64, mode="grey")[:, :, 0].astype(float)
    ideal = ramp.reshape(64, 4, 64, 4).mean(axis=(1, 3))
    psnr = 10 * np.log10(255**2 / np.mean((got - ideal) ** 2))
    assert psnr > 45


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_and_facts_are_upright(orientation):
    upright = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3) * 3
    # How a camera stores the upright picture for each value, from the EXIF standard's table.
    turn = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, 1), 7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(np.ascontiguousarray(turn(upright))), exif=exif)
    member = modality(size=6).process(data)
    assert (member.facts["width"], member.facts["height"]) == (4, 6)
    assert (pixels_of(data, size=6)[:, 1:5] == upright).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_shows_the_background(mode):
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 8))
    got = pixels_of(saved(image.convert(mode)), size=8, background=(10, 200, 30))
    assert (got[:, :4] == 0).all()
    assert (got[:, 4:] == (10, 200, 30)).all()


def test_half_transparency_mixes():
    got = pixels_of(saved(Image.new("RGBA", (4, 4), (255, 0, 0, 128))), size=4, background=(0, 0, 255))
    assert np.abs(got.astype(int) - (128, 0, 127)).max() <= 1


def test_transparent_colours_of_grey_and_rgb_pngs():
    image = Image.new("L", (4, 4), 7)
    image.paste(90, (0, 0, 2, 4))
    got = pixels_of(saved(image, transparency=7), size=4, background=(1, 2, 3))
    assert (got[:, 2:] == (1, 2, 3)).all()
    assert (got[:, :2] == 90).all()
    image = Image.fromarray(np.array([[0, 65535], [257 * 100, 1]], np.uint16))
    got = pixels_of(saved(image, transparency=1), size=2, background=(50, 60, 70))
    assert got.tolist() == [[[0] * 3, [255] * 3], [[100] * 3, [50, 60, 70]]]


def test_sixteen_bits_are_scaled_not_wrapped():
    values = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    got = pixels_of(saved(Image.fromarray(values)), size=16, mode="grey")
    assert (got[:, :, 0].ravel() == np.arange(256)).all()
    assert (pixels_of(saved(Image.fromarray(values), "TIFF"), size=16, mode="grey") == got).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0, 0.2], [0, 128, 255, 51]),
        ([0.0, 17.0, 255.0, 3.0], [0, 17, 255, 3]),
        ([0.0, 257.0, 65535.0, 514.0], [0, 1, 255, 2]),
        ([-1.0, 0.0, 1.0, -0.5], [0, 128, 255, 64]),
        ([-5.0, -5.0, -5.0, -5.0], [0, 0, 0, 0]),
    ],
)
def test_floats_take_the_smallest_range_that_holds_them(values, expected):
    data = saved(Image.fromarray(np.array(values, np.float32).reshape(2, 2)), "TIFF")
    assert pixels_of(data, size=2, mode="grey").ravel().tolist() == expected


def test_a_float_picture_with_nan_is_rejected():
    data = saved(Image.fromarray(np.array([[0.0, np.nan]], np.float32)), "TIFF")
    assert modality().process(data) == Rejected("not-finite", "the picture holds NaN or infinity")


def test_32_bit_integers_are_scaled():
    data = saved(Image.fromarray(np.array([[0, 100], [200, 255]], np.int32)), "TIFF")
    assert pixels_of(data, size=2, mode="grey").ravel().tolist() == [0, 100, 200, 255]


def test_palette_cmyk_bilevel_and_lab_become_rgb():
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    assert (pixels_of(saved(red.convert("P")), size=4) == (255, 0, 0)).all()
    cmyk = pixels_of(saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"), size=8)
    assert (cmyk == (255, 0, 0)).all()
    assert (pixels_of(saved(Image.new("1", (4, 4), 1)), size=4) == 255).all()
    lab = ImageCms.profileToProfile(
        red, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert np.abs(pixels_of(saved(lab, "TIFF"), size=4).astype(int) - (255, 0, 0)).max() <= 6


def test_the_first_frame_is_taken():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "PNG", "TIFF", "WEBP"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        assert np.abs(pixels_of(data, size=4).astype(int) - (255, 0, 0)).max() <= 6, kind


def test_facts_are_about_the_file():
    member = modality(size=8).process(saved(Image.new("P", (30, 20))))
    applied = ["resized", "padded"]
    assert member.facts == {"width": 30, "height": 20, "mode": "P", "format": "PNG", "applied": applied}


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_members_hold_pixels_and_nothing_else(kind):
    exif = Image.Exif()
    exif[0x010E] = "secret"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.effect_noise((32, 32), 50).convert("RGB")
    plain, dressed = saved(image), saved(image, exif=exif, icc_profile=profile, dpi=(72, 72))
    one = modality(size=16, format=kind)
    member = one.process(dressed)
    assert member.data == one.process(plain).data == one.process(plain).data
    with Image.open(io.BytesIO(member.data)) as stored:
        assert stored.format == kind.upper()
        assert not {"exif", "icc_profile", "dpi"} & set(stored.info)
    assert one.extension == {"png": "png", "jpeg": "jpg"}[kind]


def test_jpeg_quality_counts():
    data = saved(Image.effect_noise((64, 64), 90).convert("RGB"))
    low, high = (len(modality(format="jpeg", quality=quality).process(data).data) for quality in (20, 95))
    assert high > 2 * low


def test_limits_on_bytes_and_pixels():
    data = saved(Image.new("RGB", (100, 100)))
    assert modality(max_bytes=len(data)).process(data).facts["width"] == 100
    assert modality(max_bytes=len(data) - 1).process(data).code == "too-many-bytes"
    assert isinstance(modality(max_pixels=10_000).process(data), Member)
    for limit in (9_999, 5_000, 100):
        got = modality(max_pixels=limit).process(data)
        assert got.code == "too-large"
        assert f"{limit:,}" in got.message


def test_a_limit_above_pillows_own_holds_and_pillow_is_left_as_it_was(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    data = saved(Image.new("RGB", (100, 100)))
    assert isinstance(modality(max_pixels=10_000).process(data), Member)
    assert Image.MAX_IMAGE_PIXELS == 50


def test_several_threads_may_decode_at_once():
    data, failures = saved(Image.new("RGB", (60, 60))), []

    def work(limit, code):
        for _ in range(50):
            got = modality(max_pixels=limit, size=4).process(data)
            if getattr(got, "code", None) != code:
                failures.append(got)

    filters = list(warnings.filters)
    threads = [threading.Thread(target=work, args=case) for case in ((100, "too-large"), (3600, None)) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert warnings.filters == filters


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_a_cut_off_file_is_truncated(kind, share):
    data = saved(Image.effect_noise((60, 60), 50).convert("RGB"), kind)
    assert modality().process(data[: int(len(data) * share)]).code == "truncated"


def test_programs_are_not_started_for_postscript():
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    assert modality().process(postscript).code == "unknown-format"


def test_modalities_load_no_torch_and_no_more_than_they_need():
    code = (
        "import sys\n"
        "import mmcore.modalities.{}\n"
        "loaded = {{'torch', 'dask', 'prefect', 'scipy', 'sklearn', 'PIL', 'soundfile', 'soxr'}} & set(sys.modules)\n"
        "print(*sorted(loaded))"
    )
    for name, needs in (("image", "PIL"), ("audio", "soundfile soxr"), ("text", "")):
        done = subprocess.run([sys.executable, "-c", code.format(name)], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == needs


def test_a_transparent_colour_of_a_16_bit_rgb_png_does_no_harm():
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0" + struct.pack(">HHH", 65535, 0, 257 * 9))
    body = chunk(b"IHDR", header) + chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3)) + chunk(b"IDAT", pixel)
    png = b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")
    assert pixels_of(png, size=1).ravel().tolist() == [255, 0, 9]


@pytest.mark.parametrize("mode", ["LA", "I;16", "CMYK"])
def test_a_large_picture_takes_little_more_than_itself(mode, tmp_path):
    """36 million pixels: at most two copies of 4 bytes a pixel at any time, beside the interpreter."""
    Image.new(mode, (6000, 6000)).save(tmp_path / "large", "JPEG" if mode == "CMYK" else "PNG")
    code = (
        "import re, sys\n"
        "from mmcore.config import ImageSettings\n"
        "from mmcore.modalities.image import ImageModality\n"
        "member = ImageModality(ImageSettings(column='image')).process(open(sys.argv[1], 'rb').read())\n"
        "assert member.facts['width'] == 6000\n"
        # Not ru_maxrss: a new process starts with that of the one it was forked from.
        "print(int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "large")], capture_output=True, check=True)
    assert int(done.stdout) < 288 + 120
