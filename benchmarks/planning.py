"""What it takes to plan the shards of a large manifest, beside reading it with pyarrow alone.

    python benchmarks/planning.py [--rows 1000000] [--format csv|parquet]

Rows have a key, a label, a split and three references: two paths whose files are not there (so that looking for them is
one cheap question each, timed apart) and a text. Aims for 1,000,000 rows: 20 s beside the file checks, 1 GiB.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np


def make(file: Path, rows: int) -> None:
    import pyarrow as pa
    from pyarrow import csv, parquet

    numbers = np.arange(rows)
    names = [f"k{number:08d}" for number in numbers]
    table = pa.table(
        {
            "id": names,
            "label": np.array(["cat", "dog", "cow"])[numbers % 3],
            "split": np.array(["train"] * 8 + ["val", "test"])[numbers % 10],
            "image": [f"images/{name[:4]}/{name}.jpg" for name in names],
            "audio": [f"sounds/{name[:4]}/{name}.wav" for name in names],
            "text": [f"what number {number} is about, in a few words" for number in numbers],
        }
    )
    (csv.write_csv if file.suffix == ".csv" else parquet.write_table)(table, file)


def plan_here(file: str) -> None:
    """Plan in this process; seconds and the most memory, as JSON."""
    from mmcore.config import RunConfig
    from mmcore.shards import plan
    from mmcore.storage import Store

    modalities = {
        "image": {"kind": "image", "column": "image"},
        "audio": {"kind": "audio", "column": "audio"},
        "text": {"kind": "text", "column": "text", "inline": True},
    }
    with tempfile.TemporaryDirectory() as output:
        config = RunConfig.model_validate({"data": {"manifest": file, "modalities": modalities}, "output": output})
        store, checks_s, real = Store(output).open(), 0.0, plan.fingerprints

        def timed(*arguments: object) -> list[str | None]:
            nonlocal checks_s
            started = time.perf_counter()
            found = real(*arguments)  # type: ignore[arg-type]
            checks_s += time.perf_counter() - started
            return found

        started = time.perf_counter()
        with mock.patch.object(plan, "fingerprints", timed):
            made = plan.plan_shards(config, store)
        took_s = time.perf_counter() - started
    most_kib = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]
    print(
        json.dumps({"plan_s": took_s - checks_s, "checks_s": checks_s, "mib": most_kib / 1024, "n": len(made.recipes)})
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--format", choices=["csv", "parquet"], default="csv")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        plan_here(given.here)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"manifest.{given.format}")
        make(file, given.rows)
        reading = "from pyarrow import csv, parquet; import sys; " + (
            "csv.read_csv(sys.argv[1])" if given.format == "csv" else "parquet.read_table(sys.argv[1])"
        )
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", reading, file], check=True)
        floor_s = time.perf_counter() - started
        done = subprocess.run(
            [sys.executable, __file__, "--here", str(file)], check=True, capture_output=True, text=True
        )
        found = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{given.rows:,} rows of {given.format}: {found['n']:,} shards planned in {found['plan_s']:.1f} s beside "
        f"{found['checks_s']:.1f} s of file checks, {found['mib']:,.0f} MiB; reading alone {floor_s:.1f} s"
    )


if __name__ == "__main__":
    main()
