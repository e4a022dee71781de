"""How fast samples come out of shards, beside other readers over the same payloads.

    python benchmarks/reading.py [--samples 3000] [--tiny 20000] [--with energon=PYTHON ...]

Two sets: 98 kB samples of three members (picture, sound, text) and tiny ones of four (1.5 kB). Each reader runs in a
process of its own over its own format, made from the same payloads (webdataset, Energon, Hugging Face and mmcore read
the same tars), delivers every member as bytes, has a byte of each of their pages touched, and is checked for the number
of samples and bytes. Page cache warm, one process, no decoding; the best of four epochs. mmcore verifies all checksums,
the others none. `--with NAME=PYTHON` names the interpreter that a reader is installed
in; readers that cannot be imported are said and left out.
"""

from __future__ import annotations

import argparse
import functools
import glob
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

BIG = {"image.jpg": 33_700, "audio.pcm": 64_044, "text.txt": 350}
TINY = {"image.png": 500, "audio.pcm": 900, "text.txt": 100, "digit.cls": 1}
PER_SHARD = 500
EPOCHS = 4
BATCH = {"image.jpg": 64, "image.png": 256}
"""By a set's first member."""
READERS = ("mmcore", "mmcore_shards", "webdataset", "litdata", "mds", "energon", "huggingface")


def payload(sizes: dict[str, int], number: int) -> dict[str, bytes]:
    random = np.random.default_rng(number)
    # Texts and classes have to be such for readers that decode them.
    return {
        name: b"7" * size if name.endswith((".txt", ".cls")) else random.bytes(size) for name, size in sizes.items()
    }


# Making each reader's own format


def make_tars(folder: Path, sizes: dict[str, int], samples: int) -> None:
    from mmcore.shards.tar import TarWriter

    for start in range(0, samples, PER_SHARD):
        with (folder / f"train-{start // PER_SHARD:06d}.tar").open("wb") as file:
            tar = TarWriter(file)
            for number in range(start, min(samples, start + PER_SHARD)):
                for name, data in payload(sizes, number).items():
                    tar.add(f"s{number:07d}.{name}", data)
            tar.finish()


def make_litdata(folder: Path, sizes: dict[str, int], samples: int) -> None:
    from litdata import optimize

    optimize(functools.partial(payload, sizes), list(range(samples)), str(folder), chunk_bytes="64MB", num_workers=1)


def make_mds(folder: Path, sizes: dict[str, int], samples: int) -> None:
    without_torchvision()
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns=dict.fromkeys(sizes, "bytes"), size_limit=1 << 26) as writer:
        for number in range(samples):
            writer.write(payload(sizes, number))


def make_energon(folder: Path, sizes: dict[str, int], samples: int) -> None:
    make_tars(folder, sizes, samples)
    command = [
        Path(sys.executable).parent / "energon",
        "prepare",
        folder,
        "--non-interactive",
        "--split-ratio",
        "1,0,0",
    ]
    subprocess.run([*command, "--sample-type", "CrudeWebdataset"], check=True, capture_output=True)


MAKERS: dict[str, Callable[[Path, dict[str, int], int], None]] = {
    "litdata": make_litdata,
    "mds": make_mds,
    "energon": make_energon,
}


# Reading: each gives the members of an epoch, sample by sample

Epoch = Callable[[], Iterator[Iterable[bytes]]]


def read_mmcore(folder: Path, names: list[str], shuffled: bool | str) -> Epoch:
    from mmcore.shards import ShardStream, open_tars

    started = time.process_time()
    shards = open_tars(f"{folder}/*.tar")
    print(f"index of {len(shards):,} samples: {time.process_time() - started:.3f} CPU s", file=sys.stderr)
    stream = ShardStream(shards, BATCH[names[0]], shuffle=shuffled)
    return lambda: ([sample[name] for name in names] for batch in stream for sample in batch)


def read_mmcore_shards(folder: Path, names: list[str], shuffled: bool) -> Epoch:
    """Shuffled as litdata shuffles: shards, and samples within a few of them."""
    return read_mmcore(folder, names, "shards" if shuffled else False)


def read_webdataset(folder: Path, names: list[str], shuffled: bool) -> Epoch:
    import webdataset

    dataset = webdataset.WebDataset(sorted(glob.glob(f"{folder}/*.tar")), shardshuffle=100 if shuffled else False)
    dataset = dataset.shuffle(1000) if shuffled else dataset
    return lambda: ([sample[name] for name in names] for sample in dataset)


def read_litdata(folder: Path, names: list[str], shuffled: bool) -> Epoch:
    from litdata import StreamingDataset

    dataset = StreamingDataset(str(folder), shuffle=shuffled, drop_last=False)
    return lambda: ([sample[name] for name in names] for sample in dataset)


def read_mds(folder: Path, names: list[str], shuffled: bool) -> Epoch:
    without_torchvision()
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    dataset = StreamingDataset(local=str(folder), shuffle=shuffled, batch_size=BATCH[names[0]])
    return lambda: ([sample[name] for name in names] for sample in dataset)


