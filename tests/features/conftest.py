"""A small data set of three modalities whose classes are easy to tell, and encoders that train in a moment."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmcore.config import RunConfig
from mmcore.features.extract import encode_modality, foresee_encoders
from mmcore.parallel import Pool, serial_pool
from mmcore.progress import Silent
from mmcore.records import Dataset, EncoderEntry, Step
from mmcore.shards.prepare import foresee_shards, prepare
from mmcore.storage import Store

CLASSES = ("high", "low")
TINY = {"epochs": 3, "hidden": 4, "width": 2, "batch_size": 16}


def write_data(folder: Path, rows: int = 60) -> None:
    """Rows k000, k001, ... with files; every tenth lacks its sound and every eleventh its text."""
    random = np.random.default_rng(0)
    for name in ("image", "audio", "text"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    lines = []
    for n in range(rows):
        label = n % 2
        pixels = random.integers(0, 60, (12, 12), dtype=np.uint8)
        pixels[:, label * 6 : label * 6 + 6] += 150
        Image.fromarray(pixels).save(folder / f"image/{n}.png")
        time_s = np.arange(int(random.integers(1200, 2400))) / 8000
        tone = 0.3 * np.sin(2 * np.pi * (1500, 300)[label] * time_s) + 0.01 * random.standard_normal(len(time_s))
        soundfile.write(folder / f"audio/{n}.wav", tone, 8000)
        (folder / f"text/{n}.txt").write_text(f"number {n} is {CLASSES[label]} of {random.integers(9)} things")
        lines.append(
            {
                "id": f"k{n:03d}",
                "label": CLASSES[label],
                "split": ("train", "train", "train", "val", "test")[(n // 2) % 5],
                "image": f"image/{n}.png",
                "audio": "" if n % 10 == 7 else f"audio/{n}.wav",
                "text": "" if n % 11 == 7 else f"text/{n}.txt",
            }
        )
    write_manifest(folder, lines)


def write_manifest(folder: Path, lines: list[dict[str, str]]) -> None:
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def read_manifest(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@dataclass
class Work:
    """One data set, one store, and how both are used."""

    folder: Path
    store: Store
    pool: Pool

    def config(self, modality: str = "text", **settings: Any) -> RunConfig:
        """A run with one modality to look at, whose encoder has `settings`, and one beside it that all rows have."""
        modalities = {
            "image": {"kind": "image", "column": "image", "size": 12, "mode": "grey"},
            "audio": {"kind": "audio", "column": "audio", "sample_rate_hz": 8000},
            "text": {"kind": "text", "column": "text"},
        }
        features: dict[str, dict[str, Any]] = {
            "image": {"encoder": "cnn", **TINY},
            "audio": {"encoder": "logmel-cnn", **TINY, "mels": 8, "max_duration_s": 0.25},
            "text": {"encoder": "ngram", "folds": 2},
        }
        return RunConfig.model_validate(
            {
                "data": {
                    "manifest": str(self.folder / "manifest.csv"),
                    "modalities": {
                        modality: modalities[modality],
                        "beside": {"kind": "text", "column": "id", "inline": True},
                    },
                },
                "shards": {"samples": 8},
                "features": {modality: features[modality] | settings, "beside": {"encoder": "ngram"}},
                "compute": {"device": "cpu", "dask": {"workers": 0}, "retries": 0},
                "output": self.store.root,
            }
        )

    def prepare(self, config: RunConfig) -> Dataset:
        return prepare(config, self.store, self.pool, Silent())

    def encode(self, config: RunConfig) -> tuple[Dataset, EncoderEntry]:
        dataset = self.prepare(config)
        modality = next(iter(config.features))
        return dataset, encode_modality(config, dataset, modality, self.store, self.pool, Silent())

    def foresee(self, config: RunConfig) -> tuple[EncoderEntry | None, list[Step]]:
        plan, entries, _ = foresee_shards(config, self.store)
        return foresee_encoders(config, entries, plan.classes, plan.modalities, self.store)[0]

    def files(self, *folders: str) -> dict[str, bytes]:
        """Every file below these folders of the store with its bytes."""
        root = Path(self.store.root)
        found = [path for folder in folders for path in sorted((root / folder).rglob("*")) if path.is_file()]
        return {str(path.relative_to(root)): path.read_bytes() for path in found}


@pytest.fixture
def work(tmp_path: Path) -> Work:
    write_data(tmp_path / "data")
    config = RunConfig.model_fields["compute"].get_default()
    return Work(
        tmp_path / "data", Store(tmp_path / "output").open(), serial_pool(config.model_copy(update={"retries": 0}))
    )
