"""What writing small members costs: mmcore's shard writer against webdataset's tar writer, in one process.

    python benchmarks/writing.py --samples 5000

Samples of four members (picture, sound, text, table; together about 1.5 kB) are in memory already. mmcore's time holds
the tar, two hashes per member, the index with facts and signatures, its Parquet file and the publishing of both;
webdataset's holds its tar alone. Rounds alternate; medians of CPU time.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import webdataset

from mmcore.modalities.base import Member
from mmcore.shards.cells import Found
from mmcore.shards.write import Kept, ShardWriter
from mmcore.storage import Store

SIZES = {"audio": ("wav", 700), "image": ("png", 500), "table": ("json", 200), "text": ("txt", 100)}
BODY = {"task": "classes", "extras": {}, "part_bytes": None}
SHARD = 256


@dataclass(frozen=True)
class _Kind:
    extension: str


@dataclass(frozen=True)
class _Reader:
    """What the writer asks a reader of cells for: how members end, and whether there are several."""

    modalities: dict[str, _Kind] = field(default_factory=lambda: {name: _Kind(end) for name, (end, _) in SIZES.items()})
    several: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(SIZES, False))


def make_samples(count: int) -> list[Kept]:
    rng = random.Random(0)
    found = []
    for number in range(count):
        cells = {
            name: Found(
                Member((rng.randbytes(size),), {"size_bytes": size}, rng.randbytes(8)),
                f"{name}/{number:06d}.{extension}",
                f"{rng.getrandbits(128):032x}",
            )
            for name, (extension, size) in SIZES.items()
        }
        found.append(Kept(f"k{number:06d}", ("a", "b")[number % 2], cells))
    return found


def ours(samples: list[Kept], folder: Path) -> None:
    store, reader = Store(folder / "store").open(), _Reader()
    for start in range(0, len(samples), SHARD):
        with store.scratch() as scratch, ShardWriter(scratch, BODY, reader) as writer:
            for sample in samples[start : start + SHARD]:
                writer.add(sample)
            for part in writer.finish():
                part.published(store)


def theirs(samples: list[Kept], folder: Path) -> None:
    for start in range(0, len(samples), SHARD):
        with webdataset.TarWriter(str(folder / f"{start}.tar")) as writer:
            for sample in samples[start : start + SHARD]:
                files = {f"{name}.{SIZES[name][0]}": cell.member.data for name, cell in sample.cells.items()}
                writer.write({"__key__": sample.key, **files})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=5_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    samples = make_samples(arguments.samples)
    times: dict[str, list[float]] = {"mmcore": [], "webdataset": []}
    for _ in range(arguments.repeats):
        for name, write in (("mmcore", ours), ("webdataset", theirs)):
            with tempfile.TemporaryDirectory(prefix="mmcore-benchmark-") as folder:
                start = time.process_time()
                write(samples, Path(folder))
                times[name].append((time.process_time() - start) / len(samples) * 1e6)
    for name, values in times.items():
        print(
            f"{name:<11} {statistics.median(values):7.1f} µs CPU per sample  ({min(values):.1f} to {max(values):.1f})"
        )
    ratio = statistics.median(times["webdataset"]) / statistics.median(times["mmcore"])
    print(f"webdataset / mmcore {ratio:.1f}")


if __name__ == "__main__":
    main()
