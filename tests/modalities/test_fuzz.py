"""Random damage to valid files gives a member that loads again, or a rejection: never an exception or a warning."""

import io
import random
import subprocess
import sys
import time
import zlib

import av
import numpy as np
import psutil
import pytest
import soundfile
from PIL import Image

from mmcore.config import AudioSettings, ImageSettings, TextSettings, VideoSettings
from mmcore.modalities.base import REASONS, Member, Rejected

MUTATIONS = 40


def picture(kind, mode="RGB", size=(24, 31), **options):
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).convert(mode)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def muxed(container, codec):
    """A second of sound, or ten frames, in a container."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        if codec == "aac":
            stream = file.add_stream(codec, rate=16_000, layout="mono")
            wave = (np.sin(np.arange(16_000) * 0.1) * 0.5).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            frame.sample_rate = 16_000
            frames = [frame]
        else:
            stream = file.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt, stream.gop_size = 48, 32, "yuv420p", 4
            greys = (np.full((32, 48, 3), 20 * number, np.uint8) for number in range(10))
            frames = [av.VideoFrame.from_ndarray(grey) for grey in greys]
        for part in (*frames, None):
            file.mux(stream.encode(part))
    return out.getvalue()


def sound(kind, subtype=None):
    out = io.BytesIO()
    wave = np.sin(np.arange(4000) * 0.3) * 0.5
    soundfile.write(out, np.stack([wave, -wave / 2], axis=1), 11_025, format=kind, subtype=subtype)
    return out.getvalue()


VALID = {
    "png": ("image", picture("PNG")),
    "png-palette": ("image", picture("PNG", "P")),
    "png-alpha": ("image", picture("PNG", "LA")),
    "png-16": ("image", picture("PNG", "I;16")),
    "jpeg": ("image", picture("JPEG")),
    "jpeg-cmyk": ("image", picture("JPEG", "CMYK")),
    "jpeg-progressive": ("image", picture("JPEG", progressive=True)),
    "jpeg-scaled": ("image", picture("JPEG", size=(200, 260))),
    "jpeg-turned": (
        "image",
        picture("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
    ),
    "gif": ("image", picture("GIF")),
    "avif": ("image", picture("AVIF")),
    "webp": ("image", picture("WEBP")),
    "tiff": ("image", picture("TIFF")),
    "bmp": ("image", picture("BMP")),
    "wav": ("audio", sound("WAV")),
    "wav-float": ("audio", sound("WAV", "FLOAT")),
    "flac": ("audio", sound("FLAC")),
    "ogg": ("audio", sound("OGG")),
    "mp3": ("audio", sound("MP3")),
    "aiff": ("audio", sound("AIFF")),
    "au": ("audio", sound("AU")),
    "m4a": ("audio", muxed("mp4", "aac")),
    "adts": ("audio", muxed("adts", "aac")),
    "mp4": ("video", muxed("mp4", "libx264")),
    "webm": ("video", muxed("webm", "libvpx")),
    "avi": ("video", muxed("avi", "mpeg4")),
    "html": ("text", b"<html><head><title>t</title></head><body><p>One &amp; two<br>three</p><script>x</script>" * 2),
    "text": ("text", "Grüße, 世界! e\u0301 👩‍👩‍👧\r\nzweite Zeile\t7".encode() * 3),
}
MODALITIES = {
    settings.kind: settings.load()(settings)
    for settings in (
        ImageSettings(column="x", size=16, max_pixels=1_000_000),
        AudioSettings(column="x", sample_rate_hz=8000),
        TextSettings(column="x", strip_html=True, encoding="detect"),
        VideoSettings(column="x", size=16, frames=3, max_pixels=1_000_000),
    )
}


def survives(modality, got):
    """A rejection with a known reason, or a member that loads again as its settings say."""
    if isinstance(got, Rejected):
        return got.code in REASONS and bool(got.message)
    assert isinstance(got, Member)
    value = modality.load(got.parts[0])
    if modality.kind in {"image", "video"}:
        side = modality.settings.size
        rest = [modality.load(part) for part in got.parts[1:]]
        return all(one.shape[:2] == (side, side) and one.dtype == np.uint8 for one in (value, *rest))
    if modality.kind == "audio":
        whole = value.ndim == 1 and len(value) > 0 and value.dtype == np.float32
        return whole and bool(np.abs(value).max() <= 1)
    return bool(value) and len(value) <= modality.settings.max_chars


def damage(data, rng):
    """One to four of: a byte changed, a bit flipped, a piece lost, doubled, or overwritten, the end cut off."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data)) if rng.random() < 0.6 else rng.randrange(min(64, len(data)))
        length = rng.randint(1, 16)
        kind = rng.randrange(6)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        elif kind == 4:
            data[at : at + length] = bytes([rng.choice([0, 127, 255])]) * length
        else:
            del data[max(1, at) :]
        if not data:
            return b""
    return bytes(data)


@pytest.mark.parametrize("name", VALID)
def test_damage_is_accepted_or_rejected(name, capfd):
    kind, data = VALID[name]
    modality = MODALITIES[kind]
    assert isinstance(modality.process(data), Member)
    rng = random.Random(zlib.crc32(name.encode()))
    for _ in range(MUTATIONS):
        mutant = damage(data, rng)
        started = time.monotonic()
        got = modality.process(mutant)
        assert time.monotonic() - started < 10
        assert survives(modality, got)
        assert got == modality.process(mutant)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", MODALITIES)
def test_ten_thousand_mutations(kind, capfd):
    """None hangs, none raises, and memory does not grow with their number."""
    modality, valid = MODALITIES[kind], [data for other, data in VALID.values() if other == kind]
    rng, outcomes = random.Random(2026), {"accepted": 0, "rejected": 0}
    before = 0
    for turn in range(10_000):
        mutant = damage(valid[turn % len(valid)], rng)
        started = time.monotonic()
        got = modality.process(mutant)
        assert time.monotonic() - started < 10
        assert survives(modality, got)
        outcomes["accepted" if isinstance(got, Member) else "rejected"] += 1
        if turn == 3_000:
            before = psutil.Process().memory_info().rss
    assert psutil.Process().memory_info().rss - before < 60_000_000
    assert min(outcomes.values()) > 300, outcomes
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["image", "audio", "text", "video"])
def test_noise_is_accepted_or_rejected(kind):
    rng = random.Random(7)
    starts = [b"", *(data[:12] for other, data in VALID.values() if other == kind)]
    for turn in range(150):
        data = starts[turn % len(starts)] + rng.randbytes(rng.randint(1, 300))
        assert survives(MODALITIES[kind], MODALITIES[kind].process(data))


PROGRAM = """
import hashlib
from tests.modalities.test_fuzz import MODALITIES, VALID
for name, (kind, data) in VALID.items():
    member = MODALITIES[kind].process(data)
    print(name, hashlib.sha256(b"".join(member.parts)).hexdigest(), sorted(member.facts.items()))
"""


def test_a_fresh_process_gives_equal_bytes(monkeypatch, capsys):
    exec(PROGRAM, {})
    here = capsys.readouterr().out
    there = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert there.stdout == here
    assert len(here.splitlines()) == len(VALID)
