"""What the training loop costs beside the same steps written by hand.

    python benchmarks/training_loop.py

A small MLP (64-128-10) on 20,000 rows in batches of 256, in one thread: the worst case, as a step takes well under a
millisecond. Both sides are run in turn and the median of their times is compared; the loop also shuffles, schedules
the rate, clips, checks for NaN, validates, keeps the best weights and reports, of which the hand-written one does
only what every training needs: shuffle, step, clip, schedule.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch.nn.functional import cross_entropy

from mmcore.training.batch import Batch
from mmcore.training.loop import LoopSettings, train

ROWS, EPOCHS, BATCH, ROUNDS = 20_000, 4, 256, 9
SETTINGS = LoopSettings(EPOCHS, EPOCHS, BATCH, 2e-3, 1e-2, seed=0, threads=1)


def new_network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(128, 10)
    )


def ours(x: torch.Tensor, y: torch.Tensor) -> float:
    network = new_network()

    def loss(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
        index = torch.from_numpy(batch.rows)
        return cross_entropy(network(x[index]), y[index])

    started = time.perf_counter()
    train(network, ROWS, loss, lambda network: float(cross_entropy(network(x[:BATCH]), y[:BATCH])), SETTINGS)
    return time.perf_counter() - started


def by_hand(x: torch.Tensor, y: torch.Tensor) -> float:
    network = new_network().train()
    started = time.perf_counter()
    optimiser = torch.optim.AdamW(network.parameters(), SETTINGS.learning_rate, weight_decay=1e-2, fused=True)
    steps = EPOCHS * -(-ROWS // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, SETTINGS.learning_rate, steps, cycle_momentum=False)
    for _ in range(EPOCHS):
        for index in torch.randperm(ROWS).split(BATCH):
            optimiser.zero_grad()
            cross_entropy(network(x[index]), y[index]).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return time.perf_counter() - started


def main() -> None:
    torch.set_num_threads(1)
    x = torch.randn(ROWS, 64, generator=torch.Generator().manual_seed(1))
    y = x[:, :10].argmax(1)
    ours(x, y), by_hand(x, y)  # the first of each pays for imports
    times = [(ours(x, y), by_hand(x, y)) for _ in range(ROUNDS)]
    loop, hand = (statistics.median(pair[side] for pair in times) for side in (0, 1))
    rates = [hand_s / loop_s for loop_s, hand_s in times]
    steps = EPOCHS * -(-ROWS // BATCH)
    print(f"loop {loop / steps * 1e3:.3f} ms/step   by hand {hand / steps * 1e3:.3f} ms/step")
    print(f"rate of the loop / rate by hand: {statistics.median(rates):.3f} ({min(rates):.2f} to {max(rates):.2f})")


if __name__ == "__main__":
    main()
