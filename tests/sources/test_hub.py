"""Hugging Face data sets by name, through their own library: what it makes is read, and nothing that it decodes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mmcore.config import RunConfig
from mmcore.errors import SourceError
from mmcore.parallel import serial_pool
from mmcore.progress import Silent
from mmcore.shards import open_dataset
from mmcore.shards.prepare import prepare
from mmcore.sources.hub import is_named
from mmcore.sources.manifest import Manifest, read_manifest
from mmcore.storage import Store

datasets = pytest.importorskip("datasets", reason="install mmcore[huggingface]")

SPLITS = {"train": "train", "validation": "val", "test": "test"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _picture(file: Path, number: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.linear_gradient("L").rotate(30 * number).convert("RGB").resize((20, 20)).save(file)


@pytest.fixture
def parquet_set(tmp_path: Path) -> Path:
    """As most on the Hub are: Parquet files by split, with pictures' bytes in them, and classes by number."""
    folder = tmp_path / "birds-test-set"
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["owl", "wren"]),
            "note": datasets.Value("string"),
        }
    )
    for split in SPLITS:
        rows = []
        for number in range(4):
            file = tmp_path / "raw" / f"{split}{number}.png"
            _picture(file, number)
            rows.append(
                {
                    "image": {"bytes": file.read_bytes(), "path": file.name},
                    "label": number % 2,
                    "note": f"{split} {number}",
                }
            )
        made = datasets.Dataset.from_list(rows, features=features)
        folder.mkdir(exist_ok=True)
        made.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return folder


def _config(manifest: str, output: Path, **data: object) -> RunConfig:
    modalities = {"image": {"kind": "image", "column": "image", "size": 16}}
    values = {"manifest": manifest, "modalities": modalities, "columns": {"key": None}, "max_rejected": 1.0, **data}
    return RunConfig.model_validate({"data": values, "output": str(output), "compute": {"dask": {"workers": 0}}})


def _manifest(manifest: str, **data: object) -> Manifest:
    return read_manifest(_config(manifest, Path("output"), **data).data, learnable=False)


def test_what_is_a_name() -> None:
    assert is_named("hf://user/name")
    assert is_named("hf:///data/folder")
    assert not is_named("hf://datasets/user/name/train.parquet")
    assert not is_named("s3://bucket/rows.csv")


def test_a_data_set_by_name_is_prepared_like_any_other(parquet_set: Path, tmp_path: Path) -> None:
    config = _config(f"hf://{parquet_set}", tmp_path / "output")
    made = prepare(config, Store(tmp_path / "output").open(), serial_pool(config.compute), Silent())
    assert made.rejects == ()
    assert {split: counts["samples"] for split, counts in made.facts["splits"].items()} == dict.fromkeys(
        SPLITS.values(), 4
    )
    assert made.classes == ("owl", "wren")
    shards = open_dataset(tmp_path / "output", dataset=made.digest)
    assert all(sample["image"][:4] == b"\x89PNG" for sample in shards.read(range(len(shards))))
    again = prepare(config, Store(tmp_path / "output"), serial_pool(config.compute), Silent())
    assert again.digest == made.digest


def test_splits_are_those_of_the_data_set_whatever_it_is_called(parquet_set: Path) -> None:
    table = _manifest(f"hf://{parquet_set}").table
    assert sorted(set(table["split"].to_pylist())) == ["test", "train", "val"]
    for key, split in zip(table["key"].to_pylist(), table["split"].to_pylist(), strict=True):
        assert SPLITS[key.partition("-")[0]] == split
    divided = _manifest(f"hf://{parquet_set}", split={"ratios": {"train": 1, "test": 1}}).table
    assert set(divided["split"].to_pylist()) == {"train", "test"}


def test_a_configuration_is_named_after_a_colon(tmp_path: Path) -> None:
    folder = tmp_path / "several"
    for config in ("small", "large"):
        (folder / config).mkdir(parents=True)
        (folder / config / "train.csv").write_text(f"label,image\na,{config}.png\n")
    names = "".join(f"- config_name: {name}\n  data_files: {name}/train.csv\n" for name in ("small", "large"))
    (folder / "README.md").write_text(f"---\nconfigs:\n{names}---\n")
    assert _manifest(f"hf://{folder}:large").table["media.image"].to_pylist() == ["large.png"]
    with pytest.raises(SourceError, match=r"(?s)cannot be loaded .*Name one of its configurations"):
        _manifest(f"hf://{folder}:medium")


def test_pictures_beside_the_tables_are_taken_in(tmp_path: Path, cache: Path) -> None:
    """The library's Arrow files name them only."""
    folder = tmp_path / "pictures"
    for number, (split, label) in enumerate([("train", "a"), ("train", "b"), ("test", "a"), ("test", "b")]):
        _picture(folder / split / label / f"{number}.png", number)
    config = _config(f"hf://{folder}", tmp_path / "output", columns={"key": None, "label": None})
    made = prepare(config, Store(tmp_path / "output").open(), serial_pool(config.compute), Silent())
    assert (made.rejects, made.rows) == ((), 4)
    assert list(cache.rglob("mmcore-train/*.arrow"))
    again = prepare(config, Store(tmp_path / "output"), serial_pool(config.compute), Silent())
    assert again.digest == made.digest


def test_files_outside_of_a_data_set_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    _picture(secret, 1)
    folder = tmp_path / "foul"
    folder.mkdir()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    rows = [{"image": {"bytes": None, "path": str(secret)}, "label": "a"}]
    table = datasets.Dataset.from_list(rows, features=features).data.table
    from pyarrow import parquet

    parquet.write_table(table, folder / "train.parquet")
    with pytest.raises(SourceError, match="secret.png', which is no file of it"):
        _manifest(f"hf://{folder}")


def test_what_cannot_be_had_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match=r"hf:///nowhere/at/all: cannot be loaded .*Check the name"):
        _manifest("hf:///nowhere/at/all")
    with pytest.raises(SourceError, match="is no name of a data set"):
        _manifest("hf://")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SourceError, match=r"pip install 'mmcore\[huggingface\]'"):
        _manifest("hf://user/name")


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path) -> None:
    code = """if True:
        from mmcore.errors import SourceError
        from mmcore.sources.hub import named_files
        try:
            named_files("hf://nobody/nothing")
        except SourceError as error:
            print(error)
    """
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "hf://nobody/nothing: cannot be loaded" in done.stdout
    assert "Without a network, save it elsewhere with save_to_disk" in done.stdout
    assert len(done.stdout.splitlines()) == 1
