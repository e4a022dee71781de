"""A small training with dropout and augmentation; also a program of its own, so that it can be killed."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from mmcore.storage import Store
from mmcore.training import keeping
from mmcore.training.batch import Batch
from mmcore.training.checkpoint import Checkpoints, StoreCheckpoints
from mmcore.training.loop import Curves, LoopSettings, train

SETTINGS = LoopSettings(
    epochs=7, patience=3, batch_size=32, learning_rate=5e-3, weight_decay=1e-2, seed=3, threads=1, device="cpu"
)


def rows(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(n, 12, generator=generator)
    return values, (values[:, 0] * values[:, 1] + values[:, 2] > 0).long()


def new_network() -> torch.nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Linear(12, 32),
            torch.nn.BatchNorm1d(32),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.3),
            torch.nn.Linear(32, 2),
        )


def train_it(network: torch.nn.Module, settings: LoopSettings = SETTINGS, n: int = 301, **options: object) -> Curves:
    (x, y), (x_val, y_val) = (
        tuple(t.to(settings.device) for t in rows(n, 1)),
        tuple(t.to(settings.device) for t in rows(200, 2)),
    )

    def loss(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
        drawn = batch.drawn(lambda random, count: random.normal(0, 0.05, (count, 12)))
        noise = torch.from_numpy(drawn.astype(np.float32)).to(settings.device)
        index = torch.from_numpy(batch.rows).to(settings.device)
        return torch.nn.functional.cross_entropy(network(x[index] + noise), y[index])

    def validate(network: torch.nn.Module) -> float:
        return float(torch.nn.functional.cross_entropy(network(x_val), y_val))

    return train(network, n, loss, validate, settings, **options)  # type: ignore[arg-type]


def main(folder: str, kill_after: int, processes: int) -> None:
    """Train into `folder`/weights.safetensors, killed after an epoch (0: not)."""
    keeping.CHECKPOINT_EVERY_S = 0.0
    checkpoints: Checkpoints = StoreCheckpoints(Store(folder), "checkpoint.safetensors")

    def on_epoch(epoch: int, _epochs: int, _news: dict[str, float]) -> None:
        if epoch == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    network = new_network()
    settings = replace(SETTINGS, patience=99, processes=processes)
    train_it(network, settings, checkpoints=checkpoints, on_epoch=on_epoch)
    safetensors.torch.save_file(network.state_dict(), Path(folder, "weights.safetensors"))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
