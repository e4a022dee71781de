"""Power spectrograms and mel bands in torch, with bands that may be shifted sound by sound.

Mel is HTK's: 2595 log10(1 + Hz / 700). Bands are triangles in Hz with a peak of 1, as librosa's
`filters.mel(htk=True, norm=None)`; spectrograms are librosa's `stft(center=True, pad_mode="constant")`, squared.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmcore.features.encoders.base import Array


def mel_edges(bands: int, low_hz: float, high_hz: float) -> Tensor:
    """The bands + 2 frequencies in Hz, evenly spaced in mel, between which the triangles stand."""
    low, high = (2595 * torch.log10(1 + torch.tensor(hz, dtype=torch.float64) / 700) for hz in (low_hz, high_hz))
    mels = low + (high - low) * torch.linspace(0, 1, bands + 2, dtype=torch.float64)
    return (700 * (10 ** (mels / 2595) - 1)).float()


def triangles(edges: Tensor, bins: int, rate_hz: float) -> Tensor:
    """Weights (n, bins, bands) of the frequency bins from 0 to half the rate, for edges (n, bands + 2) in Hz."""
    hz = torch.linspace(0, rate_hz / 2, bins, device=edges.device)[None, :, None]
    left, middle, right = (part[:, None, :] for part in (edges[:, :-2], edges[:, 1:-1], edges[:, 2:]))
    return torch.minimum((hz - left) / (middle - left), (right - hz) / (right - middle)).clamp(min=0)


def power_spectrogram(sounds: Tensor, n_fft: int, window: int, hop: int) -> Tensor:
    """Squared magnitudes (n, 1 + samples // hop, n_fft // 2 + 1) of sounds (n, samples) under a Hann window."""
    hann = torch.hann_window(window, device=sounds.device)
    spectrum = torch.stft(sounds, n_fft, hop, window, hann, center=True, pad_mode="constant", return_complex=True)
    return (spectrum.real**2 + spectrum.imag**2).transpose(1, 2)


def warped(edges: Tensor, factors: Tensor, limit_hz: float) -> Tensor:
    """Edges (bands + 2,) times each sound's factor (n,): a shorter or longer vocal tract.

    Where the highest would pass `limit_hz`, the upper part is squeezed linearly to end there, as in vocal tract
    length perturbation (Jaitly and Hinton, 2013).
    """
    moved = edges[None, :] * factors[:, None]
    top, knee = moved[:, -1:], 0.7 * limit_hz
    squeezed = knee + (moved - knee) * (limit_hz - knee) / (top - knee)
    return torch.where((top > limit_hz) & (moved > knee), squeezed, moved)


def loudest(sound: Array, length: int) -> Array:
    """The part of a sound (samples,) of at most `length` samples that has the most energy."""
    if len(sound) <= length:
        return sound
    energy = np.concatenate([[0.0], np.cumsum(sound.astype(np.float64) ** 2)])
    start = int(np.argmax(energy[length:] - energy[:-length]))
    return sound[start : start + length]
