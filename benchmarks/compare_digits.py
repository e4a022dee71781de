"""Every classical method beside the networks on digits, five seeds: the leaderboard, its time, and modalities missing.

    python benchmarks/compare_digits.py ../shared/data/digits

Runs `mmcore compare` on the pictures, recordings and sentences of DATA and prints how long it took, each method's mean
accuracy on test, and the chosen method beside plain late fusion of the same encoders as further modalities are hidden.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

METHODS = [
    "concat",
    {"method": "concat", "head": "kernel"},
    {"method": "concat", "head": "tree"},
    {"method": "concat", "head": "network"},
    "late",
    {"method": "late", "combine": "mean"},
    {"method": "late", "combine": "learned"},
    {"method": "late", "combine": "stacking"},
    "multiplicative",
    {"method": "weighted", "weights": "fixed"},
    "weighted",
    {"method": "weighted", "weights": "gated"},
    "average-kernel",
    "easymkl",
    "lpmkl",
    "kernel-alignment",
    {"method": "cca", "grid": {"n_components": [8, 16, 32]}},
    "gcca",
    "pls",
    "kcca",
    "shared-factor",
    "autoencoder",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="where the run is kept; a temporary folder by default")
    arguments = parser.parse_args()
    config = yaml.safe_load((Path(__file__).parents[1] / "examples" / "digits.yaml").read_text())
    config["data"]["manifest"] = str(arguments.data.resolve() / "manifest.csv")
    config["data"]["modalities"]["audio"]["max_duration_s"] = 2.5
    config["fusion"]["methods"] = METHODS
    with tempfile.TemporaryDirectory(prefix="mmcore-benchmark-") as scratch:
        output = arguments.output or Path(scratch) / "store"
        config["output"] = str(output.resolve())
        file = Path(scratch) / "digits.yaml"
        file.write_text(yaml.safe_dump(config))
        env = {**os.environ, "PREFECT_HOME": str(Path(scratch) / "prefect")}
        start = time.perf_counter()
        command = [sys.executable, "-m", "flows.cli", "compare", str(file), "--seeds", str(arguments.seeds)]
        subprocess.run(command, env=env, check=True)
        print(f"{(time.perf_counter() - start) / 60:.1f} minutes")
        newest = max((output / "runs").iterdir(), key=lambda folder: folder.stat().st_mtime)
        print((newest / "leaderboard.csv").read_text())
        board = json.loads((newest / "run.json").read_text())["leaderboard"]
        print(*board["verdict"], sep="\n")


if __name__ == "__main__":
    main()
