"""A small data set with text only, and pools that need no Dask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mmcore.config import RunConfig
from mmcore.parallel import Pool, serial_pool
from mmcore.storage import Store

Rows = dict[str, list[str]]
"""Key to label, split, word (a file's text) and note (text in the manifest)."""


def some_rows(count: int = 60) -> Rows:
    splits = ["train", "train", "train", "val", "test"]
    return {
        f"k{n:04d}": [("even", "odd")[n % 2], splits[n % 5], f"word {n}", f"note {n}" if n % 7 else ""]
        for n in range(count)
    }


class Bench:
    """A data folder whose rows a test edits, and the configuration that reads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = some_rows()
        self.store = Store(folder / "output").open()
        self.settings: dict[str, Any] = {}

    def write(self) -> RunConfig:
        """Write the rows; files whose text is the same stay untouched."""
        folder = self.folder / "data"
        (folder / "word").mkdir(parents=True, exist_ok=True)
        lines = ["id,label,split,word,note"]
        for key, (label, split, word, note) in self.rows.items():
            file = folder / "word" / f"{key}.txt"
            if word and not (file.exists() and file.read_text() == word):
                file.write_text(word)
            lines.append(f"{key},{label},{split},{f'word/{key}.txt' if word else ''},{note}")
        (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
        modalities = {
            "word": {"kind": "text", "column": "word"},
            "note": {"kind": "text", "column": "note", "inline": True},
        }
        data = {"manifest": str(folder / "manifest.csv"), "modalities": modalities, **self.settings}
        features = {name: {"encoder": "ngram"} for name in data["modalities"]}
        compute = {"dask": {"workers": 0}, "sample_timeout_s": 2}
        config = {"data": data, "features": features, "shards": {"samples": 8}, "compute": compute}
        return RunConfig.model_validate(config)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def serial(bench: Bench) -> Pool:
    return serial_pool(bench.write().compute)


class Tally:
    """A Progress that remembers."""

    def __init__(self) -> None:
        self.total = self.reused = self.done = self.samples = self.rejected = 0
        self.lines: list[str] = []

    def start(self, total: int, *, reused: int = 0, unit: str = "shards") -> None:
        self.total, self.reused = total, reused

    def advance(self, units: float = 1, *, samples: int = 0, rejected: int = 0, note: str = "") -> None:
        self.done += int(units)
        self.samples += samples
        self.rejected += rejected

    def log(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture
def tally() -> Tally:
    return Tally()


def files_of(store: Store) -> dict[str, bytes]:
    """All published files."""
    root = Path(store.root)
    return {str(f.relative_to(root)): f.read_bytes() for f in sorted(root.rglob("*")) if f.is_file()}


Make = Callable[[Sequence[Any]], Iterator[Any]]
