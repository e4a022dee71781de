"""Videos in, frames out: made by FFmpeg with a known picture at every moment."""

import io
import json

import av
import numpy as np
import pytest
import yaml
from PIL import Image

from mmcore.config import AudioSettings, RunConfig, VideoSettings
from mmcore.modalities.audio import AudioModality
from mmcore.modalities.base import Member, Rejected
from mmcore.modalities.video import VideoModality
from mmcore.parallel import serial_pool
from mmcore.progress import Silent
from mmcore.shards import open_dataset
from mmcore.shards.prepare import prepare
from mmcore.storage import Store

RATE = 10


def level(number):
    """The grey of frame `number`: steps that survive compression."""
    return 20 + (number * 37) % 216


def made(count=40, container="mp4", codec="libx264", *, size=(64, 48), sound=False, gop=12):
    """A video of `count` frames, 10 a second, each of one grey with a white left third."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=RATE)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.gop_size = gop
        voice = file.add_stream("aac", rate=16_000, layout="mono") if sound else None
        for number in range(count):
            pixels = np.full((size[1], size[0], 3), level(number), np.uint8)
            pixels[:, : size[0] // 3] = 255
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        file.mux(stream.encode(None))
        if voice is not None:
            tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(16_000 * count // RATE) / 16_000)
            frame = av.AudioFrame.from_ndarray(tone[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate = 16_000
            file.mux(voice.encode(frame))
            file.mux(voice.encode(None))
    return out.getvalue()


def modality(**settings):
    return VideoModality(VideoSettings(column="video", **{"resize": "none", "format": "png", **settings}))


def frames_of(data, **settings):
    one = modality(**settings)
    member = one.process(data)
    assert isinstance(member, Member), member
    return [one.load(part) for part in member.parts], member.facts


def shown(pixels):
    """The grey in the right part of a frame."""
    return float(pixels[:, pixels.shape[1] // 2 :].mean())


CODECS = [
    ("mp4", "libx264"), ("mov", "mpeg4"), ("matroska", "libx264"), ("webm", "libvpx"), ("webm", "libvpx-vp9"),
    ("avi", "mpeg4"), ("avi", "mjpeg"), ("mp4", "libsvtav1"),
]  # fmt: skip


@pytest.mark.parametrize(("container", "codec"), CODECS)
def test_evenly_spaced_frames_are_those_shown_then(container, codec):
    if codec == "libsvtav1" and codec not in av.codecs_available:
        pytest.skip("this FFmpeg has no AV1 encoder")
    frames, facts = frames_of(made(40, container, codec), frames=5)
    assert [round(time, 1) for time in facts["times_s"]] == [0.4, 1.2, 2.0, 2.8, 3.6]
    for number, frame in zip((4, 12, 20, 28, 36), frames, strict=True):
        assert frame.shape == (48, 64, 3)
        assert abs(shown(frame) - level(number)) < 6
        assert frame[:, :12].mean() > 240
    assert (facts["width"], facts["height"], facts["count"], facts["has_sound"]) == (64, 48, 5, False)
    assert abs(facts["duration_s"] - 4) < 0.2
    assert abs(facts["frames_per_s"] - RATE) < 0.5


def test_frames_per_second():
    frames, facts = frames_of(made(40), frames_per_s=2)
    assert facts["times_s"] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
    assert all(abs(shown(frame) - level(5 * n)) < 6 for n, frame in enumerate(frames))
    assert frames_of(made(40), frames_per_s=2, max_frames=3)[1]["times_s"] == [0.0, 0.5, 1.0]
    beginning = frames_of(made(40), frames_per_s=2, max_duration_s=1)[1]
    assert (beginning["times_s"], beginning["applied"]) == ([0.0, 0.5], ["cut"])
    # More frames than there are: each is shown as long as it is.
    assert frames_of(made(4), frames=8)[1]["times_s"] == [0.0, 0.0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3]


@pytest.mark.parametrize("container", ["mp4", "matroska", "avi"])
def test_far_frames_are_sought_and_are_the_same(container):
    """Two minutes with a key frame every 4 s: what is sought is what decoding everything gives."""
    data = made(1200, container, "mpeg4", gop=40)
    frames, facts = frames_of(data, frames=6)
    wanted = [100, 300, 500, 700, 900, 1100]
    assert [round(time * RATE) for time in facts["times_s"]] == wanted
    for number, frame in zip(wanted, frames, strict=True):
        assert abs(shown(frame) - level(number)) < 8


def test_frames_are_resized_as_pictures_are():
    frames, facts = frames_of(made(size=(128, 64)), frames=2, resize="pad", size=32, background=(1, 2, 3))
    assert frames[0].shape == (32, 32, 3)
    assert (frames[0][0] == (1, 2, 3)).all()
    assert (facts["width"], facts["height"], facts["applied"]) == (128, 64, ["resized"])
    grey, _ = frames_of(made(size=(128, 64)), frames=2, resize="shorter", size=16, mode="grey")
    assert grey[0].shape == (16, 32, 1)
    member = modality(format="jpeg").process(made())
    assert all(Image.open(io.BytesIO(part)).format == "JPEG" for part in member.parts)


@pytest.mark.parametrize(("degrees", "corner"), [(90, "top"), (180, "right"), (270, "bottom")])
def test_rotated_videos_are_turned_upright(degrees, corner):
    """The display matrix of a phone's MP4 (ISO 14496-12, 8.3.2), put into the track's header by hand."""
    data = bytearray(made(size=(96, 48)))
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = [cos, sin, 0, -sin, cos, 0]
    at = data.index(b"tkhd") + 4 + 40
    for place, value in zip((0, 4, 8, 12, 16, 20), matrix, strict=True):
        data[at + place : at + place + 4] = (value * 65536 % 2**32).to_bytes(4, "big")
    frames, facts = frames_of(bytes(data), frames=1)
    frame = frames[0].mean(axis=2)
    assert (facts["width"], facts["height"]) == ((96, 48) if degrees == 180 else (48, 96))
    third = {"top": frame[:20], "right": frame[:, -20:], "bottom": frame[-20:]}[corner]
    assert third.mean() > 235
    assert "turned" in facts["applied"]


def test_limits_and_what_is_no_video():
    data = made()
    assert modality(max_bytes=len(data) - 1).process(data).code == "too-many-bytes"
    assert modality(max_pixels=64 * 48 - 1).process(data).code == "too-large"
    assert modality(min_duration_s=5).process(data).code == "too-short"
    assert modality().process(b"").code == "empty-file"
    for other in (b"plain text", b"\x89PNG\r\n\x1a\n", b"#EXTM3U\nfile:///etc/passwd\n"):
        assert modality().process(other).code == "unknown-format"
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        for part in (frame, None):
            file.mux(stream.encode(part))
    assert modality().process(out.getvalue()).code == "no-video-track"


@pytest.mark.parametrize("container", ["mp4", "matroska", "avi"])
def test_damage_gives_frames_or_a_reason(container, capfd):
    data = made(60, container, "mpeg4")
    draws = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(data)
        for at in draws.integers(0, len(data), 8):
            broken[at] = draws.integers(0, 256)
        cut = bytes(broken[: draws.integers(1, len(data))] if draws.random() < 0.3 else broken)
        got = modality(frames=3).process(cut)
        assert isinstance(got, Member | Rejected)
    assert capfd.readouterr() == ("", "")


def test_equal_bytes_each_time_and_a_signature_that_copies_share():
    def picture(seed, quality):
        out = io.BytesIO()
        draws = np.random.default_rng(seed)
        with av.open(out, "w", format="mp4") as file:
            stream = file.add_stream("libx264", rate=RATE, options={"crf": str(quality)})
            stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
            for _ in range(4):
                rough = draws.integers(0, 256, (6, 8, 3), dtype=np.uint8)
                smooth = np.asarray(Image.fromarray(rough).resize((160, 120), Image.Resampling.BICUBIC))
                for _ in range(5):
                    file.mux(stream.encode(av.VideoFrame.from_ndarray(smooth)))
            file.mux(stream.encode(None))
        return out.getvalue()

    def bits(one, other):
        return sum((a ^ b).bit_count() for a, b in zip(one, other, strict=True))

    fine, coarse, other = (modality().process(picture(*case)) for case in ((1, 20), (1, 38), (2, 20)))
    assert fine == modality().process(picture(1, 20))
    assert bits(fine.signature, coarse.signature) <= 0.15 * 256
    assert bits(fine.signature, other.signature) > 0.3 * 256


def test_a_video_and_its_sound_track_become_members(tmp_path):
    """One file in two columns' stead: frames and sound of each row, in tars that read back."""
    lines = ["id,label,split,clip"]
    for number in range(12):
        name = f"clip{number}.mp4"
        (tmp_path / name).write_bytes(made(20 + number, sound=number != 3))
        lines.append(f"c{number},{'ab'[number % 2]},{('train', 'train', 'val', 'test')[number // 2 % 4]},{name}")
    (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")
    video = {"kind": "video", "column": "clip", "frames": 3, "size": 16, "format": "jpeg"}
    audio = {"kind": "audio", "column": "clip", "sample_rate_hz": 8000, "format": "wav"}
    data = {
        "manifest": str(tmp_path / "clips.csv"),
        "modalities": {"video": video, "audio": audio},
        "max_rejected": 0.2,
    }
    config = RunConfig.model_validate({"data": data, "shards": {"samples": 4}, "output": str(tmp_path / "output")})
    made_set = prepare(config, Store(tmp_path / "output").open(), serial_pool(config.compute), Silent())
    assert [(reject.key, reject.code) for reject in made_set.rejects] == [("c3", "no-sound-track")]
    shards = open_dataset(tmp_path / "output", dataset=made_set.digest)
    for sample in shards.read(range(len(shards))):
        assert len(sample["video"]) == 3
        assert all(Image.open(io.BytesIO(part)).size == (16, 16) for part in sample["video"])
        if sample["__key__"] != "c3":
            samples = AudioModality(AudioSettings(**audio)).load(sample["audio"])
            seconds = 2 + int(sample["__key__"][1:]) / 10
            assert abs(len(samples) / 8000 - seconds) < 0.2


def test_image_encoders_read_frames():
    modalities = {"clip": {"kind": "video", "column": "clip", "size": 32}}
    config = {"data": {"manifest": "m.csv", "modalities": modalities}, "features": {"clip": {"encoder": "cnn"}}}
    assert RunConfig.model_validate(config).features["clip"].encoder == "cnn"
    assert yaml.safe_load(json.dumps(config)) == config
