"""The digits sample: handwriting, speech and sentences as a user would have them, faults included."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import wave
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from mmcore.errors import InputError, Problem
from mmcore.progress import Progress, Silent
from mmcore.records import SPLITS, Json
from mmcore.samples.handwriting import Handwriting
from mmcore.samples.sentences import DIGITS, sentence
from mmcore.samples.speech import SAMPLE_RATE_HZ, Utterance, need_espeak, speak

VERSION = 1
"""Raised when equal settings give other files."""
MARKER = "sample.json"
FEWEST = 100
"""Fewer samples would leave classes out of a split."""
SHARES = (0.6, 0.2, 0.2)
ENDINGS = {"image": "png", "audio": "wav", "text": "txt"}
MISSING = 0.1
"""Share of the modalities that are not there; every sample keeps one."""
FAULTY = 0.01
"""Share of the rows that are broken on purpose."""
AUDIO_RATE_HZ = 16_000
SNR_DB = (-12, 10)
"""Range of the voice's power over the noise's."""
VOICES = {
    "train": (
        *("en-us+m1", "en-us+f2", "en-us+adam", "en-us+belinda", "en+m2", "en+f3", "en+caleb", "en+anika"),
        *("en-gb-scotland+m3", "en-gb-scotland+f4", "en-gb-x-gbclan+m4", "en-gb-x-gbclan+steph"),
    ),
    "val": ("en-gb-x-rp+m7", "en-gb-x-rp+f1", "en-029+max"),
    "test": ("en-us-nyc+m5", "en-gb-x-gbcwmd+f5", "en-gb-x-gbcwmd+paul", "en-us-nyc+linda"),
}
"""Language and variant of the speakers of each split."""


@dataclass(frozen=True)
class _Sample:
    key: str
    digit: int
    split: str
    turn: int
    """How many samples of this digit and split come before it."""
    modalities: tuple[str, ...]
    rng: np.random.Generator


def make_digits(folder: Path, *, samples: int = 2000, seed: int = 0, progress: Progress | None = None) -> Path:
    """Write image/*.png, audio/*.wav, text/*.txt, manifest.csv and pipeline.yaml; give the manifest's path.

    Equal `samples` and `seed` give equal bytes. Handwriting, voices and wordings are disjoint between the splits.
    A folder that holds this very sample is left as it is. It appears whole or not at all.
    Raises InputError for fewer than 100 samples, a folder that holds something else or cannot be written, or without
    the extra `samples`.
    """
    progress = progress or Silent()
    folder = Path(folder).resolve()
    marker = {"sample": "digits", "version": VERSION, "samples": samples, "seed": seed}
    with _unwritable_named(folder):
        there = _is_there(folder, marker)
    if there:
        progress.log(f"{folder}: the sample is there already; nothing to do.")
        return folder / "manifest.csv"
    if samples < FEWEST:
        raise InputError(Problem("samples", f"at least {FEWEST} are needed, got {samples}."))
    if find_spec("num2words") is None:
        raise InputError(Problem("sentences", "num2words is not installed.", "Run: pip install 'mmcore[samples]'"))
    need_espeak()
    unfinished = folder.parent / f".{folder.name}.unfinished"
    with _unwritable_named(folder):
        shutil.rmtree(unfinished, ignore_errors=True)
        for modality in ENDINGS:
            (unfinished / modality).mkdir(parents=True)
        _write(unfinished, samples, seed, progress)
        shutil.copyfile(str(files("mmcore.samples") / "pipeline.yaml"), unfinished / "pipeline.yaml")
        (unfinished / MARKER).write_text(json.dumps(marker) + "\n", encoding="utf-8")
        os.replace(unfinished, folder)  # an empty folder may be in its place
    return folder / "manifest.csv"


@contextmanager
def _unwritable_named(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"cannot be written ({error.strerror or error})."
        raise InputError(Problem(str(folder), what, "Name a folder that you may write to.")) from error


def _is_there(folder: Path, marker: dict[str, Json]) -> bool:
    """Whether the folder holds the sample that the marker names. Raises InputError where it holds anything else."""
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise InputError(Problem(str(folder), "this is a file.", "Name a folder that is new or empty."))
    try:
        found = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found == marker:
        return True
    if found is None and not any(folder.iterdir()):
        return False
    holds = f"it holds another sample{_in_words(found)}." if found else "it is not empty."
    raise InputError(Problem(str(folder), holds, "Name a folder that is new or empty, or remove it first."))


def _in_words(marker: Json) -> str:
    """Which sample a marker names, in brackets, as far as it says so."""
    try:
        said = f" ({marker['sample']}: {marker['samples']} samples with seed {marker['seed']}"
        return said + (")" if marker["version"] == VERSION else ", made by another version of mmcore)")
    except (KeyError, TypeError):
        return ""


def _write(folder: Path, count: int, seed: int, progress: Progress) -> None:
    plan = _plan(count, seed)
    handwriting = {split: Handwriting(split) for split in SPLITS}
    rows = []
    progress.start(count, unit="samples")
    with closing(speak([_utterance(sample) for sample in plan if "audio" in sample.modalities])) as sounds:
        for sample in plan:
            row = {"id": sample.key, "label": DIGITS[sample.digit], "split": sample.split}
            for modality, ending in ENDINGS.items():
                row[modality] = f"{modality}/{sample.key}.{ending}" if modality in sample.modalities else ""
            if row["image"]:
                picture = handwriting[sample.split].write(sample.digit, sample.turn, sample.rng)
                picture.save(folder / row["image"], compress_level=6)
            if row["audio"]:
                _save(folder / row["audio"], _record(next(sounds), sample.rng))
            if row["text"]:
                text = sentence(sample.digit, sample.split, sample.rng)
                (folder / row["text"]).write_text(text + "\n", encoding="utf-8")
            rows.append(row)
            progress.advance(samples=1)
    _break_some(folder, rows, np.random.default_rng([seed, count]))
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _plan(count: int, seed: int) -> list[_Sample]:
    """Every sample's digit, split and modalities: equal classes within each split, in mixed order."""
    rng = np.random.default_rng(seed)
    train, val = (round(count * share) for share in SHARES[:2])
    pairs = [
        (split, place % 10, place // 10)
        for split, size in zip(SPLITS, (train, val, count - train - val), strict=True)
        for place in range(size)
    ]
    order = rng.permutation(count)
    digits = len(str(count - 1))
    plan = []
    for number, place in enumerate(order):
        split, digit, turn = pairs[place]
        own = np.random.default_rng([seed, count, number])
        plan.append(_Sample(f"d{number:0{digits}d}", digit, split, turn, _modalities(rng), own))
    return plan


def _modalities(rng: np.random.Generator) -> tuple[str, ...]:
    while True:
        there = tuple(name for name in ENDINGS if rng.random() >= MISSING)
        if there:
            return there


def _utterance(sample: _Sample) -> Utterance:
    voices, rng = VOICES[sample.split], sample.rng
    return Utterance(
        DIGITS[sample.digit],
        voices[int(rng.integers(len(voices)))],
        words_per_minute=int(rng.integers(130, 240)),
        pitch=int(rng.integers(15, 90)),
    )


def _record(speech: NDArray[np.int16], rng: np.random.Generator) -> NDArray[np.float32]:
    """The voice in a room: silence around it, another loudness, hum and noise beside it."""
    voice = soxr.resample(speech.astype(np.float32) / 32768, SAMPLE_RATE_HZ, AUDIO_RATE_HZ)
    loud = np.flatnonzero(np.abs(voice) > 0.01)
    voice = voice[: loud[-1] + 1] if len(loud) else voice
    before, after = (rng.uniform(0.02, 0.2, size=2) * AUDIO_RATE_HZ).astype(int)
    sound = np.pad(voice * rng.uniform(0.2, 0.8), (before, after))
    noise = rng.normal(size=len(sound))
    if rng.random() < 0.5:  # a deep rumble for a hiss
        noise = np.convolve(noise, 0.97 ** np.arange(200), mode="same")
    hum = np.sin(2 * np.pi * 50 * np.arange(len(sound)) / AUDIO_RATE_HZ + rng.uniform(0, 6))
    noise = noise / noise.std() + rng.uniform(0, 0.7) * hum
    level = 10 ** (-rng.uniform(*SNR_DB) / 20)
    loudness = max(float(np.sqrt(np.mean(sound**2))), 1e-4)
    recording: NDArray[np.float32] = np.clip(sound + noise * level * loudness, -1, 1).astype(np.float32)
    return recording


def _save(file: Path, recording: NDArray[np.float32]) -> None:
    # soundfile would wait for the disk after each of a few thousand files.
    with wave.open(str(file), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(AUDIO_RATE_HZ)
        out.writeframes(np.rint(recording * 32767).astype("<i2").tobytes())


def _break_some(folder: Path, rows: list[dict[str, str]], rng: np.random.Generator) -> None:
    """Break a few rows on purpose, each in another way, so that a run has something to set aside."""
    whole = [place for place, row in enumerate(rows) if all(row.values()) and place > 0]
    chosen = rng.choice(whole, size=math.ceil(FAULTY * len(rows)), replace=False)
    for place, fault in zip(chosen.tolist(), _faults(), strict=False):
        fault(folder, rows, place)


def _faults() -> Iterator[Callable[[Path, list[dict[str, str]], int], None]]:
    while True:
        yield _cut_picture
        yield _page_for_a_sound
        yield _empty_text
        yield _lost_file
        yield _no_label
        yield _same_key


def _cut_picture(folder: Path, rows: Sequence[dict[str, str]], place: int) -> None:
    file = folder / rows[place]["image"]
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _page_for_a_sound(folder: Path, rows: Sequence[dict[str, str]], place: int) -> None:
    (folder / rows[place]["audio"]).write_text("<html><title>404 Not Found</title></html>\n", encoding="utf-8")


def _empty_text(folder: Path, rows: Sequence[dict[str, str]], place: int) -> None:
    (folder / rows[place]["text"]).write_text(" \n", encoding="utf-8")


def _lost_file(folder: Path, rows: Sequence[dict[str, str]], place: int) -> None:
    (folder / rows[place]["image"]).unlink()


def _no_label(_folder: Path, rows: Sequence[dict[str, str]], place: int) -> None:
    rows[place]["label"] = ""


def _same_key(_folder: Path, rows: Sequence[dict[str, str]], place: int) -> None:
    rows[place]["id"] = rows[place - 1]["id"]
