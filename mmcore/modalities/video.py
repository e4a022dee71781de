"""Videos: a few frames at known times, each a picture of its own."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from mmcore.config.media import VideoSettings
from mmcore.modalities.base import Member, Modality, Rejected
from mmcore.modalities.containers import container_of
from mmcore.modalities.pixels import (
    Pixels,
    framed,
    in_mode,
    packed,
    perceptual_hash,
    resized,
    target,
    unpacked,
)
from mmcore.records import Json

SEEK_S = 3.0
"""A wanted frame that lies further ahead is sought from the key frame before it; nearer ones are decoded towards."""
HASHED = 4
"""Frames in a signature."""
_ATTACHED = "attached_pic"
"""How FFmpeg calls a cover picture, which is no video."""


@dataclass(frozen=True)
class Clip:
    """Some upright frames of a video with the facts of the file they came from."""

    frames: tuple[Pixels, ...]
    times_s: tuple[float, ...]
    """When each is shown."""
    width: int
    """Of the upright file, in pixels."""
    height: int
    duration_s: float
    frames_per_s: float
    """On average, of the file."""
    codec: str
    has_sound: bool
    applied: tuple[str, ...] = ()


class VideoModality(Modality[Clip]):
    """Decodes with FFmpeg (PyAV) the frames that are wanted and those that they depend on, and resizes them.

    Wanted are `frames` frames in the middle of as many equal parts of the video, or `frames_per_s` from its start.
    """

    kind: ClassVar[str] = "video"
    several = True

    def __init__(self, settings: VideoSettings) -> None:
        self.settings = settings

    @property
    def extension(self) -> str:
        return "jpg" if self.settings.format == "jpeg" else self.settings.format

    def decode(self, data: bytes) -> Clip | Rejected:
        if len(data) > self.settings.max_bytes:
            return Rejected("too-many-bytes", f"{len(data):,} bytes; max_bytes is {self.settings.max_bytes:,}")
        container = container_of(data)
        if container is None or container == "aac":
            return Rejected("unknown-format", "the bytes are of no video format that is read here")
        try:
            import av
        except ImportError:
            return Rejected("missing-library", "videos need PyAV; install mmcore[video] and try again")
        try:
            with av.open(io.BytesIO(data), "r", format=container) as opened:
                return self._read(opened)
        except (av.FFmpegError, ValueError, ArithmeticError, OSError) as error:
            return Rejected("corrupt", f"the video cannot be decoded ({_short(error)})")

    def _read(self, opened: Any) -> Clip | Rejected:
        streams = [one for one in opened.streams.video if _ATTACHED not in str(one.disposition).lower()]
        if not streams:
            return Rejected("no-video-track", "the file has no moving pictures")
        stream = streams[0]
        context = stream.codec_context
        if context is None:
            return Rejected("corrupt", "the video's codec is not one that is read here")
        width, height = context.width, context.height
        if width < 1 or height < 1:
            return Rejected("corrupt", f"frames of {width} x {height} pixels")
        if why := self._too_large(width, height):
            return why
        context.thread_count = 1
        duration_s = _duration_s(opened, stream)
        if duration_s is None:
            return Rejected("truncated", "the file holds no frame")
        if duration_s < self.settings.min_duration_s:
            what = f"{duration_s:.4f} s; min_duration_s is {self.settings.min_duration_s:g}"
            return Rejected("too-short", what)
        frames: list[Pixels] = []
        times: list[float] = []
        turned = 0
        for time_s, frame in _frames_at(opened, stream, self._wanted_s(duration_s)):
            if why := self._too_large(frame.width, frame.height):
                return why
            turned = round(frame.rotation / 90) % 4
            pixels = np.rot90(frame.to_ndarray(format="rgb24"), turned)
            height, width = pixels.shape[:2]
            frames.append(self._shaped(np.ascontiguousarray(pixels)))
            times.append(round(time_s, 3))
        if not frames:
            return Rejected("corrupt", "no frame can be decoded")
        applied = ["turned"] if turned else []
        if duration_s > self.settings.max_duration_s:
            applied.append("cut")
        rate = float(stream.average_rate or 0)
        sound = bool(opened.streams.audio)
        name = context.name
        return Clip(
            tuple(frames), tuple(times), width, height, duration_s, rate, name, sound, tuple(applied)
        )  # fmt: skip

    def _wanted_s(self, duration_s: float) -> list[float]:
        """The times of the frames that are wanted, ascending."""
        settings, looked_at = self.settings, min(duration_s, self.settings.max_duration_s)
        if settings.frames_per_s is None:
            return [looked_at * (2 * n + 1) / (2 * settings.frames) for n in range(settings.frames)]
        count = max(1, min(settings.max_frames, int(looked_at * settings.frames_per_s + 1e-6)))
        return [n / settings.frames_per_s for n in range(count)]

    def _too_large(self, width: int, height: int) -> Rejected | None:
        most = self.settings.max_pixels
        what = f"frames of {width} x {height} pixels; max_pixels is {most:,}"
        return Rejected("too-large", what) if width * height > most else None

    def _shaped(self, pixels: Pixels) -> Pixels:
        """One frame as it is stored; done at once, since many at full size would take much memory."""
        small = resized(pixels, *target(pixels.shape[1], pixels.shape[0], self.settings))
        return in_mode(framed(small, self.settings), self.settings.mode)

    def check(self, value: Clip) -> dict[str, Json] | Rejected:
        """Duration, frame rate, size (upright, in pixels), codec; the times of the frames kept; whether it sounds."""
        return {
            "duration_s": round(value.duration_s, 3),
            "frames_per_s": round(value.frames_per_s, 3),
            "width": value.width,
            "height": value.height,
            "codec": value.codec,
            "has_sound": value.has_sound,
            "count": len(value.frames),
            "times_s": list(value.times_s),
        }

    def normalise(self, value: Clip) -> Clip:
        """Frames are resized as they are decoded; what is left is to say so."""
        same = value.frames[0].shape[:2] == (value.height, value.width)
        return value if same else replace(value, applied=(*value.applied, "resized"))

    def encode(self, value: Clip) -> bytes:
        """The first frame; `process` encodes them all."""
        return packed(value.frames[0], self.settings.format, self.settings.quality)

    def load(self, data: bytes) -> Pixels:
        """One frame's member as (height, width, channels) of 0 to 255."""
        return unpacked(data, self.settings.mode)

    def signature(self, value: Clip) -> bytes | None:
        """The perceptual hashes of four frames spread over the video: 256 bits."""
        count = len(value.frames)
        hashes = [perceptual_hash(value.frames[(2 * n + 1) * count // (2 * HASHED)]) for n in range(HASHED)]
        return None if all(one is None for one in hashes) else b"".join(one or bytes(8) for one in hashes)

    def process(self, data: bytes) -> Member | Rejected:
        """A member of one part per frame."""
        if not data:
            return Rejected("empty-file", "the file has no bytes")
        value = self.decode(data)
        if isinstance(value, Rejected):
            return value
        facts = self.check(value)
        if isinstance(facts, Rejected):
            return facts
        stored = self.normalise(value)
        if stored.applied:
            facts["applied"] = list(stored.applied)
        parts = tuple(packed(frame, self.settings.format, self.settings.quality) for frame in stored.frames)
        return Member(parts, facts, self.signature(stored))


def _frames_at(opened: Any, stream: Any, times_s: Sequence[float]) -> Iterator[tuple[float, Any]]:
    """For each time the frame that is shown then: (its own time, frame). A frame that is shown long comes repeatedly.

    Frames that are damaged are passed over; after the last one that can be decoded there is no other.
    """
    start = float((stream.start_time or 0) * stream.time_base)
    decoder = _decoded(opened, stream, start)
    shown, coming = None, next(decoder, None)
    for wanted in times_s:
        here = coming[0] if coming else (shown[0] if shown else 0.0)
        if coming is not None and wanted - here > SEEK_S:
            opened.seek(int((wanted + start) / stream.time_base), stream=stream)
            again = _decoded(opened, stream, start)
            sought = next(again, None)
            # Where seeking does not work, go on from the start.
            if sought is not None and here < sought[0] <= wanted:
                decoder, shown, coming = again, None, sought
            else:
                opened.seek(stream.start_time or 0, stream=stream)
                decoder = _decoded(opened, stream, start)
                shown, coming = None, next(decoder, None)
        while coming is not None and (shown is None or coming[0] <= wanted):
            shown, coming = coming, next(decoder, None)
        if shown is None:
            return
        yield shown


def _decoded(opened: Any, stream: Any, start: float) -> Iterator[tuple[float, Any]]:
    """Frames with their times, counted from the start of the video."""
    import av

    rate = float(stream.average_rate or 25)
    count = 0
    packets = opened.demux(stream)
    while True:
        try:
            packet = next(packets)
            frames = packet.decode()
        except StopIteration:
            return
        except av.InvalidDataError:
            continue  # a damaged frame; the next key frame mends it
        except av.FFmpegError:
            return
        for frame in frames:
            time_s = frame.time - start if frame.time is not None else count / rate
            count += 1
            yield time_s, frame


def _duration_s(opened: Any, stream: Any) -> float | None:
    """How long the pictures last; told by the packets where the file does not say so. None without a packet."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if opened.duration:
        return float(opened.duration / 1_000_000)
    ends = [
        float((packet.pts + (packet.duration or 0)) * packet.time_base)
        for packet in opened.demux(stream)
        if packet.pts is not None
    ]
    if not ends:
        return None
    opened.seek(0)
    return max(ends) - float((stream.start_time or 0) * stream.time_base)


def _short(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:200]
