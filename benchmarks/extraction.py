"""Features out of shards with small encoders on the CPU: against the bare work, and against a plain loop.

    python benchmarks/extraction.py --samples 20000 --runs 5

Pictures of 28 x 28 (PNG) and sounds of half a second (16-bit WAV, 8 kHz) are made and prepared once, and an encoder
is trained for one epoch. Then, in turn, in one process each with one torch thread and the same batch of 256:

- `bare`: the stored members, already in memory, decoded, made ready and sent through the network; nothing else.
- `mmcore`: shards read and verified, encoded, and written as features with their receipts.
- `plain`: webdataset over the same tars into a DataLoader with as many workers as cores, the same decoding and network,
  the vectors kept in memory. `mmcore x2` is what a run does on these cores: two Dask workers.

CPU seconds are the kernel's, of the process and its children. Ratios are of medians over interleaved runs.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CORES = 2
ENCODERS = {"image": {"encoder": "cnn"}, "audio": {"encoder": "logmel-cnn", "max_duration_s": 0.5}}


def make_files(folder: Path, samples: int) -> None:
    import soundfile
    from PIL import Image

    random = np.random.default_rng(0)
    with (folder / "manifest.csv").open("w") as manifest:
        manifest.write("id,label,split,image,audio\n")
        for n in range(samples):
            pixels = random.integers(0, 40, (28, 28), dtype=np.uint8)
            pixels[n % 10 + 4 : n % 10 + 10, 6:22] += 180
            Image.fromarray(pixels).save(folder / f"{n}.png")
            tone = np.sin(2 * np.pi * (200 + 40 * (n % 10)) * np.arange(4000) / 8000) + random.normal(0, 0.1, 4000)
            soundfile.write(folder / f"{n}.wav", (tone * 8000).astype(np.int16), 8000)
            split = ("train", "train", "val")[n // 10 % 20] if n // 10 % 20 < 3 else "test"
            manifest.write(f"k{n:06d},c{n % 10},{split},{n}.png,{n}.wav\n")


def config_of(folder: Path, workers: int) -> Any:
    from mmcore.config import RunConfig

    return RunConfig.model_validate(
        {
            "data": {
                "manifest": str(folder / "manifest.csv"),
                "modalities": {
                    "image": {"kind": "image", "column": "image", "size": 28, "mode": "grey"},
                    "audio": {"kind": "audio", "column": "audio", "sample_rate_hz": 8000, "format": "wav"},
                },
            },
            "features": {name: {**settings, "epochs": 1} for name, settings in ENCODERS.items()},
            "compute": {"device": "cpu", "dask": {"workers": workers}},
            "output": str(folder / "output"),
        }
    )


def measured(work: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU seconds."""

    def cpu() -> float:
        both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(one.ru_utime + one.ru_stime for one in both)

    wall, before = time.perf_counter(), cpu()
    work()
    return time.perf_counter() - wall, cpu() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder), arguments.samples)
        prepared(Path(folder), arguments.runs)


def prepared(folder: Path, runs: int) -> None:
    import torch

    from mmcore.features.extract import encode_modality
    from mmcore.parallel import open_pool
    from mmcore.progress import Silent
    from mmcore.shards.prepare import prepare
    from mmcore.storage import Store

    torch.set_num_threads(1)
    config = config_of(folder, CORES)
    store = Store(config.output).open()
    with open_pool(config.compute) as pool:
        dataset = prepare(config, store, pool, Silent())
        for modality in ENCODERS:
            entry = encode_modality(config, dataset, modality, store, pool, Silent())
            ways = {
                "bare": Bare(store, dataset, entry),
                "mmcore": InProcess(store, dataset, entry),
                "plain": Plain(store, dataset, entry),
                "mmcore x2": Run(store, dataset, entry, config, pool),
            }
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            for number in range(runs + 1):
                for name, way in ways.items():
                    if number:  # the first time warms up
                        found[name].append(measured(way))
                    else:
                        way()
            show(modality, dataset.rows, found)


