"""Held against librosa."""

import librosa
import numpy as np
import pytest

from mmcore.config import MelStatsSettings
from mmcore.features.encoders import mel_stats
from mmcore.features.encoders.mel_stats import MelStatsEncoder, decibels, mel_bands, mel_powers
from tests.features.encoders.encoding import encoded


def sound(samples: int, rate_hz: int) -> np.ndarray:
    random = np.random.default_rng(samples)
    time_s = np.arange(samples) / rate_hz
    chirp = 0.3 * np.sin(2 * np.pi * (200 + 900 * time_s) * time_s)
    return (chirp + 0.02 * random.standard_normal(samples)).astype(np.float32)


def peer(values: np.ndarray, rate_hz: int, n_fft: int, window: int, hop: int) -> np.ndarray:
    """The whole vector by librosa."""
    powers = librosa.feature.melspectrogram(
        y=values.astype(np.float64), sr=rate_hz, n_fft=n_fft, win_length=window, hop_length=hop, n_mels=40,
        center=True, pad_mode="constant",
    )  # fmt: skip
    bands = librosa.power_to_db(powers, ref=np.max, top_db=80)
    mfcc = librosa.feature.mfcc(S=bands, n_mfcc=20)
    delta = librosa.feature.delta(mfcc, width=9, mode="nearest")
    spread = [part for one in (bands, mfcc) for part in (one.mean(axis=1), one.std(axis=1))]
    return np.concatenate([*spread, delta.std(axis=1)])


@pytest.mark.parametrize(
    ("rate_hz", "n_fft", "window", "hop"),
    [(8000, 256, 200, 80), (16000, 512, 400, 160), (22050, 1024, 551, 220), (48000, 2048, 1200, 480)],
)
def test_the_vector_is_what_librosa_gives(rate_hz: int, n_fft: int, window: int, hop: int) -> None:
    values = sound(rate_hz + 37, rate_hz)
    encoder = MelStatsEncoder(MelStatsSettings(), {"sample_rate_hz": rate_hz})
    (found,) = encoded(encoder, [values])
    assert found.shape == (140,) == (encoder.dim,)
    np.testing.assert_allclose(found, peer(values, rate_hz, n_fft, window, hop), atol=1e-4)


def test_bands_and_powers_are_those_of_librosa() -> None:
    expected = librosa.filters.mel(sr=16000, n_fft=512, n_mels=64)
    np.testing.assert_allclose(mel_bands(16000, 512, 64), expected.T, atol=1e-7)
    values = sound(5000, 16000).astype(np.float64)
    powers = librosa.feature.melspectrogram(
        y=values, sr=16000, n_fft=512, win_length=400, hop_length=160, n_mels=64, pad_mode="constant"
    )
    found = mel_powers(values, 16000, 400, 160, 64)
    np.testing.assert_allclose(found, powers.T, rtol=1e-4)
    np.testing.assert_allclose(decibels(found, 80), librosa.power_to_db(powers.T, ref=np.max), atol=1e-4)


def test_parts_of_a_long_sound_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = sound(9000, 8000)
    encoder = MelStatsEncoder(MelStatsSettings(), {"sample_rate_hz": 8000})
    whole = encoder.ready(values)
    monkeypatch.setattr(mel_stats, "FRAMES", 7)
    np.testing.assert_allclose(encoder.ready(values), whole, atol=1e-9)


def test_any_length_and_channels_and_silence() -> None:
    encoder = MelStatsEncoder(MelStatsSettings(), {"sample_rate_hz": 8000})
    values = [np.zeros(n, np.float32) for n in (0, 1, 5000)] + [sound(n, 8000) for n in (1, 2, 100, 20000)]
    found = encoded(encoder, values)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[2], 0)
    stereo = np.stack([values[-1], values[-1]], axis=1)
    np.testing.assert_allclose(encoded(encoder, [stereo, 0.01 * stereo]), [found[-1]] * 2, atol=2e-3)


def test_no_more_coefficients_than_bands() -> None:
    with pytest.raises(ValueError, match=r"mfcc \(20\) is more than mels \(12\)"):
        MelStatsSettings(mels=12)
