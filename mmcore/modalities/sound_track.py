"""Sound out of containers that libsndfile does not open (AAC, M4A, videos), by FFmpeg within PyAV."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from mmcore.config.media import AudioSettings
from mmcore.modalities.base import Rejected
from mmcore.modalities.sound import Samples, Sound

MISSING_S = 0.5
"""A file whose sound ends earlier than it says by more than this was cut off."""


def decode(data: bytes, container: str, settings: AudioSettings, max_rate_hz: int) -> Sound | Rejected:
    """The first sound track, up to `max_duration_s`."""
    try:
        import av
    except ImportError:
        return Rejected("missing-library", f"reading {container} needs PyAV; install mmcore[video] and try again")
    try:
        with av.open(io.BytesIO(data), "r", format=container) as opened:
            if not opened.streams.audio:
                return Rejected("no-sound-track", "the file has no sound")
            stream = opened.streams.audio[0]
            context = stream.codec_context
            if context is None:
                return Rejected("corrupt", "the sound's codec is not one that is read here")
            if not 1 <= (stream.rate or 0) <= max_rate_hz or not context.channels:
                return Rejected("corrupt", f"a sound of {stream.rate} Hz and {context.channels} channels")
            if context.channels > settings.most_channels:
                most = f"{context.channels} channels; the most is {settings.most_channels}"
                return Rejected("too-many-channels", most)
            context.thread_count = 1
            return _read(av, opened, stream, settings)
    except (av.FFmpegError, ValueError, ArithmeticError, MemoryError, OSError) as error:
        if isinstance(error, MemoryError):
            raise
        return Rejected("corrupt", f"the sound cannot be decoded ({_short(error)})")


def _read(av: Any, opened: Any, stream: Any, settings: AudioSettings) -> Sound | Rejected:
    rate, channels = int(stream.rate), int(stream.codec_context.channels)
    says_s = _length_s(opened, stream)
    wanted = max(1, round(settings.max_duration_s * rate))
    plain = av.AudioResampler(format="fltp", layout=stream.codec_context.layout, rate=rate)
    blocks: list[Samples] = []
    count, broken = 0, ""
    try:
        for frame in opened.decode(stream):
            for even in plain.resample(frame):
                part = even.to_ndarray().T
                blocks.append(part.mean(axis=1, keepdims=True) if settings.channels == "mono" else part.copy())
                count += len(part)
            if count >= wanted:
                break
    except av.FFmpegError as error:
        broken = _short(error)
    if not count:
        return Rejected("corrupt", f"the sound cannot be decoded ({broken})") if broken else _NOTHING
    ended = count < wanted
    if ended and (broken or (says_s is not None and count / rate < says_s - MISSING_S)):
        why = f" ({broken})" if broken else ""
        return Rejected("truncated", f"{count / rate:.2f} s of {says_s or 0:.2f} s could be read{why}")
    samples = np.ascontiguousarray(np.concatenate(blocks)[:wanted], np.float32)
    duration_s = count / rate if ended or says_s is None else says_s
    return Sound(samples, rate, duration_s, channels)


_NOTHING = Rejected("too-short", "the sound has no frames")


def _length_s(opened: Any, stream: Any) -> float | None:
    """How long the sound says it is."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    # AAC without a container only guesses.
    known = opened.duration and opened.format.name != "aac" and len(opened.streams) == 1
    return opened.duration / 1_000_000 if known else None


def _short(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:200]
