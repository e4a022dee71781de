"""Per-row shuffled reading of features beside a memory copy, and what a further sample costs the extract stage.

    python benchmarks/features_reading.py [--rows 1000000] [--dim 512] [--per-file 254] [--batch 1024]
    python benchmarks/features_reading.py --memory [--sizes 10000 100000]

Reading: float16 features in many Arrow files, mapped and in the page cache, all rows once in random order, batch by
batch, with 1 and 2 threads; beside it `np.copyto` of as many bytes by as many threads. Interleaved, the medians; the
ratio is that of the rates.

Memory: the extract stage alone over one-line texts that are in shards already, with two local Dask workers and an
encoder that learns nothing; each size in a process of its own. Peaks are the kernel's own (VmHWM of /proc, Linux).
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import psutil
from memory import peak_bytes

from mmcore.config import EncoderSettings, RunConfig
from mmcore.features.encoders.base import WHOLE, Encoded, Encoder

if TYPE_CHECKING:
    from mmcore.features import Features

ROUNDS = 7


# Reading


def write_features(folder: Path, rows: int, dim: int, per_file: int) -> Features:
    """Features of random float16 vectors, and their `Features`."""
    from mmcore.features import Features
    from mmcore.features.store import Made, Table, write_view
    from mmcore.records import EncoderEntry, ShardEntry
    from mmcore.storage import Store

    store, shards = Store(folder).open(), []
    for start in range(0, rows, per_file):
        size = min(per_file, rows - start)
        random = np.random.default_rng(start)
        vectors = random.integers(0, 15_000, (size, dim), dtype=np.int16).view(np.float16)
        table = Table([f"k{n:08d}" for n in range(start, start + size)], vectors, np.ones(size, np.bool_))
        write_view(store, "e", f"v{start}", table, Made("w"))
        shards.append(ShardEntry(f"v{start}", "train", size, {"image": f"v{start}"}, None))
    return Features(store, EncoderEntry("image", "e", "random", dim, False), shards, cache_bytes=1)


def together(jobs: Sequence[Callable[[], None]]) -> tuple[float, float]:
    """Seconds until all of these have ended, each in a thread of its own; and the CPU seconds of the threads."""
    cpu_s: list[float] = []

    def timed(job: Callable[[], None]) -> None:
        started = time.thread_time()
        job()
        cpu_s.append(time.thread_time() - started)

    began = time.perf_counter()
    threads = [threading.Thread(target=timed, args=[job]) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began, sum(cpu_s)


def reading(rows: int, dim: int, per_file: int, batch: int) -> None:
    with tempfile.TemporaryDirectory(prefix="mmcore-benchmark-") as folder:
        features = write_features(Path(folder), rows, dim, per_file)
        began = time.perf_counter()
        features.present  # noqa: B018 - opens every file
        print(
            f"{len(features.shards):,} files of {rows:,} x {dim} float16 opened and checked in "
            f"{time.perf_counter() - began:.1f} s"
        )
        source = features[:]
        target = np.empty_like(source)
        np.copyto(target, source)
        found: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for round_ in range(ROUNDS):
            order = np.random.default_rng(round_).permutation(rows)
            for threads in (1, 2):
                cuts = np.linspace(0, rows, threads + 1).astype(int).tolist()
                parts = list(itertools.pairwise(cuts))
                jobs = {
                    "read": [functools.partial(read, features, order[start:stop], batch) for start, stop in parts],
                    "copy": [
                        functools.partial(np.copyto, target[start:stop], source[start:stop]) for start, stop in parts
                    ],
                }
                for name, each in jobs.items():
                    found.setdefault((name, threads), []).append(together(each))
        for threads in (1, 2):
            show(source.nbytes, threads, found["read", threads], found["copy", threads])
        checked = np.random.default_rng(9).integers(0, rows, 5000)
        if not np.array_equal(features[checked].view(np.uint16), source[checked].view(np.uint16)):
            sys.exit("other rows were read")


def read(features: Features, rows: np.ndarray, batch: int) -> None:
    for start in range(0, len(rows), batch):
        features[rows[start : start + batch]]


def show(size_bytes: int, threads: int, reads: list[tuple[float, float]], copies: list[tuple[float, float]]) -> None:
    for number, kind in enumerate(("wall", "CPU")):
        read_s, copy_s = (statistics.median(each[number] for each in found) for found in (reads, copies))
        ratios = [copy[number] / read[number] for read, copy in zip(reads, copies, strict=True)]
        print(
            f"{threads} thread(s), {kind}: read {size_bytes / read_s / 1e9:.2f} GB/s, copy "
            f"{size_bytes / copy_s / 1e9:.2f} GB/s; ratio of medians {copy_s / read_s:.2f}, median ratio "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


# Memory


class BareSettings(EncoderSettings):
    """An encoder that learns nothing and costs next to nothing."""

    implementation: ClassVar[str] = "features_reading:BareEncoder"
    kinds: ClassVar[frozenset[str]] = frozenset({"text"})
    encoder: str = "bare"

    def dim(self, classes: int) -> int:
        return 16


class BareEncoder(Encoder):
    """The first characters of a text."""

    def encode(self, batch: Sequence[str], part: int = WHOLE) -> Encoded:
        return Encoded(np.array([[ord(letter) for letter in f"{text:<16}"[:16]] for text in batch], np.float32))


def config_of(folder: Path, workers: int) -> RunConfig:
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
    return config.model_copy(update={"features": {"text": BareSettings()}})


def prepare_texts(folder: Path, rows: int) -> None:
    """Shards of one-line texts, and a record that names their data set."""
    from mmcore.parallel import serial_pool
    from mmcore.progress import Silent
    from mmcore.shards.prepare import prepare
    from mmcore.storage import Store

    with (folder / "manifest.csv").open("w") as file:
        file.write("id,label,split,text\n")
        for n in range(rows):
            split = ("train", "train", "train", "val", "test")[n // 7 % 5]
            file.write(f"k{n:07d},{('odd', 'even')[n % 2]},{split},row {n}\n")
    config = config_of(folder, 0)
    prepare(config, Store(config.output).open(), serial_pool(config.compute), Silent())


def extract(folder: Path, rows: int, workers: int) -> dict[str, int]:
    """The extract stage over these texts; peaks of the driver and of the largest process below it."""
    from mmcore.features.extract import encode_modality
    from mmcore.parallel import open_pool
    from mmcore.progress import Silent
    from mmcore.shards.read import read_dataset
    from mmcore.storage import Store

    config = config_of(folder, workers)
    store = Store(config.output).open()
    (name,) = store.listing("datasets")
    dataset = read_dataset(store, name.removesuffix(".json"))
    peaks: dict[int, int] = {}
    done = threading.Event()
    before = peak_bytes(psutil.Process().pid)

    def watch() -> None:
        me = psutil.Process()
        while not done.wait(0.1):
            for process in me.children(recursive=True):
                peaks[process.pid] = max(peaks.get(process.pid, 0), peak_bytes(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with open_pool(config.compute) as pool:
            entry = encode_modality(config, dataset, "text", store, pool, Silent())
    finally:
        done.set()
        watcher.join()
    views = {shard.views["text"] for shard in dataset.shards}
    if sum(s.samples for s in dataset.shards) != rows or len(store.listing(f"features/{entry.digest}")) != 2 * len(
        views
    ):
        sys.exit("samples are missing")
    return {
        "driver": peak_bytes(psutil.Process().pid),
        "driver before the stage": before,
        "worker": max(peaks.values(), default=0),
    }


def memory(sizes: Sequence[int], workers: int) -> None:
    found = {}
    for rows in sizes:
        with tempfile.TemporaryDirectory(prefix="mmcore-benchmark-") as folder:
            for stage in ("prepare", "extract"):
                command = [sys.executable, __file__, "--workers", str(workers), "--one", stage, folder, str(rows)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    sys.exit(done.stdout + done.stderr)
        found[rows] = json.loads(done.stdout.splitlines()[-1])
        print(f"{rows:>9,} rows  " + "  ".join(f"{who} {peak / 2**20:,.1f} MiB" for who, peak in found[rows].items()))
    small, large = sizes
    for who in found[small]:
        each = (found[large][who] - found[small][who]) / (large - small)
        print(f"{who:<24} {each:8.0f} bytes per further sample")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--per-file", type=int, default=254)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--sizes", type=int, nargs=2, default=[10_000, 100_000], metavar="ROWS")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        stage, folder, rows = arguments.one
        if stage == "prepare":
            prepare_texts(Path(folder), int(rows))
        else:
            print(json.dumps(extract(Path(folder), int(rows), arguments.workers)))
    elif arguments.memory:
        memory(arguments.sizes, arguments.workers)
    else:
        reading(arguments.rows, arguments.dim, arguments.per_file, arguments.batch)


if __name__ == "__main__":
    main()
