"""The whole pipeline on a digits data set with several seeds: how good, how long, how much of it is luck.

Each seed trains its own encoders and its own fusion models; the fusion method is chosen by validation log loss alone.
It is compared, row by row of the test split, with plain late fusion of the same features in the same run. Accuracies of
single modalities are on the rows that have them.

    python benchmarks/digits.py ../shared/data/digits --seeds 5

The folder needs a manifest.csv with the columns id, label, split, image, audio and text.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

CONFIG = {
    "name": "digits",
    "data": {
        "pairing": "class",
        "modalities": {
            "image": {"kind": "image", "column": "image", "size": 28, "mode": "grey", "background": [0, 0, 0]},
            "audio": {"kind": "audio", "column": "audio", "sample_rate_hz": 8000, "max_duration_s": 2.5},
            "text": {"kind": "text", "column": "text", "max_chars": 500},
        },
    },
    "features": {"image": {"encoder": "cnn"}, "audio": {"encoder": "logmel-cnn"}, "text": {"encoder": "ngram"}},
    "fusion": {"methods": ["concat", "weighted", "cca", "autoencoder"], "metric": "log_loss"},
}


def run_once(data: Path, output: Path, seed: int, env: dict[str, str]) -> dict:
    """One run's record."""
    file = output / "pipeline.yaml"
    file.write_text(yaml.safe_dump({**CONFIG, "data": {**CONFIG["data"], "manifest": str(data / "manifest.csv")}}))
    overrides = [f"features.{name}.seed={seed}" for name in CONFIG["features"]] + [f"fusion.seed={seed}"]
    command = [Path(sys.executable).parent / "mmcore", "run", file, f"output={output / 'store'}", *overrides]
    start = time.perf_counter()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    newest = max((output / "store" / "runs").iterdir(), key=lambda folder: folder.stat().st_mtime)
    return {**json.loads((newest / "run.json").read_text()), "wall": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    chosen, singles, walls = [], {"image": [], "audio": [], "text": []}, []
    with tempfile.TemporaryDirectory(prefix="mmcore-benchmark-") as folder:
        env = {**os.environ, "PREFECT_HOME": str(Path(folder) / "prefect")}
        for seed in range(arguments.seeds):
            record = run_once(arguments.data.resolve(), Path(folder), seed, env)
            board = record["leaderboard"]
            rows = {row["model"]: row for row in board["rows"]}
            best = rows[board["chosen"]]
            pair = next(
                (one for one in board["comparisons"] if (one["model"], one["against"]) == (best["model"], "late")), None
            )
            against = f"{pair['difference']:+.3f} ({pair['low']:+.3f} to {pair['high']:+.3f})" if pair else "none"
            chosen.append(best["accuracy"])
            walls.append(record["wall"])
            for name, values in singles.items():
                values.append(rows[f"only-{name}"]["alone"][name])
            print(
                f"seed {seed}  chosen {best['model']:<12} {best['accuracy']:.3f}   "
                f"late {rows['late']['accuracy']:.3f}   difference {against}   "
                + "   ".join(f"{name} {values[-1]:.3f}" for name, values in singles.items())
                + "   "
                + " ".join(f"{name} {row['accuracy']:.3f}" for name, row in rows.items() if not row["baseline"])
                + f"   {record['wall']:.0f} s",
                flush=True,
            )
    print(f"median  chosen {statistics.median(chosen):.3f}   ", end="")
    print("   ".join(f"{name} {statistics.median(values):.3f}" for name, values in singles.items()), end="")
    print(f"   {statistics.median(walls):.0f} s a run")


if __name__ == "__main__":
    main()
