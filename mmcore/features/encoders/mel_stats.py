"""Sounds by statistics of their mel bands and cepstral coefficients, in numpy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mmcore.config import MelStatsSettings
from mmcore.features.encoders.base import WHOLE, Array, Encoded, Encoder

FAINTEST = 1e-10
"""Power below which a band counts as this faint."""
FRAMES = 2048
"""Spectrogram columns computed at a time, so that long sounds take little memory."""
NEIGHBOURS = 4
"""A slope is taken over so many columns to each side."""


class MelStatsEncoder(Encoder):
    """Mean and standard deviation of each mel band in dB and of each MFCC, and the standard deviation of its slope.

    The width is 2 · mels + 3 · mfcc: 140 with the settings as they are. dB are below the sound's loudest band, so that
    its level does not matter. Channels are averaged. A sound may be of any length: what is missing is silence.
    """

    settings: MelStatsSettings

    def ready(self, value: Array) -> Array:
        settings = self.settings
        rate_hz = int(self.modality["sample_rate_hz"])
        sound = np.asarray(value, np.float64)
        sound = sound if sound.ndim == 1 else sound.mean(axis=1)
        window, hop = (max(1, round(seconds * rate_hz)) for seconds in (settings.window_s, settings.hop_s))
        bands = decibels(mel_powers(sound, rate_hz, window, hop, settings.mels), settings.dynamic_range_db)
        cepstrum = bands @ cosines(settings.mels, settings.mfcc)
        spread = [part for values in (bands, cepstrum) for part in (values.mean(axis=0), values.std(axis=0))]
        return np.concatenate([*spread, slopes(cepstrum).std(axis=0)])

    def encode(self, batch: Any, part: int = WHOLE) -> Encoded:
        return Encoded(np.stack(batch).astype(np.float32))


def mel_powers(sound: Array, rate_hz: int, window: int, hop: int, bands: int) -> Array:
    """Power (t, bands) of a sound (samples,) in mel bands; t = 1 + samples // hop.

    As librosa's `feature.melspectrogram`: frames centred on every hop of the sound with silence around it, a periodic
    Hann window in the middle of the next power of two, squared magnitudes, Slaney's bands of equal area.
    """
    n_fft = 1 << max(0, window - 1).bit_length()
    hann, weights = hann_window(window, n_fft), mel_bands(rate_hz, n_fft, bands)
    padded = np.pad(sound, (n_fft // 2, n_fft - n_fft // 2))
    frames = sliding_window_view(padded, n_fft)[::hop][: 1 + len(sound) // hop]
    return np.concatenate([_powers(some * hann) @ weights for some in _parts(frames)])


@lru_cache(maxsize=8)
def hann_window(window: int, n_fft: int) -> Array:
    """Hann's window (n_fft,), periodic, in the middle of zeros."""
    found, left = np.zeros(n_fft), (n_fft - window) // 2
    found[left : left + window] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    return found


def _powers(frames: Array) -> Array:
    spectrum = np.fft.rfft(frames)
    powers: Array = spectrum.real**2 + spectrum.imag**2
    return powers


def _parts(frames: Array) -> Iterator[Array]:
    return (frames[start : start + FRAMES] for start in range(0, len(frames), FRAMES))


@lru_cache(maxsize=8)
def mel_bands(rate_hz: int, n_fft: int, bands: int) -> Array:
    """Triangles (n_fft // 2 + 1, bands) in Hz with area 1, evenly spaced in mel from 0 to half the rate.

    Mel as in M. Slaney's Auditory Toolbox (1998) and librosa: 3/200 per Hz up to 1 kHz, above it logarithmic with 27
    mel per factor 6.4.
    """
    edges = _hz_of_mel(np.linspace(0, _mel_of_hz(rate_hz / 2), bands + 2))
    hz = np.fft.rfftfreq(n_fft, 1 / rate_hz)[:, None]
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (hz - left) / (middle - left), (right - hz) / (right - middle)
    found: Array = np.maximum(0, np.minimum(rising, falling)) * 2 / (right - left)
    return found


def _mel_of_hz(hz: float) -> float:
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * float(np.log(hz / 1000) / np.log(6.4))


def _hz_of_mel(mel: Array) -> Array:
    found: Array = np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
    return found


def decibels(powers: Array, dynamic_range_db: float) -> Array:
    """Powers in dB below the largest of them, which is 0, and not below `dynamic_range_db`."""
    found = 10 * np.log10(np.maximum(powers, FAINTEST))
    relative: Array = np.maximum(found - found.max(), -dynamic_range_db)
    return relative


@lru_cache(maxsize=8)
def cosines(bands: int, kept: int) -> Array:
    """The orthonormal discrete cosine transform of type II (bands, kept) that makes MFCC of mel bands in dB.

    S. Davis and P. Mermelstein, Comparison of Parametric Representations for Monosyllabic Word Recognition in
    Continuously Spoken Sentences, IEEE ASSP 1980.
    """
    found: Array = np.cos(np.pi / bands * (np.arange(bands)[:, None] + 0.5) * np.arange(kept)) * np.sqrt(2 / bands)
    found[:, 0] /= np.sqrt(2)
    return found


def slopes(values: Array) -> Array:
    """The slope (t, d) of a line through each column of values (t, d) and four to each side, the ends repeated.

    As librosa's `feature.delta(width=9, mode="nearest")`.
    """
    t = len(values)
    padded = np.pad(values, ((NEIGHBOURS, NEIGHBOURS), (0, 0)), mode="edge")
    steps = range(1, NEIGHBOURS + 1)
    rises = [n * (padded[NEIGHBOURS + n :][:t] - padded[NEIGHBOURS - n :][:t]) for n in steps]
    found: Array = np.sum(rises, axis=0) / (2 * sum(n * n for n in steps))
    return found
