"""Compared with librosa, and with the definitions in plain numpy as librosa's documentation states them."""

import librosa
import numpy as np
import pytest
import torch

from mmcore.features.encoders.mel import loudest, mel_edges, power_spectrogram, triangles, warped


def reference_power(sound: np.ndarray, n_fft: int, window: int, hop: int) -> np.ndarray:
    """Frame by frame: centred frames of the zero-padded sound, periodic Hann in the middle of each, FFT, squares."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    left = (n_fft - window) // 2
    full = np.zeros(n_fft)
    full[left : left + window] = hann
    padded = np.concatenate([np.zeros(n_fft // 2), sound, np.zeros(n_fft // 2)])
    frames = [padded[start : start + n_fft] for start in range(0, len(padded) - n_fft + 1, hop)]
    return np.array([np.abs(np.fft.rfft(frame * full)) ** 2 for frame in frames])


def reference_bank(bands: int, low_hz: float, high_hz: float, n_fft: int, rate_hz: float) -> np.ndarray:
    """Triangle by triangle, bin by bin; HTK mel, peaks of 1."""
    points = np.linspace(2595 * np.log10(1 + low_hz / 700), 2595 * np.log10(1 + high_hz / 700), bands + 2)
    hz = 700 * (10 ** (points / 2595) - 1)
    bank = np.zeros((n_fft // 2 + 1, bands))
    for bin_ in range(n_fft // 2 + 1):
        f = bin_ * rate_hz / n_fft
        for band in range(bands):
            left, middle, right = hz[band : band + 3]
            if left < f <= middle:
                bank[bin_, band] = (f - left) / (middle - left)
            elif middle < f < right:
                bank[bin_, band] = (right - f) / (right - middle)
    return bank


@pytest.mark.parametrize(
    ("rate_hz", "n_fft", "window", "hop", "bands"), [(8000, 256, 200, 80, 40), (16000, 512, 400, 160, 64)]
)
def test_mel_bands_agree_with_the_definition(rate_hz: int, n_fft: int, window: int, hop: int, bands: int) -> None:
    sounds = np.random.default_rng(0).standard_normal((2, 3000)).astype(np.float32)
    power = power_spectrogram(torch.from_numpy(sounds), n_fft, window, hop)
    assert power.shape == (2, 1 + 3000 // hop, n_fft // 2 + 1)
    bank = triangles(mel_edges(bands, 60, 0.475 * rate_hz)[None], n_fft // 2 + 1, rate_hz)
    for sound, found in zip(sounds, power.numpy(), strict=True):
        np.testing.assert_allclose(found, reference_power(sound, n_fft, window, hop), rtol=2e-3, atol=1e-3)
    expected = reference_bank(bands, 60, 0.475 * rate_hz, n_fft, rate_hz)
    np.testing.assert_allclose(bank[0].numpy(), expected, atol=2e-4)


@pytest.mark.parametrize(
    ("rate_hz", "window_s", "hop_s", "bands"),
    [
        (8000, 0.025, 0.01, 40),
        (8000, 0.032, 0.008, 24),
        (16000, 0.025, 0.01, 80),
        (22050, 0.046, 0.0116, 64),
        (44100, 0.025, 0.01, 40),
        (48000, 0.05, 0.0125, 128),
    ],
)
def test_mel_spectrograms_are_those_of_librosa(rate_hz: int, window_s: float, hop_s: float, bands: int) -> None:
    random = np.random.default_rng(rate_hz)
    tone = np.sin(2 * np.pi * 440 * np.arange(rate_hz) / rate_hz)
    sound = (0.3 * tone + 0.05 * random.standard_normal(rate_hz)).astype(np.float32)
    window, hop = round(window_s * rate_hz), round(hop_s * rate_hz)
    n_fft = 2 ** int(np.ceil(np.log2(window)))
    power = power_spectrogram(torch.from_numpy(sound)[None], n_fft, window, hop)[0]
    found = power @ triangles(mel_edges(bands, 60, 0.475 * rate_hz)[None], n_fft // 2 + 1, rate_hz)[0]
    expected = librosa.feature.melspectrogram(
        y=sound.astype(np.float64),
        sr=rate_hz,
        n_fft=n_fft,
        win_length=window,
        hop_length=hop,
        center=True,
        pad_mode="constant",
        power=2.0,
        n_mels=bands,
        fmin=60,
        fmax=0.475 * rate_hz,
        htk=True,
        norm=None,
    )
    # Of each band itself, the faintest too, not only of the loudest.
    np.testing.assert_allclose(found.numpy().T, expected, rtol=1e-4)


def test_a_warp_moves_a_peak_as_much_as_the_tone() -> None:
    rate_hz, n_fft = 8000, 256
    time_s = torch.arange(4000) / rate_hz
    edges = mel_edges(40, 60, 3800)
    for factor in (0.87, 1.15):
        tones = torch.stack([torch.sin(2 * torch.pi * 1000 * time_s), torch.sin(2 * torch.pi * 1000 * factor * time_s)])
        power = power_spectrogram(tones, n_fft, 200, 80)
        plain = (power[0] @ triangles(edges[None], 129, rate_hz)[0]).mean(dim=0)
        moved = (power[1] @ triangles(warped(edges, torch.tensor([factor]), 4000), 129, rate_hz)[0]).mean(dim=0)
        assert plain.argmax() == moved.argmax()


def test_warped_edges_rise_and_stay_below_the_limit() -> None:
    edges = warped(mel_edges(40, 60, 3800), torch.tensor([0.8, 1.0, 1.05, 1.3]), 4000)
    assert (edges.diff(dim=1) > 0).all()
    assert edges.max() <= 4000.001
    torch.testing.assert_close(edges[1], mel_edges(40, 60, 3800))


@pytest.mark.parametrize("length", [1, 7, 50])
def test_loudest_is_the_window_of_most_energy(length: int) -> None:
    sound = np.random.default_rng(3).standard_normal(50).astype(np.float32)
    windows = [sound[i : i + length] for i in range(50 - length + 1)]
    np.testing.assert_array_equal(
        loudest(sound, length), max(windows, key=lambda w: float((w.astype(float) ** 2).sum()))
    )
