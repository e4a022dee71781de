"""Sound: any format libsndfile reads in, one channel at one rate of 16-bit samples out."""

from __future__ import annotations

import io
import struct
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from mmcore.config.media import AudioSettings
from mmcore.modalities.base import Modality, Rejected
from mmcore.modalities.chatter import stderr_dropped
from mmcore.records import Json

MAX_RATE_HZ = 1_000_000
"""A header that claims more is broken."""
BLOCK_VALUES = 1 << 20
"""Values (frames x channels) decoded at a time."""
KNOWN_STARTS = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"fLaC", b"OggS")
"""First bytes by which a broken file is told from one that is no sound."""
UNKNOWN_LENGTHS = frozenset({0, 0x7FFFFFFF, 0xFFFFFFFF})
"""What writers that cannot seek back put where a WAV's data length belongs."""


@dataclass(frozen=True)
class Sound:
    """One channel of samples with the facts of the file they came from."""

    samples: NDArray[np.float32]
    """(n,), full scale at -1 and 1."""
    sample_rate_hz: int
    duration_s: float
    """Of the whole file, also where only its beginning was read."""
    channels: int


class _Bytes(io.BytesIO):
    """Bytes in memory. Broken headers make libsndfile seek before the start, where an error would reach no one."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        start = {0: 0, 1: self.tell(), 2: len(self.getbuffer())}[whence]
        return super().seek(max(0, start + offset))


class AudioModality(Modality[Sound]):
    """Decodes with libsndfile, averages the channels, cuts to `max_duration_s`, resamples with soxr (HQ).

    A sound that goes beyond full scale, before or after resampling, is scaled down to it as a whole.
    """

    kind: ClassVar[str] = "audio"

    def __init__(self, settings: AudioSettings) -> None:
        self.settings = settings
        self.several = settings.several

    @property
    def extension(self) -> str:
        return self.settings.format

    def decode(self, data: bytes) -> Sound | Rejected:
        if len(data) > self.settings.max_bytes:
            return Rejected("too-many-bytes", f"{len(data):,} bytes; max_bytes is {self.settings.max_bytes:,}")
        if missing := _missing_wav_bytes(data):
            return Rejected("truncated", f"the header promises {missing:,} bytes more than there are")
        # The MP3 decoder within libsndfile prints a line about every damaged frame.
        with nullcontext() if data.startswith(KNOWN_STARTS) else stderr_dropped():
            return self._open(data)

    def _open(self, data: bytes) -> Sound | Rejected:
        try:
            file = soundfile.SoundFile(_Bytes(data))
        # libsndfile's own errors, and those of soundfile on headers that make no sense.
        except Exception as error:
            return _why_not_opened(data, error)
        with file:
            if not 1 <= file.samplerate <= MAX_RATE_HZ or file.channels < 1:
                return Rejected("corrupt", f"a sound of {file.samplerate} Hz and {file.channels} channels")
            return self._read(file)

    def _read(self, file: soundfile.SoundFile) -> Sound | Rejected:
        """The beginning of the sound, mixed block by block, so that memory is bounded by its mono length."""
        rate, channels = file.samplerate, file.channels
        wanted = max(1, min(file.frames, round(self.settings.max_duration_s * rate)))
        block = max(1, BLOCK_VALUES // channels)
        blocks: list[NDArray[np.float32]] = []
        count = 0
        try:
            while count < wanted:
                part = file.read(min(block, wanted - count), dtype="float32", always_2d=True)
                if not len(part):
                    break
                blocks.append(part[:, 0] if channels == 1 else part.mean(axis=1))
                count += len(part)
        except Exception as error:
            return Rejected("corrupt", f"the sound cannot be decoded ({_short(error)})")
        if not count:
            return Rejected("too-short", "the sound has no frames")
        # The length in an MP3's header is an estimate, so there fewer frames prove nothing.
        if count < wanted and file.format != "MP3":
            return Rejected("truncated", f"{count:,} of {wanted:,} frames could be read")
        frames = file.frames if count == wanted else count
        return Sound(np.concatenate(blocks), rate, frames / rate, channels)

    def check(self, value: Sound) -> dict[str, Json] | Rejected:
        """Duration, rate and channels of the file; peak and root mean square of its mix, 1 being full scale."""
        if value.duration_s < self.settings.min_duration_s:
            return Rejected(
                "too-short", f"{value.duration_s:.4f} s; min_duration_s is {self.settings.min_duration_s:g}"
            )
        if not np.isfinite(value.samples).all():
            return Rejected("not-finite", "the sound holds NaN or infinity")
        peak = float(np.abs(value.samples).max())
        rms = float(np.sqrt(np.mean(np.square(value.samples, dtype=np.float64))))
        return {
            "duration_s": round(value.duration_s, 6),
            "sample_rate_hz": value.sample_rate_hz,
            "channels": value.channels,
            "peak": float(f"{peak:.6g}"),
            "rms": float(f"{rms:.6g}"),
        }

    def normalise(self, value: Sound) -> Sound:
        rate = self.settings.sample_rate_hz
        samples = _within_full_scale(value.samples)
        if rate != value.sample_rate_hz:
            samples = soxr.resample(samples, value.sample_rate_hz, rate, quality="HQ")
            samples = _within_full_scale(samples if len(samples) else np.zeros(1, np.float32))
        return replace(value, samples=samples, sample_rate_hz=rate)

    def encode(self, value: Sound) -> bytes:
        # The inverse of how 16-bit files are read, so that they pass unchanged.
        samples = np.clip(np.rint(value.samples * np.float32(32768)), -32768, 32767).astype(np.int16)
        out = io.BytesIO()
        with soundfile.SoundFile(
            out,
            "w",
            samplerate=value.sample_rate_hz,
            channels=1,
            subtype="PCM_16",
            format=self.settings.format.upper(),
            compression_level=0.625 if self.settings.format == "flac" else None,  # FLAC's level 5 of 8
        ) as file:
            file.write(samples)
        return out.getvalue()

    def load(self, data: bytes) -> NDArray[np.float32]:
        """The member as (n,) samples of -1 to 1."""
        samples: NDArray[np.float32]
        samples, _ = soundfile.read(io.BytesIO(data), dtype="float32")
        return samples


def _within_full_scale(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    peak = float(np.abs(samples).max())
    # Dividing in float64 keeps the largest floats from becoming infinite on the way.
    return (samples / peak).astype(np.float32) if peak > 1 else samples


def _missing_wav_bytes(data: bytes) -> int:
    """Bytes that a WAV's header promises beyond the file's end; libsndfile reads such files without a word."""
    order = {b"RIFF": "<", b"RIFX": ">"}.get(data[:4])
    if order is None or data[8:12] != b"WAVE":
        return 0
    at = 12
    while at + 8 <= len(data):
        name, length = data[at : at + 4], struct.unpack_from(f"{order}I", data, at + 4)[0]
        if name == b"data":
            return 0 if length in UNKNOWN_LENGTHS else max(0, at + 8 + length - len(data))
        at += 8 + length + length % 2
    return 0


def _why_not_opened(data: bytes, error: Exception) -> Rejected:
    message = _short(error)
    if "Format not recognised" in message and not data.startswith(
        (b"RIFF", b"RIFX", b"RF64", b"FORM", b"fLaC", b"OggS")
    ):
        return Rejected("unknown-format", "the bytes are of no sound format that is read here")
    return Rejected("corrupt", f"the file's header is broken or its codec is not read here ({message})")


def _short(error: Exception) -> str:
    # The str of libsndfile's error holds the address of the bytes, which differs from run to run.
    message = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    return (message or type(error).__name__)[:200]
