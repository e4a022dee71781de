"""The digits sample: complete, deterministic, disjoint between splits, broken only on purpose."""

import csv
import errno
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmcore.config import load
from mmcore.errors import InputError
from mmcore.modalities.base import Rejected
from mmcore.samples.digits import DIGITS, VOICES, make_digits
from mmcore.samples.handwriting import Handwriting
from mmcore.samples.sentences import WORDINGS, sentence
from mmcore.samples.speech import SAMPLE_RATE_HZ, Utterance, speak

SAMPLES = 600


class Listener:
    def __init__(self) -> None:
        self.total, self.done, self.lines = 0, 0.0, []

    def start(self, total, *, reused=0, unit="shards"):
        assert (reused, unit) == (0, "samples")
        self.total = total

    def advance(self, units=1, *, samples=0, rejected=0, note=""):
        self.done += units

    def log(self, message):
        self.lines.append(message)


def rows_of(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def bytes_of(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "digits"
    listener = Listener()
    manifest = make_digits(folder, samples=SAMPLES, seed=3, progress=listener)
    assert (listener.total, listener.done) == (SAMPLES, SAMPLES)
    assert manifest == folder / "manifest.csv"
    return manifest


def test_manifest_has_every_row_balanced_and_some_modalities_missing(made):
    rows = rows_of(made)
    assert len(rows) == SAMPLES
    assert list(rows[0]) == ["id", "label", "split", "image", "audio", "text"]
    assert Counter(row["split"] for row in rows) == {"train": 360, "val": 120, "test": 120}
    labels = Counter(row["label"] for row in rows)
    assert labels.pop("") == 1
    assert set(labels) == set(DIGITS)
    assert all(59 <= count <= 60 for count in labels.values())
    missing = sum(not row[name] for row in rows for name in ("image", "audio", "text"))
    assert 0.07 < missing / (3 * SAMPLES) < 0.13
    assert all(row["image"] or row["audio"] or row["text"] for row in rows)


def test_pipeline_yaml_points_to_its_own_folder(made):
    config = load(made.parent / "pipeline.yaml")
    assert config.data.manifest == str(made)
    assert config.output == str(made.parent / "output")


def test_about_one_row_in_a_hundred_is_broken_and_each_in_its_own_way(made):
    config = load(made.parent / "pipeline.yaml")
    rows = rows_of(made)
    faults: list[str] = []
    for name, settings in config.data.modalities.items():
        modality = settings.load()(settings)
        for row in rows:
            if not row[name]:
                continue
            file = made.parent / row[name]
            if not file.exists():
                faults.append("missing-file")
            elif isinstance(got := modality.process(file.read_bytes()), Rejected):
                faults.append(got.code)
    keys = Counter(row["id"] for row in rows)
    assert Counter(faults) == {"truncated": 1, "unknown-format": 1, "empty-text": 1, "missing-file": 1}
    assert sum(not row["label"] for row in rows) == 1
    assert [count for count in keys.values() if count > 1] == [2]


def test_two_fresh_processes_write_equal_bytes_and_another_seed_does_not(tmp_path):
    code = (
        "import sys; from pathlib import Path; from mmcore.samples.digits import make_digits;"
        "make_digits(Path(sys.argv[1]), samples=100, seed=int(sys.argv[2]))"
    )
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        subprocess.run([sys.executable, "-W", "error", "-c", code, str(tmp_path / name), seed], check=True)
    make_digits(tmp_path / "d", samples=100, seed=5)
    first = bytes_of(tmp_path / "a")
    assert len(first) > 250
    assert bytes_of(tmp_path / "b") == first
    assert bytes_of(tmp_path / "d") == first
    assert bytes_of(tmp_path / "c") != first
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c", "d"}


def test_made_again_it_does_nothing_and_says_so(made):
    before = {file: file.stat().st_mtime_ns for file in made.parent.rglob("*")}
    listener = Listener()
    assert make_digits(made.parent, samples=SAMPLES, seed=3, progress=listener) == made
    assert listener.total == 0
    assert "there already" in listener.lines[0]
    assert {file: file.stat().st_mtime_ns for file in made.parent.rglob("*")} == before


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch, code):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match=f"/new: cannot be written .{os.strerror(code)}"):
        make_digits(tmp_path / "new", samples=100)


