"""Sound as arrays: mixed, resampled, trimmed, levelled, hashed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import soxr
from numpy.typing import NDArray

Samples = NDArray[np.float32]
"""(frames, channels), full scale at -1 and 1."""

BLOCK_S = 0.4
STEP_S = 0.1
ABSOLUTE_GATE_LUFS = -70.0
RELATIVE_GATE_LU = -10.0
CHANNEL_WEIGHTS = {5: (1.0, 1.0, 1.0, 1.41, 1.41), 6: (1.0, 1.0, 1.0, 0.0, 1.41, 1.41)}
"""ITU-R BS.1770-4, table 3, for left, right, centre, (low frequency effects,) left and right surround."""

HASH_STEPS, HASH_BANDS = 16, 16
"""A signature's bits: so many steps in time by so many in pitch."""
HASH_LOW_HZ, HASH_HIGH_HZ = 250.0, 3400.0
"""What telephones carry, and all codecs keep."""
HASH_WINDOW = 512
HASH_PIECES = 3
HASH_FLOOR = 1e-4
SILENT = 10 ** (-60 / 20)
"""Peak below which a sound has no signature."""
QUIET = 10 ** (-30 / 20)
"""What is quieter than this share of the peak at either end is not looked at: codecs add silence."""


@dataclass(frozen=True)
class Sound:
    """Samples with the facts of the file they came from."""

    samples: Samples
    sample_rate_hz: int
    duration_s: float
    """Of the whole file, also where only its beginning was read."""
    channels: int
    """Of the file."""
    applied: tuple[str, ...] = ()
    """What was normalised so far."""

    @cached_property
    def peak(self) -> float:
        """See `peak`."""
        return peak(self.samples)

    def within_full_scale(self) -> Samples:
        """The samples, scaled down as a whole where one goes beyond full scale."""
        # Dividing in float64 keeps the largest floats from becoming infinite on the way.
        return (self.samples / self.peak).astype(np.float32) if self.peak > 1 else self.samples

    def rms(self) -> float:
        """The root mean square of the samples, which must be finite."""
        # Of a large float the square is infinite.
        flat = self.within_full_scale().ravel()
        return max(1.0, self.peak) * math.sqrt(float(flat @ flat) / len(flat))


def peak(samples: Samples) -> float:
    """The largest absolute value; infinite or NaN where there is such a value."""
    return float(max(samples.max(), -samples.min()))


def resampled(samples: Samples, before_hz: int, after_hz: int) -> Samples:
    """At another rate, by soxr's high quality; at least one frame."""
    if before_hz == after_hz:
        return samples
    mono = samples.shape[1] == 1
    found: Samples = soxr.resample(samples[:, 0] if mono else samples, before_hz, after_hz, quality="HQ")
    if not len(found):
        return np.zeros((1, samples.shape[1]), np.float32)
    return found[:, None] if mono else found


def without_silence(samples: Samples, threshold_db: float) -> Samples:
    """From the first to the last frame that is not quieter than the threshold; all where everything is."""
    loud = np.flatnonzero(np.abs(samples).max(axis=1) >= 10 ** (threshold_db / 20))
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples


def of_length(samples: Samples, frames: int) -> Samples:
    """Cut, or padded with silence at the end."""
    if len(samples) >= frames:
        return samples[:frames]
    return np.concatenate([samples, np.zeros((frames - len(samples), samples.shape[1]), np.float32)])


def loudness_lufs(samples: Samples, rate_hz: int) -> float | None:
    """Integrated loudness by ITU-R BS.1770-4, with both gates; None for silence.

    The standard needs a block of 0.4 s; a shorter sound is one block by itself.
    """
    from scipy.signal import lfilter  # heavy, and needed only where loudness is asked for

    weighted = samples.astype(np.float64)
    for numerator, denominator in _k_weighting(rate_hz):
        weighted = lfilter(numerator, denominator, weighted, axis=0)
    block, step = round(BLOCK_S * rate_hz), round(STEP_S * rate_hz)
    if len(weighted) < block:
        powers = np.mean(weighted**2, axis=0)[None]
    else:
        sums = np.concatenate([np.zeros((1, weighted.shape[1])), np.cumsum(weighted**2, axis=0)])
        starts = np.arange(0, len(weighted) - block + 1, step)
        powers = (sums[starts + block] - sums[starts]) / block
    power = powers @ np.asarray(CHANNEL_WEIGHTS.get(samples.shape[1], (1.0,) * samples.shape[1]))
    with np.errstate(divide="ignore"):
        levels = -0.691 + 10 * np.log10(np.maximum(power, 0))
    kept = power[levels >= ABSOLUTE_GATE_LUFS]
    if not len(kept):
        return None
    gate = -0.691 + 10 * math.log10(kept.mean()) + RELATIVE_GATE_LU
    kept = power[(levels >= ABSOLUTE_GATE_LUFS) & (levels >= gate)]
    return -0.691 + 10 * math.log10(kept.mean())


