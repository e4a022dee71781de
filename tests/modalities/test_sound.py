"""Loudness, trimming, formats and hashes of sounds, against pyloudnorm, FFmpeg, closed forms and re-encodings."""

import io
from itertools import combinations

import av
import numpy as np
import pyloudnorm
import pytest
import soundfile
import soxr
from pydantic import ValidationError

from mmcore.config import AudioSettings, RunConfig
from mmcore.modalities import wav
from mmcore.modalities.audio import AudioModality
from mmcore.modalities.base import Member, Rejected
from mmcore.modalities.sound import loudness_lufs, mel_hash


def settings(**values):
    return AudioSettings(column="audio", **values)


def saved(samples, rate=16_000, kind="WAV", subtype=None):
    out = io.BytesIO()
    soundfile.write(out, np.asarray(samples), rate, format=kind, subtype=subtype)
    return out.getvalue()


def muxed(samples, rate, container, codec):
    """The sound (channels, n) in a container, by FFmpeg."""
    out = io.BytesIO()
    layout = {1: "mono", 2: "stereo"}[len(samples)]
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32), format="fltp", layout=layout)
        frame.sample_rate = rate
        for part in (frame, None):
            file.mux(stream.encode(part))
    return out.getvalue()


def sine(frequency_hz, rate, seconds=1.0, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(round(rate * seconds)) / rate)


def member_of(data, **values):
    member = AudioModality(settings(**values)).process(data)
    assert isinstance(member, Member), member
    return member


def samples_of(data, **values):
    return AudioModality(settings(**values)).load(member_of(data, **values).data)


def speech(seed, rate=16_000, seconds=1.5):
    """Syllables: harmonics under moving formants, with pauses, as no two seeds share."""
    draws = np.random.default_rng(seed)
    time = np.arange(round(rate * seconds)) / rate
    pitch = 2 * np.pi * np.cumsum(np.interp(time, np.linspace(0, seconds, 6), draws.uniform(90, 250, 6))) / rate
    sound = np.zeros_like(time)
    for harmonic in range(1, 14):
        strength = np.interp(time, np.linspace(0, seconds, 12), draws.uniform(0, 1, 12) ** 3)
        sound += strength * np.sin(harmonic * pitch)
    envelope = np.interp(time, np.linspace(0, seconds, 9), draws.uniform(0.1, 1, 9))
    sound = sound * envelope + draws.normal(0, 0.01, len(time))
    return (0.7 * sound / np.abs(sound).max()).astype(np.float32)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_fast_way_reads_what_libsndfile_reads(subtype, kind, channels):
    data = saved(np.random.default_rng(0).uniform(-1, 1, (500, channels)), 22_050, kind, subtype)
    header = wav.read_header(data)
    assert (header.rate_hz, header.channels, header.frames) == (22_050, channels, 500)
    ideal, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    assert np.abs(wav.samples_of(data, header, 0, 500) - ideal).max() <= 1e-7
    assert (wav.samples_of(data, header, 100, 50) == wav.samples_of(data, header, 0, 500)[100:150]).all()


@pytest.mark.parametrize(
    ("kind", "subtype"), [("WAV", "MS_ADPCM"), ("WAV", "ULAW"), ("RF64", "PCM_16"), ("AIFF", None), ("FLAC", None)]
)
def test_odd_ones_are_left_to_libsndfile(kind, subtype):
    data = saved(sine(300, 16_000), kind=kind, subtype=subtype)
    assert wav.read_header(data) is None
    assert isinstance(AudioModality(settings()).process(data), Member)
    plain = saved(sine(300, 16_000))
    for cut in range(60):
        wav.read_header(plain[:cut])
    assert wav.read_header(plain[:-1]) is None


