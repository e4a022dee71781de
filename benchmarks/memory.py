"""How much memory a run takes for each further sample, in the driver and in its Dask workers.

    python benchmarks/memory.py --sizes 10000 100000

Each size runs in a process of its own: prepare with two local Dask workers over one-line texts. Peaks are the kernel's
own (VmHWM of /proc, so Linux only); the cost per sample is
the difference of the peaks over that of the sizes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil

WORKERS = 2


def peak_bytes(pid: int) -> int:
    """The largest resident size a process ever had; 0 where it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def run(folder: Path, rows: int, workers: int) -> dict[str, int]:
    """Prepare `rows` rows; peaks of the driver and of the largest process below it."""
    from mmcore.config import RunConfig
    from mmcore.parallel import open_pool
    from mmcore.progress import Silent
    from mmcore.shards.prepare import prepare
    from mmcore.storage import Store

    with (folder / "manifest.csv").open("w") as file:
        file.write("id,label,split,text\n")
        for n in range(rows):
            split = ("train", "train", "train", "val", "test")[n // 7 % 5]
            file.write(f"k{n:07d},{('odd', 'even')[n % 2]},{split},row {n}\n")
    config = RunConfig.model_validate(
        {
            "data": {
                "manifest": str(folder / "manifest.csv"),
                "modalities": {"text": {"kind": "text", "column": "text", "inline": True}},
            },
            "compute": {"dask": {"workers": workers}},
            "output": str(folder / "output"),
        }
    )
    peaks: dict[int, int] = {}
    done = threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not done.wait(0.1):
            for process in me.children(recursive=True):
                peaks[process.pid] = max(peaks.get(process.pid, 0), peak_bytes(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with open_pool(config.compute) as pool:
            dataset = prepare(config, Store(config.output).open(), pool, Silent())
    finally:
        done.set()
        watcher.join()
    driver = peak_bytes(psutil.Process().pid)
    if dataset.rows != rows or sum(entry.samples for entry in dataset.shards) != rows:
        sys.exit("samples are missing")
    return {"driver": driver, "worker": max(peaks.values(), default=0), "processes": len(peaks)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs=2, default=[10_000, 100_000], metavar="ROWS")
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(run(Path(arguments.one[0]), int(arguments.one[1]), arguments.workers)))
        return
    found = {}
    for rows in arguments.sizes:
        with tempfile.TemporaryDirectory(prefix="mmcore-benchmark-") as folder:
            command = [sys.executable, __file__, "--workers", str(arguments.workers), "--one", folder, str(rows)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        found[rows] = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{rows:>9,} rows  "
            + "  ".join(f"{who} {peak / 2**20:,.1f} MiB" for who, peak in found[rows].items() if who != "processes")
            + f"  ({found[rows]['processes']} child processes)",
            flush=True,
        )
    small, large = arguments.sizes
    for who in ("driver", "worker"):
        each = (found[large][who] - found[small][who]) / (large - small)
        print(f"{who:<7} {each:8.0f} bytes per further sample")


if __name__ == "__main__":
    main()