def _k_weighting(rate_hz: int) -> list[tuple[list[float], list[float]]]:
    """The two filters of BS.1770-4, annex 1, at any rate.

    The standard gives coefficients for 48 kHz; these are of the analogue filters behind them (shelf at 1,682 Hz,
    4 dB; high pass at 38 Hz) as derived by B. De Man, Evaluation of Implementations of the EBU R128 Loudness
    Measurement, AES 145, 2018.
    """
    k = math.tan(math.pi * min(1681.974450955533, 0.49 * rate_hz) / rate_hz)
    q, high = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    middle = high**0.4996667741545416
    norm = 1 + k / q + k * k
    shelf = (
        [(high + middle * k / q + k * k) / norm, 2 * (k * k - high) / norm, (high - middle * k / q + k * k) / norm],
        [1.0, 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm],
    )
    k, q = math.tan(math.pi * 38.13547087602444 / rate_hz), 0.5003270373238773
    norm = 1 + k / q + k * k
    return [shelf, ([1.0, -2.0, 1.0], [1.0, 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm])]


def mel_hash(samples: Samples, rate_hz: int) -> bytes | None:
    """256 bits that a re-encoded, resampled or louder copy shares but for some; None for silence and clicks.

    The sound between its quiet ends is cut into 16 overlapping windows; the bits tell, for each window and each of 16
    pairs of neighbouring bands (equal steps in mel), whether the difference of their energies is above its mean over
    the windows; after Haitsma and Kalker, A Highly Robust Audio Fingerprinting System, ISMIR 2002.
    """
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    level = np.abs(mono)
    highest = float(level.max())
    if highest < SILENT:
        return None
    loud = (level >= QUIET * highest).tobytes()
    heard = np.ascontiguousarray(mono[loud.find(1) : loud.rfind(1) + 1])
    if len(heard) < HASH_WINDOW:
        return None
    # Real and imaginary parts side by side, squared and summed over a window's pieces.
    spectrum = np.fft.rfft(_windows(heard), HASH_WINDOW).view(np.float32)
    power = np.square(spectrum, out=spectrum).sum(axis=1)
    energy = power @ _bands(rate_hz)
    # What is far below the loudest is a matter of the codec.
    levels = np.log(energy + HASH_FLOOR * energy.max())
    difference = levels[:, 1:] - levels[:, :-1]
    return np.packbits(difference > difference.mean(axis=0)).tobytes()


def _windows(mono: NDArray[np.float32]) -> NDArray[np.float32]:
    """(16, pieces, 512): each window overlaps with half of the next; long ones are sampled by some pieces."""
    hop = len(mono) / (HASH_STEPS + 1)
    span = int(2 * hop)
    length = min(span, HASH_WINDOW)
    offsets = np.arange(HASH_PIECES if span > HASH_WINDOW else 1) * (span - length) // (HASH_PIECES - 1)
    starts = (np.arange(HASH_STEPS) * hop).astype(int)[:, None] + offsets
    # A view of all runs of that length, from which those wanted are copied.
    runs = np.ndarray((len(mono) - length + 1, length), mono.dtype, mono, strides=mono.strides * 2)
    pieces = runs[np.minimum(starts, len(runs) - 1)]
    pieces *= _hanning(length)
    return pieces


@lru_cache(maxsize=HASH_WINDOW)
def _hanning(length: int) -> NDArray[np.float32]:
    return np.hanning(length).astype(np.float32)


@lru_cache(maxsize=8)
def _bands(rate_hz: int) -> NDArray[np.float32]:
    """(2 bins, 17): how much of each frequency, real part and imaginary, counts to each band."""
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (HASH_LOW_HZ, min(HASH_HIGH_HZ, 0.45 * rate_hz)))
    edges = 700 * (10 ** (np.linspace(low, high, HASH_BANDS + 2) / 2595) - 1)
    frequencies = np.fft.rfftfreq(HASH_WINDOW, 1 / rate_hz)[:, None]
    middles, widths = (edges[1:] + edges[:-1]) / 2, np.maximum(np.diff(edges), 1.5 * rate_hz / HASH_WINDOW)
    shares = np.clip(1 - np.abs(frequencies - middles) / widths, 0, None)
    return np.repeat(shares, 2, axis=0).astype(np.float32)