def test_what_is_written_is_what_libsndfile_writes():
    samples = np.random.default_rng(0).integers(-32768, 32767, (300, 2), dtype=np.int16)
    assert wav.written(samples, 12_345) == saved(samples, 12_345, subtype="PCM_16")


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_loudness_is_what_pyloudnorm_measures(rate, channels):
    draws = np.random.default_rng(rate)
    envelope = np.repeat(draws.uniform(0, 1, 30) ** 4, rate // 10)
    sound = (envelope[:, None] * draws.normal(0, 0.2, (len(envelope), channels))).astype(np.float32)
    meter = pyloudnorm.Meter(rate, filter_class="DeMan")
    assert abs(loudness_lufs(sound, rate) - meter.integrated_loudness(sound.astype(float))) < 0.1


def test_the_standards_own_reference():
    """ITU-R BS.1770-4: a sine of 997 Hz at full scale in one front channel is at -3.01 LKFS."""
    assert abs(loudness_lufs(sine(997, 48_000, 5, 1.0)[:, None].astype(np.float32), 48_000) + 3.01) < 0.01
    assert loudness_lufs(np.zeros((48_000, 1), np.float32), 48_000) is None


@pytest.mark.parametrize("wanted", [-40.0, -23.0])
def test_loudness_is_matched(wanted):
    data = saved(speech(3), subtype="FLOAT")
    member = member_of(data, loudness_lufs=wanted, format="wav")
    got = samples_of(data, loudness_lufs=wanted, format="wav")
    assert abs(loudness_lufs(got[:, None], 16_000) - wanted) < 0.1
    assert "loudness-normalised" in member.facts["applied"]
    fact = member_of(data, measure_loudness=True).facts["loudness_lufs"]
    assert abs(fact - loudness_lufs(speech(3)[:, None], 16_000)) < 0.02


def test_loudness_never_goes_beyond_full_scale():
    click = np.zeros(16_000, np.float32)
    click[8000] = 0.5
    member = member_of(saved(click, subtype="FLOAT"), loudness_lufs=-10.0)
    assert np.abs(samples_of(saved(click, subtype="FLOAT"), loudness_lufs=-10.0)).max() <= 1
    assert member.facts["applied"] == ["loudness-normalised", "peak-limited"]
    silent = member_of(saved(np.zeros(8000)), loudness_lufs=-23.0, measure_loudness=True)
    assert silent.facts["loudness_lufs"] is None
    assert "applied" not in silent.facts


@pytest.mark.parametrize(("duration_s", "word"), [(0.5, "cut"), (2.0, "padded"), (1.0, None)])
def test_every_sound_has_the_length_asked_for(duration_s, word):
    data = saved(sine(200, 16_000))
    got = samples_of(data, duration_s=duration_s)
    assert len(got) == 16_000 * duration_s
    assert (got[16_000:] == 0).all()
    assert member_of(data, duration_s=duration_s).facts.get("applied", [None]) == [word]


def test_silence_is_trimmed_at_both_ends_only():
    sound = np.concatenate([np.zeros(3000), sine(200, 16_000, 0.2), np.zeros(2000), [0.4], np.full(5000, 1e-4)])
    got = samples_of(saved(sound), trim_silence_db=-60.0)
    loud = np.flatnonzero(np.abs(sound) >= 1e-3)
    assert len(got) == loud[-1] - loud[0] + 1
    assert len(samples_of(saved(np.zeros(900)), trim_silence_db=-60.0)) == 900


@pytest.mark.parametrize("kind", ["wav", "flac", "opus"])
def test_channels_are_kept_where_asked(kind):
    stereo = np.stack([sine(300, 16_000), sine(700, 16_000)], axis=1)
    got = samples_of(saved(stereo), channels="keep", format=kind)
    assert got.shape == (16_000, 2)
    if kind != "opus":
        assert np.abs(got - stereo).max() < 1e-4
    spectrum = np.abs(np.fft.rfft(got, axis=0))
    assert [int(peak) for peak in spectrum.argmax(axis=0)] == [300, 700]


def test_too_many_channels():
    many = saved(np.zeros((1000, 9)))
    assert isinstance(AudioModality(settings(channels="keep")).process(many), Rejected)
    assert AudioModality(settings(max_channels=8)).process(many).code == "too-many-channels"
    assert isinstance(AudioModality(settings()).process(many), Member)


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_opus_is_the_same_each_time_and_sounds_alike(rate):
    data = saved(speech(1, rate), rate)
    first, second = (member_of(data, format="opus", sample_rate_hz=rate).data for _ in range(2))
    assert first == second
    assert first.startswith(b"OggS")
    got, stored_rate = soundfile.read(io.BytesIO(first), dtype="float32")
    assert stored_rate == rate
    assert len(got) == len(speech(1, rate))
    assert np.corrcoef(got, speech(1, rate))[0, 1] > 0.9
    with av.open(io.BytesIO(first)) as opened:  # FFmpeg checks the pages' checksums
        assert sum(frame.samples for frame in opened.decode(audio=0)) > 0
    with pytest.raises(ValidationError, match="Opus knows"):
        settings(format="opus", sample_rate_hz=44_100)


@pytest.mark.parametrize(
    ("container", "codec"), [("mp4", "aac"), ("adts", "aac"), ("matroska", "aac"), ("avi", "aac"), ("webm", "libopus")]
)
def test_sound_in_containers(container, codec):
    rate = 48_000 if codec == "libopus" else 44_100
    sound = np.stack([sine(440, rate, 1.0), sine(440, rate, 1.0)])
    data = muxed(sound, rate, container, codec)
    member = member_of(data)
    got = samples_of(data)
    assert abs(len(got) / 16_000 - 1) < 0.1
    middle = got[4000:12_000]
    assert abs(int(np.abs(np.fft.rfft(middle * np.hanning(8000))).argmax()) * 2 - 440) <= 2
    assert (member.facts["sample_rate_hz"], member.facts["channels"]) == (rate, 2)
    assert abs(member.facts["duration_s"] - 1) < 0.1
    assert len(samples_of(data, max_duration_s=0.25)) == 4000


def test_damaged_containers_and_videos_without_sound():
    data = muxed(np.stack([speech(1, 44_100)]), 44_100, "mp4", "aac")
    modality = AudioModality(settings())
    for share in (0.1, 0.5, 0.9):
        assert isinstance(modality.process(data[: int(len(data) * share)]), Rejected)
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for part in (av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8)), None):
            file.mux(stream.encode(part))
    assert modality.process(out.getvalue()).code == "no-sound-track"


