"""Pictures out of shards through a ViT on a GPU: against the bare forward, and beside what the card can do.

    python benchmarks/gpu_features.py --pictures 8192

A ViT-B/16 of random weights (86 million) reads 224 x 224 JPEGs from shards, in bfloat16. Printed: the rate of the
engine (read, verified, decoded, encoded, published), of the bare forward on a batch that lies on the card already, at
the same batch size; the achieved TFLOP/s beside those of a large matrix product; the share of time spent waiting.
Needs neither Prefect nor Dask. Without a GPU it ends with a word; `--tiny` tries the script itself on the CPU.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=8192)
    parser.add_argument("--tiny", action="store_true", help="a small model on whatever device there is")
    arguments = parser.parse_args()
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not arguments.tiny:
        raise SystemExit("torch finds no CUDA device here; --tiny tries the script without one.")
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), arguments.pictures, device, tiny=arguments.tiny)


def save_model(folder: Path, *, tiny: bool) -> None:
    import transformers

    sizes: dict[str, int] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4} if tiny else {}
    transformers.ViTModel(transformers.ViTConfig(**sizes)).save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 224, "width": 224}).save_pretrained(folder)


def config_of(folder: Path, device: str) -> Any:
    from mmcore.config import RunConfig

    image = {"kind": "image", "column": "image", "size": 224, "resize": "crop", "format": "jpeg"}
    return RunConfig.model_validate(
        {
            "data": {"manifest": str(folder / "manifest.csv"), "modalities": {"image": image}},
            "features": {"image": {"encoder": "pretrained", "model": str(folder / "model"), "dtype": "float16"}},
            "compute": {"device": device, "dask": {"workers": 0}},
            "floor": False,
            "output": str(folder / "output"),
        }
    )


def measure(folder: Path, pictures: int, device: str, *, tiny: bool) -> None:
    import cv2

    from mmcore.features.extract import encode_modality
    from mmcore.parallel import serial_pool
    from mmcore.progress import Silent
    from mmcore.shards.prepare import prepare
    from mmcore.storage import Store

    save_model(folder / "model", tiny=tiny)
    random = np.random.default_rng(0)
    with (folder / "manifest.csv").open("w") as manifest:
        manifest.write("id,label,split,image\n")
        for n in range(pictures):
            coarse = random.integers(0, 256, (14, 14, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f"{n}.jpg"), cv2.resize(coarse, (256, 224), interpolation=cv2.INTER_CUBIC))
            manifest.write(f"k{n:06d},{'ab'[n % 2]},{('train', 'val', 'test')[n // 2 % 3]},{n}.jpg\n")
    config = config_of(folder, device)
    store, pool = Store(config.output).open(), serial_pool(config.compute)
    dataset = prepare(config, store, pool, Silent())

    class Notes(Silent):
        said = ""

        def advance(self, units: float = 1, *, samples: int = 0, rejected: int = 0, note: str = "") -> None:
            self.said = note or self.said

    notes, rates = Notes(), []
    for _ in range(ROUNDS + 1):
        store.remove("features")
        began = time.perf_counter()
        entry = encode_modality(config, dataset, "image", store, pool, notes)
        rates.append(pictures / (time.perf_counter() - began))
    receipt = store.read_json(f"encoders/{entry.digest}/receipt.json")
    bare, flops = bare_forward(store, config, receipt)
    engine = max(rates[1:])
    print(f"engine {engine:,.0f} pictures/s at batch {receipt['batch']} ({notes.said})")
    print(f"bare forward {bare:,.0f} pictures/s; ratio {engine / bare:.2f} (aim .90)")
    print(f"{engine * flops / 1e12:,.1f} TFLOP/s of {matrix_rate(device, receipt) / 1e12:,.1f} of a matrix product")


def bare_forward(store: Any, config: Any, receipt: Any) -> tuple[float, float]:
    """Pictures a second of batches that lie on the device, and floating point operations of one picture."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from mmcore.features.opened import opened_encoder

    encoder: Any = opened_encoder(store, config.features["image"], receipt)
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    batch = encoder.collate([encoder.ready(pixels)] * receipt["batch"])
    batch = {name: value.to(encoder.device) for name, value in batch.items()}
    with FlopCounterMode(display=False) as counter:
        encoder.encode(batch)
    best = 0.0
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(10):
            found = encoder.encode(batch)
        found.landed()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = max(best, 10 * receipt["batch"] / (time.perf_counter() - began))
    return best, counter.get_total_flops() / receipt["batch"]


def matrix_rate(device: str, receipt: Any) -> float:
    """Floating point operations a second of a square matrix product in the precision that was used."""
    import torch

    side = 8192 if device == "cuda" else 512
    kind = getattr(torch, receipt["recipe"]["precision"])
    left = torch.randn(side, side, device=device, dtype=kind)
    best = 0.0
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        for _ in range(10):
            found = left @ left
        if device == "cuda":
            torch.cuda.synchronize()
        assert found.shape == left.shape
        best = max(best, 10 * 2 * side**3 / (time.perf_counter() - began))
    return best


if __name__ == "__main__":
    main()
