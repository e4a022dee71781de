"""Sound in and out: closed forms for frequency, level, length and mixing."""

import io
import struct

import numpy as np
import pytest
import soundfile

from mmcore.config import AudioSettings
from mmcore.modalities.audio import AudioModality
from mmcore.modalities.base import Member


def modality(**settings):
    return AudioModality(AudioSettings(column="audio", **settings))


def saved(samples, rate=8000, kind="WAV", subtype="PCM_16"):
    out = io.BytesIO()
    soundfile.write(out, np.asarray(samples), rate, format=kind, subtype=subtype)
    return out.getvalue()


def sine(frequency_hz, rate, seconds=1.0, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(round(rate * seconds)) / rate)


def samples_of(data, **settings):
    one = modality(**settings)
    member = one.process(data)
    assert isinstance(member, Member), member
    return one.load(member.data)


@pytest.mark.parametrize("kind", ["flac", "wav"])
def test_16_bit_samples_of_the_stored_rate_pass_unchanged(kind):
    samples = np.random.default_rng(0).integers(-32768, 32767, 4000, dtype=np.int16)
    samples[:2] = -32768, 32767
    got = samples_of(saved(samples), sample_rate_hz=8000, format=kind)
    assert got.dtype == np.float32
    assert (got * 32768 == samples).all()


@pytest.mark.parametrize("rate", [8000, 11_025, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("stored", [8000, 16_000])
def test_a_sine_keeps_frequency_level_and_length(rate, stored):
    got = samples_of(saved(sine(440, rate), rate), sample_rate_hz=stored)
    assert abs(len(got) - stored) <= 1
    middle = got[stored // 4 : stored // 4 + stored // 2]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert abs(int(spectrum.argmax()) * 2 - 440) <= 2  # half a second: 2 Hz a bin
    ideal = sine(440, stored)[: len(got)][stored // 4 : stored // 4 + stored // 2]
    error = np.sqrt(np.mean((middle - ideal) ** 2))
    assert 20 * np.log10(0.5 / np.sqrt(2) / error) > 70  # 16 bits, a half of full scale


def test_what_is_above_half_the_stored_rate_goes():
    got = samples_of(saved(sine(10_000, 44_100), 44_100), sample_rate_hz=8000)
    assert np.abs(got[500:-500]).max() < 1e-3


def test_channels_are_averaged():
    left, right = sine(300, 8000), sine(700, 8000)
    got = samples_of(saved(np.stack([left, right], axis=1)), sample_rate_hz=8000)
    assert np.abs(got - (left + right) / 2).max() < 1e-4


def test_sound_beyond_full_scale_is_scaled_as_a_whole():
    loud = sine(200, 8000, amplitude=20.0)
    got = samples_of(saved(loud, subtype="FLOAT"), sample_rate_hz=8000)
    assert np.abs(got - loud / np.abs(loud).max()).max() < 1e-4
    square = np.sign(sine(99, 44_100)).astype(np.float32)  # overshoots when resampled
    got = samples_of(saved(square, 44_100, subtype="FLOAT"), sample_rate_hz=8000)
    assert 0.99 < np.abs(got).max() <= 1
    assert np.mean(np.abs(got) > 0.999) < 0.01  # not clipped
    huge = np.full(800, 3e38, np.float32)
    assert np.abs(samples_of(saved(huge, subtype="FLOAT"), sample_rate_hz=8000) - 1).max() < 1e-4


def test_silence_stays_silence():
    assert not samples_of(saved(np.zeros(8000)), sample_rate_hz=16_000).any()


def test_long_sounds_are_cut_and_their_facts_are_whole():
    one = modality(sample_rate_hz=8000, max_duration_s=0.5)
    member = one.process(saved(sine(440, 8000, seconds=3)))
    assert len(one.load(member.data)) == 4000
    assert member.facts["duration_s"] == 3.0


def test_a_long_sound_of_many_channels_is_read_in_blocks():
    samples = np.tile(np.arange(-8, 8, dtype=np.int16) * 100, (100_000, 1))
    got = samples_of(saved(samples), sample_rate_hz=8000, max_duration_s=100)
    assert len(got) == 100_000
    assert np.abs(got * 32768 + 50).max() <= 0.5


def test_facts():
    data = saved(np.stack([sine(440, 22_050), sine(440, 22_050)], axis=1), 22_050)
    facts = modality().process(data).facts
    assert facts["duration_s"] == 1.0
    assert (facts["sample_rate_hz"], facts["channels"]) == (22_050, 2)
    assert abs(facts["peak"] - 0.5) < 1e-3
    assert abs(facts["rms"] - 0.5 / np.sqrt(2)) < 1e-3


def test_limits():
    data = saved(np.ones(80) * 0.1)
    assert isinstance(modality().process(data), Member)
    assert modality(max_bytes=len(data) - 1).process(data).code == "too-many-bytes"
    assert modality().process(saved(np.ones(79) * 0.1)).code == "too-short"
    assert modality(min_duration_s=0).process(saved(np.zeros(0))).code == "too-short"
    assert len(samples_of(saved(np.ones(1) * 0.1, 192_000), min_duration_s=0, sample_rate_hz=1000)) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2])
def test_nan_and_infinity_are_rejected(bad, channels):
    samples = np.zeros((8000, channels), np.float32)
    samples[5000, 0] = bad
    assert modality().process(saved(samples, subtype="FLOAT")).code == "not-finite"


def test_a_wav_that_ends_early_is_truncated_but_a_streamed_one_is_not():
    data = saved(sine(440, 8000))
    got = modality().process(data[:5000])
    assert got.code == "truncated"
    assert f"{len(data) - 5000:,} bytes" in got.message
    at = data.index(b"data") + 4
    for length in (0xFFFFFFFF, 0x7FFFFFFF):
        streamed = data[:at] + struct.pack("<I", length) + data[at + 4 :]
        member = modality().process(streamed)
        assert isinstance(member, Member)
        assert member.facts["duration_s"] == 1.0


def test_a_flac_that_ends_early_is_truncated():
    data = saved(np.random.default_rng(0).normal(0, 0.1, 16_000), kind="FLAC")
    assert modality().process(data[: len(data) // 2]).code in {"truncated", "corrupt"}


@pytest.mark.parametrize(("kind", "subtype"), [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")])
def test_compressed_formats(kind, subtype):
    data = saved(sine(440, 16_000), 16_000, kind, subtype)
    got = samples_of(data, sample_rate_hz=16_000)
    spectrum = np.abs(np.fft.rfft(got[:16_000]))
    assert abs(int(spectrum.argmax()) - 440) <= 1


def test_bytes_are_equal_each_time():
    data = saved(np.random.default_rng(0).normal(0, 0.1, (44_100, 2)), 44_100)
    for kind in ("flac", "wav"):
        assert modality(format=kind).process(data) == modality(format=kind).process(data)
        assert modality(format=kind).extension == kind