def test_a_folder_that_holds_something_else_is_refused_and_left(made, tmp_path):
    with pytest.raises(InputError, match=rf"another sample \(digits: {SAMPLES} samples with seed 3\)\."):
        make_digits(made.parent, samples=SAMPLES, seed=4)
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="not empty"):
        make_digits(tmp_path, samples=100)
    with pytest.raises(InputError, match="this is a file"):
        make_digits(tmp_path / "mine.txt", samples=100)
    assert bytes_of(tmp_path).keys() == {"mine.txt"}
    assert json.loads((made.parent / "sample.json").read_text()) == {
        "sample": "digits", "version": 1, "samples": SAMPLES, "seed": 3,
    }  # fmt: skip


def test_an_empty_folder_is_filled_and_leftovers_of_a_killed_run_are_replaced(tmp_path):
    folder = tmp_path / "digits"
    folder.mkdir()
    (tmp_path / ".digits.unfinished" / "image").mkdir(parents=True)
    (tmp_path / ".digits.unfinished" / "image" / "stale.png").write_bytes(b"")
    make_digits(folder, samples=100)
    assert not (folder / "image" / "stale.png").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_too_few_samples_and_missing_extras_are_told(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="at least 100 are needed, got 99"):
        make_digits(tmp_path / "few", samples=99)
    real = importlib.util.find_spec
    for absent, module in (("num2words", "digits"), ("espeakng_loader", "speech")):
        monkeypatch.setattr(
            f"mmcore.samples.{module}.find_spec",
            lambda name, absent=absent: None if name == absent else real(name),
        )
        with pytest.raises(InputError, match=r"pip install 'mmcore\[samples\]'"):
            make_digits(tmp_path / "absent")
        monkeypatch.undo()
    assert not list(tmp_path.iterdir())