def test_networks_take_one_channel():
    data = {"manifest": "m.csv", "modalities": {"sound": {"kind": "audio", "column": "sound", "channels": "keep"}}}
    with pytest.raises(ValidationError, match="takes one channel"):
        RunConfig.model_validate({"data": data, "features": {"sound": {"encoder": "logmel-cnn"}}})
    with pytest.raises(ValidationError, match="more than max_duration_s"):
        settings(duration_s=60)


def _share(one, other):
    return sum((a ^ b).bit_count() for a, b in zip(one, other, strict=True)) / 256


def copies_of(sound, rate):
    yield saved(sound, rate, "FLAC")
    yield saved(sound, rate, "OGG", "VORBIS")
    yield saved(sound, rate, "MP3")
    yield saved(0.2 * sound, rate)
    yield saved(soxr.resample(sound, rate, 11_025), 11_025)
    yield saved(np.concatenate([np.zeros(rate // 3), sound, np.zeros(rate // 8)]), rate)


def test_copies_share_their_hash_and_others_do_not():
    hashes, copies = [], []
    for seed in range(25):
        sound = speech(seed)
        own = member_of(saved(sound)).signature
        hashes.append(own)
        copies += [_share(own, member_of(copy).signature) for copy in copies_of(sound, 16_000)]
    assert np.mean(np.array(copies) <= 0.15) >= 0.95
    assert min(_share(one, other) for one, other in combinations(hashes, 2)) > 0.15


def test_copies_of_real_recordings(digits_dir):
    """Of 60 recordings of ten words by few speakers, each in six copies: at the default threshold."""
    files = sorted((digits_dir / "audio").rglob("*.*"))[::40][:60]
    hashes, copies = [], []
    for file in files:
        sound, rate = soundfile.read(file, dtype="float32", always_2d=True)
        own = member_of(file.read_bytes()).signature
        hashes.append(own)
        copies += [_share(own, member_of(copy).signature) for copy in copies_of(sound[:, 0], rate)]
    others = [_share(one, other) for one, other in combinations(hashes, 2)]
    assert np.mean(np.array(copies) <= 0.15) >= 0.95
    assert np.mean(np.array(others) <= 0.15) <= 0.001


def test_silence_has_no_hash():
    assert member_of(saved(np.zeros(8000))).signature is None
    assert len(mel_hash(speech(0)[:, None], 16_000)) == 32
    noise = np.random.default_rng(0).normal(0, 0.1, (3000, 1)).astype(np.float32)
    for frames in (1, 2, 100, 511):
        assert mel_hash(noise[:frames], 16_000) is None
    for frames in (600, 1000, 2000, 3000):
        assert len(mel_hash(noise[:frames], 16_000)) == 32
