"""The encoders trained here on a digits data set: how often their scores are right, on which rows, in what time.

Accuracies are those of the scores alone, without a fusion model, on rows that have the modality; `held out` is of rows
of train by networks that did not learn from them (with `cross_fit`).

    python benchmarks/trained_encoders.py ../shared/data/digits cnn logmel-cnn ngram --seeds 5
    python benchmarks/trained_encoders.py ../shared/data/digits logmel-cnn --set cross_fit=3 --group speaker

The folder needs a manifest.csv with the columns id, label, split, image, audio and text, and for `--group` a
provenance.csv with the columns id and the group's.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from mmcore.config import RunConfig
from mmcore.features.extract import encode_modality
from mmcore.features.store import read_view
from mmcore.parallel import serial_pool
from mmcore.progress import Silent
from mmcore.shards.prepare import prepare
from mmcore.shards.read import read_index
from mmcore.storage import Store

MODALITIES = {
    "image": {"kind": "image", "column": "image", "size": 28, "mode": "grey", "background": [0, 0, 0]},
    "audio": {"kind": "audio", "column": "audio", "sample_rate_hz": 8000, "max_duration_s": 2.5},
    "text": {"kind": "text", "column": "text", "max_chars": 500},
}
READS = {"cnn": "image", "resnet": "image", "logmel-cnn": "audio", "logmel-crnn": "audio"}


def grouped(data: Path, output: str, group: str) -> Path:
    """A copy of the manifest with another column from the provenance."""
    with (data / "provenance.csv").open(newline="") as file:
        groups = {row["id"]: row[group] for row in csv.DictReader(file)}
    with (data / "manifest.csv").open(newline="") as file:
        rows = [{**row, "group": groups[row["id"]]} for row in csv.DictReader(file)]
    made = Path(output) / "grouped.csv"
    with made.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return made


def config_of(data: Path, output: str, encoder: str, settings: dict, group: str | None) -> RunConfig:
    modality = READS.get(encoder, "text")
    manifest = grouped(data, output, group) if group else data / "manifest.csv"
    return RunConfig.model_validate(
        {
            "data": {
                "manifest": str(manifest),
                "root": str(data),
                "columns": {"group": "group"} if group else {},
                "pairing": "class",
                "modalities": {modality: MODALITIES[modality]},
                "max_rejected": "10%",
            },
            "features": {modality: {"encoder": encoder, **settings}},
            "compute": {"device": "cpu", "dask": {"workers": 0}},
            "output": output,
        }
    )


def measured(data: Path, output: str, encoder: str, settings: dict, group: str | None) -> dict[str, float]:
    """Accuracies and seconds of one training."""
    config = config_of(data, output, encoder, settings, group)
    store, pool = Store(output).open(), serial_pool(config.compute)
    dataset = prepare(config, store, pool, Silent())
    started, cpu = time.perf_counter(), time.process_time()
    modality = next(iter(config.features))
    entry = encode_modality(config, dataset, modality, store, pool, Silent())
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    scores = store.read_json(f"encoders/{entry.digest}/receipt.json")["scores"]
    right = []
    for shard in dataset.of("test"):
        view = read_view(store, entry, shard.views[modality])
        labels = np.array(read_index(store, shard)["label"].to_pylist())
        found = np.array(sorted(dataset.classes))[view.vectors[:, : len(dataset.classes)].argmax(axis=1)]
        right.append((found == labels)[view.present])
    found = {"train": scores["train"], "held out": scores.get("train_held_out"), "val": scores["val"]}
    accuracies = {name: one["accuracy"] for name, one in found.items() if one}
    return {**accuracies, "test": float(np.concatenate(right).mean()), "s": seconds, "CPU s": cpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("encoders", nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of all of them")
    parser.add_argument("--group", help="a column of provenance.csv whose rows are held out together")
    arguments = parser.parse_args()
    pairs = [one.partition("=") for one in arguments.set]
    settings = {key: json.loads(value) for key, _, value in pairs}
    with tempfile.TemporaryDirectory(prefix="mmcore-benchmark-") as output:
        for encoder in arguments.encoders:
            runs = []
            for seed in range(arguments.seeds):
                runs.append(
                    measured(arguments.data.resolve(), output, encoder, {**settings, "seed": seed}, arguments.group)
                )
                words = "   ".join(f"{name} {value:.3f}" for name, value in runs[-1].items())
                print(f"{encoder:<18} seed {seed}   {words}", flush=True)
            medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            print(f"{encoder:<18} median   " + "   ".join(f"{name} {value:.3f}" for name, value in medians.items()))


if __name__ == "__main__":
    main()
