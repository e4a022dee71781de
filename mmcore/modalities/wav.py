"""Ordinary WAVs, fast: their samples are a view of the file's bytes. The odd ones are left to libsndfile."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmcore.modalities.sound import Samples

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_SUBFORMAT_END = bytes.fromhex("000000001000800000aa00389b71")
"""How the GUID of a plain format ends, after its two bytes."""
UNKNOWN_LENGTHS = frozenset({0, 0x7FFFFFFF, 0xFFFFFFFF})
"""What writers that cannot seek back put where the data's length belongs."""
_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


@dataclass(frozen=True)
class Header:
    """Where a WAV's samples lie, and what they are."""

    rate_hz: int
    channels: int
    bits: int
    is_float: bool
    start: int
    frames: int


def read_header(data: bytes) -> Header | None:
    """The header of an ordinary little-endian WAV that is all there; None for any other file."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return None
    at, form = 12, None
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        start = at + 8
        if name == b"fmt ":
            if form is not None or length < 16 or start + length > len(data):
                return None
            form = _form(data[start : start + length])
            if form is None:
                return None
        elif name == b"data":
            if form is None or length in UNKNOWN_LENGTHS or start + length > len(data):
                return None
            rate_hz, channels, bits, is_float = form
            width = channels * bits // 8
            if length % width or not length:
                return None
            return Header(rate_hz, channels, bits, is_float, start, length // width)
        at = start + length + length % 2
    return None


def samples_of(data: bytes, header: Header, first: int, frames: int) -> Samples:
    """So many frames from `first` on, full scale at -1 and 1, scaled as libsndfile does."""
    width = header.channels * header.bits // 8
    raw = memoryview(data)[header.start + first * width : header.start + (first + frames) * width]
    found: NDArray[np.float32]
    if header.is_float:
        with np.errstate(over="ignore", invalid="ignore"):  # what is beyond float32 becomes infinite, and is set aside
            found = np.frombuffer(raw, f"<f{header.bits // 8}").astype(np.float32)
    elif header.bits == 8:
        found = (np.frombuffer(raw, np.uint8).astype(np.float32) - np.float32(128)) * np.float32(1 / 128)
    elif header.bits == 16:
        found = np.frombuffer(raw, "<i2").astype(np.float32)
        found *= np.float32(1 / 32768)
    elif header.bits == 24:
        wide = np.zeros((frames * header.channels, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        found = wide.view("<i4").ravel().astype(np.float32) * np.float32(2**-31)
    else:
        found = np.frombuffer(raw, "<i4").astype(np.float32) * np.float32(2**-31)
    return found.reshape(-1, header.channels)


def written(samples: NDArray[np.int16], rate_hz: int) -> bytes:
    """A WAV of 16-bit samples (frames, channels)."""
    channels = samples.shape[1]
    body = samples.astype("<i2", copy=False).tobytes()
    width = 2 * channels
    head = _HEADER.pack(
        b"RIFF", 36 + len(body), b"WAVE", b"fmt ", 16, _PCM, channels, rate_hz, rate_hz * width, width, 16, b"data",
        len(body),
    )  # fmt: skip
    return head + body


def _form(body: bytes) -> tuple[int, int, int, bool] | None:
    """Rate, channels, bits per sample and whether they are floats."""
    tag, channels, rate_hz, _, width, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _EXTENSIBLE:
        # Fewer valid bits than stored ones are left to libsndfile.
        if len(body) < 40 or struct.unpack_from("<H", body, 18)[0] != bits or body[26:40] != _SUBFORMAT_END:
            return None
        tag = struct.unpack_from("<H", body, 24)[0]
    fits = (tag == _PCM and bits in (8, 16, 24, 32)) or (tag == _FLOAT and bits in (32, 64))
    if not fits or channels < 1 or width != channels * bits // 8 or rate_hz < 1:
        return None
    return rate_hz, channels, bits, tag == _FLOAT
