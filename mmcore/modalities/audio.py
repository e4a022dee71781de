"""Sound: most formats in, one rate of 16-bit samples (or Opus) out."""

from __future__ import annotations

import io
import math
import struct
from contextlib import nullcontext
from dataclasses import replace
from typing import ClassVar

import numpy as np
import soundfile
from numpy.typing import NDArray

from mmcore.config.media import AudioSettings
from mmcore.modalities import sound_track, wav
from mmcore.modalities.base import Member, Modality, Rejected
from mmcore.modalities.chatter import stderr_dropped
from mmcore.modalities.containers import container_of
from mmcore.modalities.opus import without_chance
from mmcore.modalities.sound import (
    Samples,
    Sound,
    loudness_lufs,
    mel_hash,
    of_length,
    peak,
    resampled,
    without_silence,
)
from mmcore.records import Json

MAX_RATE_HZ = 1_000_000
"""A header that claims more is broken."""
BLOCK_VALUES = 1 << 20
"""Values (frames x channels) decoded at a time."""
KNOWN_STARTS = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"fLaC", b"OggS")
"""First bytes by which a broken file is told from one that is no sound."""


class _Bytes(io.BytesIO):
    """Bytes in memory. Broken headers make libsndfile seek before the start, where an error would reach no one."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        start = {0: 0, 1: self.tell(), 2: len(self.getbuffer())}[whence]
        return super().seek(max(0, start + offset))


class AudioModality(Modality[Sound]):
    """Decodes with libsndfile (what that does not know, with FFmpeg), cuts, mixes, resamples with soxr (HQ).

    Silence is trimmed, loudness matched and the length made equal after that, in this order, where the settings say
    so. A sound that goes beyond full scale, before or after resampling, is scaled down to it as a whole.
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
        header = wav.read_header(data)
        if header and header.rate_hz <= MAX_RATE_HZ:
            return self._read_wav(data, header)
        if container := container_of(data):
            return sound_track.decode(data, container, self.settings, MAX_RATE_HZ)
        if missing := _missing_wav_bytes(data):
            return Rejected("truncated", f"the header promises {missing:,} bytes more than there are")
        # The MP3 decoder within libsndfile prints a line about every damaged frame.
        with nullcontext() if data.startswith(KNOWN_STARTS) else stderr_dropped():
            return self._open(data)

    def _read_wav(self, data: bytes, header: wav.Header) -> Sound | Rejected:
        if why := self._too_many(header.channels):
            return why
        wanted = self._wanted(header.frames, header.rate_hz)
        block = max(1, BLOCK_VALUES // header.channels)
        blocks = [
            self._mixed(wav.samples_of(data, header, first, min(block, wanted - first)))
            for first in range(0, wanted, block)
        ]
        samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        return Sound(samples, header.rate_hz, header.frames / header.rate_hz, header.channels)

    def _open(self, data: bytes) -> Sound | Rejected:
        try:
            file = soundfile.SoundFile(_Bytes(data))
        # libsndfile's own errors, and those of soundfile on headers that make no sense.
        except Exception as error:
            return _why_not_opened(data, error)
        with file:
            if not 1 <= file.samplerate <= MAX_RATE_HZ or file.channels < 1:
                return Rejected("corrupt", f"a sound of {file.samplerate} Hz and {file.channels} channels")
            return self._too_many(file.channels) or self._read(file)

    def _read(self, file: soundfile.SoundFile) -> Sound | Rejected:
        """The beginning of the sound, mixed block by block, so that memory is bounded by what is kept."""
        rate, channels = file.samplerate, file.channels
        wanted = self._wanted(file.frames, rate)
        block = max(1, BLOCK_VALUES // channels)
        blocks: list[Samples] = []
        count = 0
        try:
            while count < wanted:
                part = file.read(min(block, wanted - count), dtype="float32", always_2d=True)
                if not len(part):
                    break
                blocks.append(self._mixed(part))
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

    def _wanted(self, frames: int, rate_hz: int) -> int:
        return max(1, min(frames, round(self.settings.max_duration_s * rate_hz)))

    def _mixed(self, samples: Samples) -> Samples:
        if samples.shape[1] == 1 or self.settings.channels == "keep":
            return samples
        # Infinities, which are set aside a little later, may cancel each other.
        with np.errstate(invalid="ignore", over="ignore"):
            mixed: Samples = samples.mean(axis=1, keepdims=True)
        return mixed

    def _too_many(self, channels: int) -> Rejected | None:
        most = self.settings.most_channels
        return Rejected("too-many-channels", f"{channels} channels; the most is {most}") if channels > most else None

    def check(self, value: Sound) -> dict[str, Json] | Rejected:
        """Duration, rate and channels of the file; peak and root mean square of its mix, 1 being full scale."""
        if value.duration_s < self.settings.min_duration_s:
            return Rejected(
                "too-short", f"{value.duration_s:.4f} s; min_duration_s is {self.settings.min_duration_s:g}"
            )
        if not math.isfinite(value.peak):
            return Rejected("not-finite", "the sound holds NaN or infinity")
        return {
            "duration_s": round(value.duration_s, 6),
            "sample_rate_hz": value.sample_rate_hz,
            "channels": value.channels,
            "peak": float(f"{value.peak:.6g}"),
            "rms": float(f"{value.rms():.4g}"),
        }

    def normalise(self, value: Sound) -> Sound:
        return self._levelled(self._resampled(value))

    def _resampled(self, value: Sound) -> Sound:
        rate, samples, applied = self.settings.sample_rate_hz, value.within_full_scale(), list(value.applied)
        if value.channels > samples.shape[1]:
            applied.append("downmix")
        if value.duration_s > len(samples) / value.sample_rate_hz + 1e-6:
            applied.append("cut")
        if rate != value.sample_rate_hz:
            even = replace(value, samples=resampled(samples, value.sample_rate_hz, rate))
            samples = even.within_full_scale()
            applied.append("resampled")
        return replace(value, samples=samples, sample_rate_hz=rate, applied=tuple(applied))

    def _levelled(self, value: Sound) -> Sound:
        settings, samples, applied = self.settings, value.samples, list(value.applied)
        if settings.trim_silence_db is not None:
            samples = without_silence(samples, settings.trim_silence_db)
            if len(samples) < len(value.samples):
                applied.append("silence-trimmed")
        if settings.loudness_lufs is not None:
            samples, done = _at_loudness(samples, value.sample_rate_hz, settings.loudness_lufs)
            applied += done
        if settings.duration_s is not None:
            frames = max(1, round(settings.duration_s * value.sample_rate_hz))
            if frames != len(samples):
                applied.append("padded" if frames > len(samples) else "cut")
                samples = of_length(samples, frames)
        return replace(value, samples=samples, applied=tuple(dict.fromkeys(applied)))

    def encode(self, value: Sound) -> bytes:
        samples = _whole_numbers(value.samples)
        if self.settings.format == "wav":
            return wav.written(samples, value.sample_rate_hz)
        out = io.BytesIO()
        opus = self.settings.format == "opus"
        with soundfile.SoundFile(
            out,
            "w",
            samplerate=value.sample_rate_hz,
            channels=samples.shape[1],
            subtype="OPUS" if opus else "PCM_16",
            format="OGG" if opus else "FLAC",
            compression_level=None if opus else 0.625,  # FLAC's level 5 of 8
        ) as file:
            file.write(samples)
        return without_chance(out.getvalue()) if opus else out.getvalue()

    def load(self, data: bytes) -> NDArray[np.float32]:
        """The member as (n,) samples of -1 to 1; (n, channels) where they are kept."""
        header = wav.read_header(data)
        if header:
            samples = wav.samples_of(data, header, 0, header.frames)
        else:
            samples, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
        return samples if self.settings.channels == "keep" else samples[:, 0]

    def signature(self, value: Sound) -> bytes | None:
        """256 bits: see `sound.mel_hash`."""
        return mel_hash(value.samples, value.sample_rate_hz)

    def process(self, data: bytes) -> Member | Rejected:
        """As for any modality, but the hash is taken after resampling, so that it does not depend on the rate."""
        if not data:
            return Rejected("empty-file", "the file has no bytes")
        value = self.decode(data)
        if isinstance(value, Rejected):
            return value
        facts = self.check(value)
        if isinstance(facts, Rejected):
            return facts
        even = self._resampled(value)
        if self.settings.measure_loudness:
            level = loudness_lufs(even.samples, even.sample_rate_hz)
            facts["loudness_lufs"] = None if level is None else round(level, 2)
        stored = self._levelled(even)
        if stored.applied:
            facts["applied"] = list(stored.applied)
        return Member((self.encode(stored),), facts, self.signature(even))


def _whole_numbers(samples: Samples) -> NDArray[np.int16]:
    """The inverse of how 16-bit files are read, so that they pass unchanged."""
    scaled = samples * np.float32(32768)
    np.rint(scaled, out=scaled)
    np.minimum(scaled, np.float32(32767), out=scaled)
    return scaled.astype(np.int16)


def _at_loudness(samples: Samples, rate_hz: int, wanted: float) -> tuple[Samples, list[str]]:
    """At the wanted loudness, as far as full scale admits, and what was done for it."""
    level = loudness_lufs(samples, rate_hz)
    if level is None:
        return samples, []
    gain, most = 10 ** ((wanted - level) / 20), 1 / max(peak(samples), 1e-9)
    limited = gain > most
    changed = (samples * np.float32(min(gain, most))).astype(np.float32)
    return changed, ["loudness-normalised", *(["peak-limited"] if limited else [])]


def _missing_wav_bytes(data: bytes) -> int:
    """Bytes that a WAV's header promises beyond the file's end; libsndfile reads such files without a word."""
    order = {b"RIFF": "<", b"RIFX": ">"}.get(data[:4])
    if order is None or data[8:12] != b"WAVE":
        return 0
    at = 12
    while at + 8 <= len(data):
        name, length = data[at : at + 4], struct.unpack_from(f"{order}I", data, at + 4)[0]
        if name == b"data":
            return 0 if length in wav.UNKNOWN_LENGTHS else max(0, at + 8 + length - len(data))
        at += 8 + length + length % 2
    return 0


def _why_not_opened(data: bytes, error: Exception) -> Rejected:
    message = _short(error)
    if "Format not recognised" in message and not data.startswith(KNOWN_STARTS):
        return Rejected("unknown-format", "the bytes are of no sound format that is read here")
    return Rejected("corrupt", f"the file's header is broken or its codec is not read here ({message})")


def _short(error: Exception) -> str:
    # The str of libsndfile's error holds the address of the bytes, which differs from run to run.
    message = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    return (message or type(error).__name__)[:200]