class Run:
    """What a run does: its workers share the shards."""

    def __init__(self, store: Any, dataset: Any, entry: Any, config: Any, pool: Any) -> None:
        self.arguments = config, dataset, entry.modality, store, pool
        self.features = f"features/{entry.digest}"

    def __call__(self) -> None:
        from mmcore.features.extract import encode_modality
        from mmcore.progress import Silent

        self.arguments[3].remove(self.features)
        encode_modality(*self.arguments, Silent())


class _Way:
    def __init__(self, store: Any, dataset: Any, entry: Any) -> None:
        from mmcore.features.opened import opened_encoder
        from mmcore.shards.recipe import open_modality

        self.store, self.dataset, self.entry = store, dataset, entry
        self.receipt = store.read_json(f"encoders/{entry.digest}/receipt.json")
        self.settings = config_of(Path(store.root).parent, CORES).features[entry.modality]
        self.encoder = opened_encoder(store, self.settings, self.receipt)
        self.modality = open_modality(self.receipt["recipe"]["modality"])

    def forward(self, members: list[bytes]) -> np.ndarray:
        values = [self.encoder.ready(self.modality.load(data)) for data in members]
        return self.encoder.encode(self.encoder.collate(values)).landed()[0]


class Bare(_Way):
    """The members in memory, in batches."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        from mmcore.features.loading import read_loading

        self.members = [
            data for shard in self.dataset.shards for data in read_loading(self.store, shard, self.entry.modality).data
        ]

    def __call__(self) -> None:
        for start in range(0, len(self.members), self.encoder.batch):
            self.forward(self.members[start : start + self.encoder.batch])


class InProcess(_Way):
    """What one worker does with all shards."""

    def __call__(self) -> None:
        from mmcore.features.encode import EncodeJob, encode_shards

        self.store.remove(f"features/{self.entry.digest}")
        shards = tuple(self.dataset.shards)
        encode_shards(EncodeJob(self.store, self.entry.modality, self.settings, self.receipt, shards))


class Plain(_Way):
    """webdataset and a DataLoader."""

    def __call__(self) -> None:
        import torch
        import webdataset

        ending = self.modality.extension
        name = f"{self.entry.modality}.{ending}"
        urls = [self.store.url(shard.tar.path) for shard in self.dataset.shards]
        rows = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).map(
            lambda sample: (sample["__key__"], self.encoder.ready(self.modality.load(sample[name])))
        )
        loader = torch.utils.data.DataLoader(
            rows, batch_size=self.encoder.batch, num_workers=CORES, collate_fn=lambda batch: batch
        )
        keys, vectors = [], []
        for batch in loader:
            keys += [key for key, _ in batch]
            vectors.append(self.encoder.encode(self.encoder.collate([value for _, value in batch])).landed()[0])
        assert len(keys) == sum(map(len, vectors)) == sum(shard.samples for shard in self.dataset.shards)


def show(modality: str, rows: int, found: dict[str, list[tuple[float, float]]]) -> None:
    walls = {name: statistics.median(wall for wall, _ in runs) for name, runs in found.items()}
    cpus = {name: statistics.median(cpu for _, cpu in runs) for name, runs in found.items()}
    print(f"\n{modality}, {rows:,} samples, median of {len(found['bare'])}")
    for name in found:
        print(f"{name:<10} wall {walls[name]:6.2f} s   CPU {cpus[name]:6.2f} s   {rows / walls[name]:8,.0f} samples/s")
    print(f"CPU seconds by the bare work's: {cpus['mmcore'] / cpus['bare']:.2f} (aim 1.10 at most)")
    print(f"rate of a run by the plain loop's: {walls['plain'] / walls['mmcore x2']:.2f} (aim 1.10 at least)")


if __name__ == "__main__":
    main()
