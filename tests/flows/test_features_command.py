"""`mmcore features` as a user types it, on a terminal of 80 columns."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from mmcore.config import load
from mmcore.features import open_features
from mmcore.features.extract import encode_modality
from mmcore.parallel import serial_pool
from mmcore.progress import Silent
from mmcore.shards.prepare import prepare
from mmcore.storage import Store
from tests.flows.conftest import clean_environment, mmcore

PIPELINE = """
name: cards
data:
  manifest: manifest.csv
  modalities:
    word: {kind: text, column: word, inline: true}
    note: {kind: text, column: note, inline: true}
features: {word: {encoder: ngram, dtype: float16}, note: {encoder: ngram}}
shards: {samples: 8}
compute: {dask: {workers: 0}}
output: output
"""


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 40 cards, their pipeline, and what a run extracted; a later one has no features yet."""
    folder = tmp_path_factory.mktemp("cards")
    lines = ["id,label,split,word,note"]
    for n in range(40):
        label = ("even", "odd")[n % 2]
        lines.append(
            f"k{n:02d},{label},{('train', 'val', 'test')[n // 2 % 3]},{label} word {n},{label if n % 5 else ''}"
        )
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    (folder / "pipeline.yaml").write_text(PIPELINE)
    config = load(folder / "pipeline.yaml")
    store, pool = Store(config.output).open(), serial_pool(config.compute)
    dataset = prepare(config, store, pool, Silent())
    entries = [encode_modality(config, dataset, name, store, pool, Silent()) for name in config.features]
    record = {"name": "cards", "dataset": dataset.digest, "state": "finished"}
    found = [asdict(entry) for entry in entries]
    store.publish_json("runs/cards-1/run.json", {**record, "run_id": "cards-1", "started": "1", "encoders": found})
    later = {**record, "run_id": "cards-2", "started": "2", "encoders": [], "state": "failed"}
    store.publish_json("runs/cards-2/run.json", later)
    return folder


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {**clean_environment(tmp_path), "COLUMNS": "80"}


def _said(env: dict[str, str], *arguments: str | Path, code: int = 0) -> str:
    done = mmcore("features", *arguments, env=env)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_ls(cards: Path, env: dict[str, str]) -> None:
    said = _said(env, "ls", cards / "pipeline.yaml")
    header, word, note = (line.split() for line in said.splitlines())
    assert header == ["modality", "encoder", "digest", "dim", "dtype", "tokens", "rows", "rejects", "size", "batch"]
    digest = open_features(cards / "output", "word").entry.digest
    assert word[:8] == ["word", "ngram", digest[:8], "2", "float16", "no", "40", "0"]
    assert note[4] == "float32"
    assert max(map(len, said.splitlines())) <= 80
    assert _said(env, "ls", cards / "output", "--run", "cards-1") == said


def test_show(cards: Path, env: dict[str, str]) -> None:
    said = _said(env, "show", cards / "output", "k05")
    features = open_features(cards / "output", "word")
    vector = features[features.keys.index("k05")].astype(np.float32)
    assert "word ngram" in said
    assert "40 rows: 40 with a vector, 0 without the modality, 0 set aside" in said
    assert "40 rows: 32 with a vector, 8 without the modality, 0 set aside" in said
    assert "0 of 2 dimensions are dead (0%)" in said
    assert f"[{vector[0]:.4g} {vector[1]:.4g}]  norm {np.linalg.norm(vector):.4g}" in said
    assert "no vector: missing" in said
    said = _said(env, "show", cards / "output", "k06", "--modality", "note")
    lines = [line.split() for line in said.splitlines()]
    nearest = lines[[line[:1] == ["nearest"] for line in lines].index(True) + 1 :]
    assert len(nearest) == 5
    assert {line[3] for line in nearest} == {"even"}
    assert nearest[0][1] == "1.0000"
    assert "k06" not in {line[0] for line in nearest}


def test_export(cards: Path, env: dict[str, str], tmp_path: Path) -> None:
    said = _said(env, "export", cards / "output", tmp_path / "new", "--float32")
    assert "word: 40 x 2\nnote: 40 x 2\n" in said
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["note.parquet", "word.parquet"]
    table = parquet.ParquetFile(tmp_path / "new" / "word.parquet").read(use_threads=False)
    features = open_features(cards / "output", "word")
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist()), features[:].astype(np.float32))
    arguments = ("export", cards / "output", tmp_path / "new", "--to", "npy", "--modality", "note", "--split", "test")
    assert "replace what is in it with --force" in _said(env, *arguments, code=2)
    _said(env, *arguments, "--force")
    test = open_features(cards / "output", "note", splits=["test"])
    np.testing.assert_array_equal(np.load(tmp_path / "new" / "note.npy"), test[:])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "--modality", "image"), "no features of 'image'. There are: word, note."),
        (("show", "--run", "cards-2"), "run 'cards-2' below"),
        (("show", "--run", "cards-3"), "no run 'cards-3' below"),
        (("show", "k5"), "no sample 'k5' here. Did you mean 'k"),
        (("export", "new", "--to", "csv"), "no format 'csv'. There are: parquet, npy."),
        (("show", "--split", "dev"), "no split 'dev'. There are: train, val, test."),
    ],
)
def test_what_cannot_be_is_one_sentence(
    cards: Path, env: dict[str, str], arguments: tuple[str, ...], words: str
) -> None:
    said = _said(env, arguments[0], cards / "output", *arguments[1:], code=2)
    assert words in said
    assert "Traceback" not in said


def test_no_runs(env: dict[str, str], tmp_path: Path) -> None:
    assert "no run below" in _said(env, "ls", tmp_path / "empty", code=2)
