"""Duplicates across splits, through the real command: seen, removed where asked, and never learned from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from pyarrow import parquet

from tests.flows.conftest import Server, mmcore

WORDS = {"even": "two four six eight ten twelve", "odd": "one three five seven nine eleven"}


def _write(folder: Path) -> Path:
    """120 texts; the first two of train are also in test, word for word."""
    lines = ["id,label,split,note"]
    for n in range(120):
        label, split = ("even", "odd")[n % 2], ("train", "train", "train", "val", "test", "test")[n // 2 % 6]
        lines.append(f"k{n:03d},{label},{split},{WORDS[label]} number {n}")
    lines[1] = lines[1].rsplit(",", 1)[0] + "," + lines[9].rsplit(",", 1)[1]
    lines[2] = lines[2].rsplit(",", 1)[0] + "," + lines[10].rsplit(",", 1)[1]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    note = {"kind": "text", "column": "note", "inline": True}
    config = {
        "data": {"manifest": "manifest.csv", "modalities": {"note": note}, "duplicates": {"near": False}},
        "features": {"note": {"encoder": "ngram"}},
        "fusion": {"methods": ["concat"]},
        "compute": {"dask": {"workers": 0}},
        "output": "output",
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(config))
    return folder / "pipeline.yaml"


def _newest(output: Path) -> dict[str, object]:
    file = max(output.glob("runs/*/run.json"), key=lambda one: one.stat().st_mtime_ns)
    return json.loads(file.read_text())


def test_what_test_has_too_is_shown_and_left_out(server: Server, tmp_path: Path) -> None:
    config, output = _write(tmp_path), tmp_path / "output"
    first = mmcore("run", config, env=server.env)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "train and test share 2" in first.stdout
    report = next(output.glob("runs/*/report/index.html")).read_text()
    assert "The same samples lie in several splits" in report

    remove = "data.duplicates.remove=across-splits"
    second = mmcore("run", config, remove, env=server.env)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "removed from train: duplicate-across-splits 2" in " ".join(second.stdout.split())
    record = _newest(output)
    dataset = json.loads((output / f"datasets/{record['dataset']}.json").read_text())
    assert dataset["removed"] == {"k000": "duplicate-across-splits", "k001": "duplicate-across-splits"}
    encoders = [json.loads(file.read_text()) for file in output.glob("encoders/*/receipt.json")]
    # The floor learns its frequencies from train, too.
    samples = sorted((one["recipe"]["name"], one["samples"]["train"]) for one in encoders if one["recipe"]["classes"])
    assert [count for _, count in samples] == [58, 60]
    (scores,) = {e["digest"] for e in record["evaluations"] if e["model"] == "concat"}
    assert parquet.read_table(output / f"evaluations/{scores}/predictions.parquet").num_rows == 40

    third = mmcore("plan", config, remove, env=server.env)
    assert re.search("Nothing to compute", third.stdout)
