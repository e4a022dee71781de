"""`mmcore shards` as a user types it, on a terminal of 80 columns."""

from __future__ import annotations

import gc
import json
import os
import pty
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import webdataset
from PIL import Image
from pyarrow import parquet

from mmcore.config import RunConfig, load
from mmcore.parallel import serial_pool
from mmcore.records import Dataset
from mmcore.shards.prepare import prepare
from mmcore.shards.read import read_dataset
from mmcore.storage import Store
from tests.flows.conftest import BIN, clean_environment, mmcore
from tests.shards.conftest import Tally, files_of

PIPELINE = """
name: cards
data:
  manifest: manifest.csv
  max_rejected: 50%
  modalities:
    image: {kind: image, column: image, size: 16}
    audio: {kind: audio, column: audio, sample_rate_hz: 8000}
    text: {kind: text, column: text, inline: true}
features: {image: {encoder: cnn}, audio: {encoder: logmel-cnn}, text: {encoder: ngram}}
shards: {samples: 8}
compute: {dask: {workers: 0}}
output: output
"""


def _make(folder: Path) -> RunConfig:
    random = np.random.default_rng(0)
    lines = ["id,label,split,image,audio,text"]
    for n in range(40):
        Image.fromarray(random.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(folder / f"{n}.png")
        soundfile.write(folder / f"{n}.wav", np.sin(np.arange(4000) * n / 50) * 0.5, 8000)
        sound = f"{n}.wav" if n % 5 else ""
        split, label = ("train", "val", "test")[n // 2 % 3], ("even/zero", "odd")[n % 2]
        lines.append(f"k.{n:02d},{label},{split},{n}.png,{sound},text {n}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\nbad,odd,train,none.png,,\n")
    (folder / "pipeline.yaml").write_text(PIPELINE)
    return load(folder / "pipeline.yaml")


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 40 cards, their pipeline, and the shards of a run."""
    folder = tmp_path_factory.mktemp("cards")
    _prepare(folder, _make(folder))
    return folder


def _prepare(folder: Path, config: RunConfig) -> Dataset:
    store = Store(folder / "output").open()
    dataset = prepare(config, store, serial_pool(config.compute), Tally())
    record = {"run_id": "cards-1", "name": "cards", "started": "2026-01-01T00:00:00", "dataset": dataset.digest}
    store.publish_json("runs/cards-1/run.json", record)
    return dataset


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {**clean_environment(tmp_path), "COLUMNS": "80"}


def _said(env: dict[str, str], *arguments: str | Path, code: int = 0) -> str:
    done = mmcore("shards", *arguments, env=env)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 or done.stdout else done.stderr


def test_ls(cards: Path, env: dict[str, str]) -> None:
    said = _said(env, "ls", cards / "pipeline.yaml")
    dataset = read_dataset(Store(cards / "output"), _digest(cards))
    lines = said.splitlines()
    assert lines[0].split() == ["shard", "split", "samples", "size", "audio", "image", "text"]
    assert f"{len(dataset.shards)} in all" in said
    assert lines[len(dataset.shards) + 1].split()[-3:] == ["32", "40", "40"]
    assert "16,000" not in said
    assert "8,000 / 8,000 / 8,000" in said
    assert max(map(len, lines)) <= 80
    assert _said(env, "ls", cards / "output", "--split", "val").count("val") == len(dataset.of("val"))
    assert _said(env, "ls", cards / "output", "--dataset", _digest(cards)[:6]) == said


def test_show(cards: Path, env: dict[str, str], tmp_path: Path) -> None:
    said = _said(env, "show", cards / "output", "k.03", "--to", tmp_path / "dump")
    assert "k.03\nval · label odd" in said
    assert "text 3" in said
    assert "█" in said, "the outline of the sound"
    assert "shown in a terminal with colours" in said
    endings = {file.name.partition(".0")[2] or file.name for file in (tmp_path / "dump").iterdir()}
    assert {file.suffix for file in (tmp_path / "dump").iterdir()} >= {".png", ".txt"}
    assert len(endings) == 3
    assert "audio missing" in _said(env, "show", cards / "output", "k.05")


def test_show_in_a_terminal(cards: Path, env: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    command = [BIN / "mmcore", "shards", "show", cards / "output", "k.03"]
    subprocess.run(command, stdout=theirs, env={**env, "TERM": "xterm-256color"}, check=True)
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 65536):
            said += part
    except OSError:  # the end of a terminal
        pass
    assert said.decode().count("▀") == 16 * 8, "two rows of pixels a line"


def test_what_is_not_there(cards: Path, env: dict[str, str]) -> None:
    assert "no sample 'k.0' in 40. There are: k.0" in _said(env, "show", cards / "output", "k.0", code=2)
    assert "'bad' was set aside: missing-file" in _said(env, "show", cards / "output", "bad", code=2)
    assert "no finished data set" in _said(env, "ls", cards, code=2)
    assert "no split 'dev'" in _said(env, "ls", cards / "output", "--split", "dev", code=2)
    assert "0 data sets whose digest starts with 'xyz'" in _said(
        env, "ls", cards / "output", "--dataset", "xyz", code=2
    )


def test_verify_names_what_is_damaged_and_repair_has_it_made_again(tmp_path: Path, env: dict[str, str]) -> None:
    config = _make(tmp_path)
    dataset = _prepare(tmp_path, config)
    store = Store(tmp_path / "output")
    before = files_of(store)
    assert "40 samples" in _said(env, "verify", store.root)
    first, second, third = dataset.shards[:3]
    tar = Path(store.url(first.tar.path))
    key = parquet.read_table(store.url(first.index.path)).to_pylist()[2]
    _flip(tar, key["image.offset"] + 40)
    _flip(Path(store.url(second.tar.path)), 10)  # in the first header
    Path(store.url(third.tar.path)).unlink()
    said = _said(env, "verify", store.root, code=1)
    assert f"damaged {first.tar.path} (train)\n  image of {key['key']!r}: damaged: its checksum" in said
    assert "damaged in the header before it" in said
    assert f"{third.tar.path} is missing" in said
    assert f"3 of {len(dataset.shards)} shards are damaged" in said
    assert "They were removed" in _said(env, "verify", store.root, "--repair", code=1)
    assert _prepare(tmp_path, config).digest == dataset.digest
    assert files_of(store) == before
    _said(env, "verify", store.root)


def _flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


# webdataset leaves the tars it has read to the end open.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_export_tars(cards: Path, env: dict[str, str], tmp_path: Path) -> None:
    _said(env, "export", cards / "output", tmp_path / "new", "--samples", "10")
    names = sorted(file.name for file in (tmp_path / "new").iterdir())
    assert names == ["test-000000.tar", "test-000001.tar", "train-000000.tar", "train-000001.tar", *names[4:]]
    assert names[4:] == ["val-000000.tar", "val-000001.tar"]
    urls = [str(tmp_path / "new" / name) for name in names]
    found = {s["__key__"]: s for s in webdataset.WebDataset(urls, shardshuffle=False)}
    gc.collect()
    assert len(found) == 40
    assert json.loads(found["k%2E03"]["json"]) == {"key": "k.03", "label": "odd", **_extra(found["k%2E03"])}
    assert found["k%2E03"]["text.txt"] == b"text 3"


def _extra(sample: dict[str, bytes]) -> dict[str, object]:
    return {name: value for name, value in json.loads(sample["json"]).items() if name not in {"key", "label"}}


def test_export_parquet_and_folder(cards: Path, env: dict[str, str], tmp_path: Path) -> None:
    _said(env, "export", cards / "output", tmp_path / "table", "--to", "parquet")
    rows = parquet.read_table(tmp_path / "table").to_pylist()
    _said(env, "export", cards / "output", tmp_path / "files", "--to", "folder", "--split", "train")
    listed = [json.loads(line) for line in (tmp_path / "files" / "manifest.jsonl").read_text().splitlines()]
    assert len(rows) == 40
    assert {row["key"] for row in listed} == {row["key"] for row in rows if row["split"] == "train"}
    by_key = {row["key"]: row for row in rows}
    for row in listed:
        for name in ("image", "audio", "text"):
            data = by_key[row["key"]][name]
            assert ((tmp_path / "files" / row[name]).read_bytes() if name in row else None) == data
    assert (tmp_path / "files" / "train" / "even%2Fzero").is_dir()
    assert "is not empty" in _said(env, "export", cards / "output", tmp_path / "table", code=2)
    (tmp_path / "file").write_text("in the way")
    assert "cannot be written" in _said(env, "export", cards / "output", tmp_path / "file" / "new", code=2)
    assert "cannot be written" in _said(
        env, "show", cards / "output", "k.01", "--to", tmp_path / "file" / "new", code=2
    )
    assert "no format 'zip'" in _said(env, "export", cards / "output", tmp_path / "zip", "--to", "zip", code=2)


def _digest(cards: Path) -> str:
    found: str = Store(cards / "output").read_json("runs/cards-1/run.json")["dataset"]
    return found


def test_nothing_heavy_is_imported(cards: Path, env: dict[str, str]) -> None:
    code = """
import sys
import flows.cli
sys.argv[1:] = ["shards", "ls", sys.argv[1]]
try:
    flows.cli.main()
except SystemExit:
    print([m for m in ("torch", "prefect", "dask", "sklearn", "scipy") if m in sys.modules])
"""
    python = BIN / "python"
    done = subprocess.run([python, "-c", code, cards / "output"], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