def test_espeak_is_loaded_in_no_process_but_its_own():
    code = (
        "import sys; import mmcore.samples.digits as d;"
        "list(d.speak([d.Utterance('one', 'en', 150, 50)]));"
        "assert not {'espeakng_loader', 'num2words', 'torch', 'sklearn'} & set(sys.modules);"
        "assert 'espeak' not in open('/proc/self/maps').read()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_voices_scans_and_wordings_are_disjoint_between_splits():
    voices = [voice for split in VOICES.values() for voice in split]
    assert len(voices) == len(set(voices))
    wordings = [text for split in WORDINGS.values() for pair in split.values() for texts in pair for text in texts]
    assert len(wordings) == len(set(wordings))
    scans = [scan.tobytes() for split in VOICES for scans in Handwriting(split)._scans for scan in scans]
    assert len(scans) == 1797
    assert len(set(scans)) == 1797


def test_every_voice_speaks_and_speed_and_pitch_matter():
    voices = [voice for split in VOICES.values() for voice in split]
    wanted = [Utterance("seven", voice, 170, 50) for voice in voices]
    sounds = list(speak([*wanted, wanted[0]._replace(words_per_minute=300), wanted[0]._replace(pitch=95)]))
    *spoken, fast, high = sounds
    assert all(0.2 < len(sound) / SAMPLE_RATE_HZ < 1.5 and np.abs(sound).max() > 2000 for sound in spoken)
    assert len({sound.tobytes() for sound in spoken}) == len(voices)
    assert len(fast) < 0.8 * len(spoken[0])
    assert high.tobytes() != spoken[0].tobytes()


def test_an_unknown_voice_is_an_error_that_names_it():
    with pytest.raises(InputError, match="nobody"):
        list(speak([Utterance("one", "en", 150, 50), Utterance("two", "nobody", 150, 50)]))


def test_a_child_that_dies_at_once_is_told(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    for count in (1, 5000):
        with pytest.raises(InputError, match=r"pip install --force-reinstall 'mmcore\[samples\]'"):
            list(speak([Utterance("one", "en", 150, 50)] * count))


def test_files_are_what_a_user_would_have(made):
    row = next(row for row in rows_of(made) if all(row.values()))
    with Image.open(made.parent / row["image"]) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (28, 28))
    info = soundfile.info(str(made.parent / row["audio"]))
    assert (info.format, info.subtype, info.samplerate, info.channels) == ("WAV", "PCM_16", 16_000, 1)
    assert 0.2 < info.duration < 2
    assert (made.parent / row["text"]).read_text(encoding="utf-8").strip()


def test_a_sentence_names_its_digit():
    from num2words import num2words

    rng = np.random.default_rng(0)
    named = 0
    for turn in range(300):
        text = sentence(turn % 10, "train", rng).lower()
        spellings = {num2words(turn % 10, lang=language) for language in WORDINGS["train"]} | {str(turn % 10)}
        named += any(spelling in text for spelling in spellings)
    assert named / 300 > 0.93  # the rest is mistyped within the number


def test_each_modality_is_imperfect_and_their_sum_is_better(tmp_path):
    """Plain models, and the sum of their log probabilities, on the sample as `make demo` makes it."""
    manifest = make_digits(tmp_path / "digits")
    rows = [row for row in rows_of(manifest) if row["label"]]
    labels = np.array([row["label"] for row in rows])
    test = np.array([row["split"] == "test" for row in rows])
    total, scores = np.zeros((len(rows), 10)), {}
    for name, settings in load(manifest.parent / "pipeline.yaml").data.modalities.items():
        values = usable(rows, name, settings.load()(settings), manifest.parent)
        there = np.array(list(values))
        guesses = log_probabilities(name, list(values.values()), labels[there], ~test[there])
        total[there] += guesses
        hits = np.array(sorted(DIGITS))[guesses.argmax(axis=1)] == labels[there]
        scores[name] = float(hits[test[there]].mean())
    fused = float((np.array(sorted(DIGITS))[total.argmax(axis=1)] == labels)[test].mean())
    assert all(0.6 < score < 0.93 for score in scores.values()), scores
    assert fused > max(scores.values()) + 0.05, (scores, fused)


def usable(rows, name, modality, folder):
    """The loaded value of each row that has a usable one, by the row's number."""
    found = {}
    for number, row in enumerate(rows):
        file = folder / row[name]
        if row[name] and file.exists() and not isinstance(got := modality.process(file.read_bytes()), Rejected):
            found[number] = modality.load(got.data)
    return found


def log_probabilities(name, values, labels, train):
    """(n, 10) in the order of the sorted labels: character n-grams and a linear model, else a kernel machine."""
    from scipy.special import log_softmax
    from sklearn.decomposition import PCA
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    if name == "text":
        model = make_pipeline(TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4)), LogisticRegression(C=20))
        return model.fit(np.array(values)[train], labels[train]).predict_log_proba(values)
    if name == "image":
        features = np.array([value.ravel() / 255.0 for value in values])
        model = make_pipeline(PCA(50, random_state=0), SVC(C=5))
    else:
        features = np.array([spectrum_of(value) for value in values])
        model = make_pipeline(StandardScaler(), SVC(C=5))
    return log_softmax(2 * model.fit(features[train], labels[train]).decision_function(features), axis=1)


def spectrum_of(sound):
    """Log energy in 24 bands and 16 frames of 50 ms."""
    frames = np.pad(sound, (0, max(0, 6400 - len(sound))))[:6400].reshape(16, 400) * np.hanning(400)
    energy = np.abs(np.fft.rfft(frames))[:, 4:196].reshape(16, 24, 8).mean(axis=2)
    spectrum = np.log(energy + 1e-2)
    return (spectrum - spectrum.mean()).ravel()