def read_energon(folder: Path, names: list[str], shuffled: bool) -> Epoch:
    from megatron.energon import (
        Cooker,
        DefaultTaskEncoder,
        WorkerConfig,
        get_savable_loader,
        get_train_dataset,
        stateless,
    )

    @stateless
    def cook(sample: dict[str, Any]) -> dict[str, Any]:
        return sample

    class Raw(DefaultTaskEncoder):
        cookers = (Cooker(cook),)
        decoder = None

    dataset = get_train_dataset(
        str(folder),
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=0),
        batch_size=None,
        shuffle_buffer_size=1000 if shuffled else None,
        max_samples_per_sequence=None,
        task_encoder=Raw(),
        repeat=False,
    )
    return lambda: ([sample[name] for name in names] for sample in get_savable_loader(dataset))


def read_huggingface(folder: Path, names: list[str], shuffled: bool) -> Epoch:
    from datasets import load_dataset

    files = sorted(glob.glob(f"{folder}/*.tar"))
    dataset = load_dataset("webdataset", data_files=files, streaming=True, split="train").decode(False)
    dataset = dataset.shuffle(buffer_size=1000) if shuffled else dataset

    def members(sample: dict[str, Any]) -> list[bytes]:
        found = (sample[name] for name in names)
        # Pictures and sound come with the path that they had, texts and classes decoded.
        return [v["bytes"] if isinstance(v, dict) else v if isinstance(v, bytes) else str(v).encode() for v in found]

    return lambda: map(members, dataset)


def without_torchvision() -> None:
    """MosaicML imports torchvision, which this does not use and which may be built for another torch."""
    names = ("torchvision", "torchvision.datasets", "torchvision.datasets.folder", "torchvision.transforms")
    for name in (*names, "torchvision.transforms.functional"):
        module = types.ModuleType(name)
        module.__spec__ = importlib.util.spec_from_loader(name, None)
        for used in ("VisionDataset", "ImageFolder", "default_loader", "to_tensor"):
            setattr(module, used, object)
        sys.modules[name] = module


def measure(reader: str, folder: Path, sizes: dict[str, int], samples: int, shuffled: bool) -> dict[str, float]:
    """Best wall and CPU time of an epoch. Raises ValueError where samples or bytes are not those that were written."""
    epoch = globals()[f"read_{reader}"](folder, list(sizes), shuffled)
    walls, cpus = [], []
    for _ in range(EPOCHS):
        wall, cpu, count, size, touched = time.perf_counter(), time.process_time(), 0, 0, 0
        for members in epoch():
            count += 1
            for data in members:
                size += len(data)
                touched += len(data[::4096])
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
        if count != samples or (reader != "huggingface" and size != samples * sum(sizes.values())):
            raise ValueError(f"{reader}: {count:,} samples, {size:,} bytes")
    return {"wall": samples / min(walls), "cpu": samples / min(cpus)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--tiny", type=int, default=20_000)
    parser.add_argument("--with", dest="pythons", action="append", default=[], metavar="READER=PYTHON")
    parser.add_argument("--only", nargs="*", default=READERS, choices=READERS)
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        task, reader, folder, which, samples = arguments.one
        sizes = BIG if which == "big" else TINY
        if task == "make":
            MAKERS.get(reader, make_tars)(Path(folder), sizes, int(samples))
        else:
            print(json.dumps(measure(reader, Path(folder), sizes, int(samples), task == "shuffled")))
        return
    pythons = dict(pair.split("=", 1) for pair in arguments.pythons)
    with tempfile.TemporaryDirectory(prefix="reading-") as folder:
        for which, samples in (("big", arguments.samples), ("tiny", arguments.tiny)):
            compare(Path(folder), which, samples, arguments.only, pythons)


def compare(folder: Path, which: str, samples: int, readers: Iterable[str], pythons: dict[str, str]) -> None:
    size = sum((BIG if which == "big" else TINY).values())
    print(f"\n{samples:,} samples of {size:,} bytes; samples/s by wall (CPU) time, times webdataset's by wall")
    rates: dict[str, dict[str, dict[str, float]]] = {}
    for reader in readers:
        own = folder / which / (reader if reader in MAKERS else "tars")
        python = pythons.get(reader, sys.executable)
        if not own.exists():
            own.mkdir(parents=True)
            made = one(python, "make", reader, own, which, samples)
            if isinstance(made, str):
                print(f"{reader:12s} left out: {made}")
                continue
        rates[reader] = {}
        for task in ("in-order", "shuffled"):
            found = one(python, task, reader, own, which, samples)
            if isinstance(found, str):
                print(f"{reader:12s} {task} left out: {found}")
            else:
                rates[reader][task] = found
    for reader, found in rates.items():
        cells = []
        for task, rate in found.items():
            base = rates.get("webdataset", {}).get(task)
            ratio = f" {rate['wall'] / base['wall']:5.1f}x" if base else ""
            cells.append(f"{task} {rate['wall']:9,.0f} ({rate['cpu']:9,.0f}){ratio}")
        print(f"{reader:13s} " + "   ".join(cells))


def one(  # noqa: PLR0917
    python: str, task: str, reader: str, folder: Path, which: str, samples: int
) -> dict[str, float] | str:
    """What a reader's own process measured, or the last line of why it could not."""
    command = [python, __file__, "--one", task, reader, str(folder), which, str(samples)]
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}, check=False)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no word"])[-1][:160]
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {}


if __name__ == "__main__":
    main()
