"""What the training loop costs beside the same steps written by hand, and what an engine or a compiler would.

    python benchmarks/training_loop.py [loop|fabric|streamed|compiled|processes|memory ...]

A small MLP (64-128-10) on 20,000 rows in batches of 256, in one thread: the worst case, as a step takes well under a
millisecond. Both sides are run in turn, in CPU time, and the median of the ratios of their times is given; the loop
also shuffles, schedules the rate, clips, checks for NaN, validates, keeps the best weights and reports, of which the
hand-written one does only what every training needs: shuffle, step, clip, schedule.

`fabric`: the loop with Lightning Fabric even where it does nothing. `streamed`: batches gathered by a thread ahead of
use. `compiled`: by hand, the loss under torch.compile. `processes`: two processes and one on a network of 17 million
weights, in wall time. `memory`: the process's memory over 300 epochs.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from unittest import mock

import numpy as np
import psutil
import torch
from torch.nn.functional import cross_entropy

from mmcore.training.batch import Batch
from mmcore.training.engine import FabricEngine
from mmcore.training.loop import LoopSettings, train

ROWS, EPOCHS, BATCH, ROUNDS = 20_000, 4, 256, 9
STEPS = EPOCHS * -(-ROWS // BATCH)
SETTINGS = LoopSettings(EPOCHS, EPOCHS, BATCH, 2e-3, 1e-2, seed=0, threads=1)
X = torch.randn(ROWS, 64, generator=torch.Generator().manual_seed(1))
Y = X[:, :10].argmax(1)


def new_network(hidden: int = 128) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(64, hidden), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(hidden, 10)
    )


def large_network() -> torch.nn.Module:
    layers = [torch.nn.Linear(64, 2048), *(torch.nn.Linear(2048, 2048) for _ in range(4)), torch.nn.Linear(2048, 10)]
    return torch.nn.Sequential(*(part for layer in layers[:-1] for part in (layer, torch.nn.ReLU())), layers[-1])


def loss(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
    index = torch.from_numpy(batch.rows)
    return cross_entropy(network(X[index]), Y[index])


def loss_of_loaded(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
    return cross_entropy(network(torch.from_numpy(batch.data)), Y[torch.from_numpy(batch.rows)])


def validate(network: torch.nn.Module) -> float:
    return float(cross_entropy(network(X[:BATCH]), Y[:BATCH]))


def loop() -> float:
    network, started = new_network(), time.process_time()
    train(network, ROWS, loss, validate, SETTINGS)
    return time.process_time() - started


def fabric() -> float:
    with mock.patch("mmcore.training.loop.engine_of", FabricEngine):
        return loop()


def streamed() -> float:
    network, started, values = new_network(), time.process_time(), X.numpy()
    train(network, ROWS, loss_of_loaded, validate, SETTINGS, load=lambda rows: values[rows])
    return time.process_time() - started


def by_hand(compiled: bool = False) -> float:
    network = new_network().train()
    value = torch.compile(_value) if compiled else _value
    value(network, X[:BATCH], Y[:BATCH])  # compiles, which is not counted here
    started = time.process_time()
    optimiser = torch.optim.AdamW(network.parameters(), SETTINGS.learning_rate, weight_decay=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, SETTINGS.learning_rate, STEPS, cycle_momentum=False)
    for _ in range(EPOCHS):
        for index in torch.randperm(ROWS).split(BATCH):
            optimiser.zero_grad()
            value(network, X[index], Y[index]).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return time.process_time() - started


def _value(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(network(x), y)


def compare(name: str, side: Callable[[], float]) -> None:
    side(), by_hand()  # the first of each pays for imports
    times = [(side(), by_hand()) for _ in range(ROUNDS)]
    one, hand = (statistics.median(pair[number] for pair in times) for number in (0, 1))
    rates = [hand_s / side_s for side_s, hand_s in times]
    print(
        f"{name:9} {one / STEPS * 1e3:.3f} ms/step, by hand {hand / STEPS * 1e3:.3f}: "
        f"{statistics.median(rates):.3f} of its rate ({min(rates):.2f} to {max(rates):.2f})"
    )


class Noted:
    """A figure after each epoch."""

    def __init__(self, figure: Callable[[], float]) -> None:
        self.figure, self.values = figure, list[float]()

    def __call__(self, *_: object) -> None:
        self.values.append(self.figure())


def processes() -> None:
    """Steady epochs only: starting another process takes some seconds."""
    for batch in (64, 1024):
        took = {}
        for count in (1, 2):
            ends = Noted(time.time)
            settings = replace(SETTINGS, epochs=3, batch_size=batch, processes=count)
            torch.manual_seed(0)
            train(large_network(), 2 * batch, loss, lambda _: 1.0, settings, on_epoch=ends)
            took[count] = float(np.median(np.diff(ends.values))) / 2
        print(
            f"processes batch {batch}: one {took[1]:.2f} s/step, two {took[2]:.2f}: {took[1] / took[2]:.2f} of the rate"
        )


def memory() -> None:
    """Features in memory, and streamed."""
    process = psutil.Process()
    for name, cost, load in (("in memory", loss, None), ("streamed", loss_of_loaded, X.numpy().__getitem__)):
        seen = Noted(lambda: process.memory_info().rss / 2**20)
        settings = replace(SETTINGS, epochs=300, patience=300, batch_size=1024)
        train(
            new_network(),
            ROWS,
            cost,
            validate,
            settings,
            load=load,
            on_epoch=seen,
        )
        after_10, after_100, after_300 = (seen.values[epoch - 1] for epoch in (10, 100, 300))
        print(
            f"memory {name}: {after_10:.1f} MiB after 10 epochs, {after_100:.1f} after 100, {after_300:.1f} after 300"
        )


PARTS: dict[str, Callable[[], None]] = {
    "loop": partial(compare, "loop", loop),
    "fabric": partial(compare, "fabric", fabric),
    "streamed": partial(compare, "streamed", streamed),
    "compiled": partial(compare, "compiled", partial(by_hand, compiled=True)),
    "processes": processes,
    "memory": memory,
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
