"""Shards alone, with the real command: from a folder of class folders, without encoders or labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from mmcore.shards import open_dataset
from tests.flows.conftest import Server, mmcore


def _pictures(folder: Path) -> None:
    random = np.random.default_rng(0)
    for label in ("cats", "dogs"):
        (folder / label).mkdir(parents=True)
        for n in range(6):
            pixels = random.integers(0, 255, (40, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{n}.PNG")
            (folder / label / f"{n}.txt").write_text(f"{label} {n}")
    (folder / "cats" / "0.PNG").write_bytes(b"no picture")


def test_a_folder_becomes_shards(tmp_path: Path, server: Server) -> None:
    _pictures(tmp_path / "pets")
    config = {
        "name": "pets",
        "data": {
            "manifest": "pets",
            "split": {"ratios": {"train": 0.7, "val": 0.1, "test": 0.2}, "seed": 1},
            "modalities": {
                "image": {"kind": "image", "column": "image", "size": 32},
                "text": {"kind": "text", "column": "text"},
            },
            "max_rejected": 0.2,
        },
        "compute": {"dask": {"workers": 0}},
    }
    file = tmp_path / "pets.yaml"
    file.write_text(yaml.safe_dump(config))
    done = mmcore("prepare", file, env=server.env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "12 rows kept" in done.stdout
    (record,) = [json.loads(path.read_text()) for path in (tmp_path / "output" / "runs").glob("*/run.json")]
    dataset = json.loads((tmp_path / "output" / "datasets" / f"{record['dataset']}.json").read_text())
    assert [(reject["key"], reject["modality"], reject["code"]) for reject in dataset["rejects"]] == [
        ("cats_0", "image", "unknown-format")
    ]
    shards = open_dataset(tmp_path / "output")
    samples = {sample["__key__"]: sample for sample in shards.read(range(len(shards)))}
    assert len(samples) == 12
    assert (samples["dogs_3"]["text"], samples["dogs_3"]["label"]) == (b"dogs 3", "dogs")
    assert samples["cats_0"]["image"] is None
    again = mmcore("prepare", file, env=server.env)
    assert again.returncode == 0
    assert "reused" in again.stdout
    # What comes after the shards needs more.
    refused = mmcore("run", file, env=server.env)
    assert refused.returncode == 2
    assert "there is no encoder" in refused.stderr
    assert "mmcore prepare" in refused.stderr
