"""How many samples an encoder takes at a time: found once by trying, then recorded."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from mmcore.features.batches import cut_batches
from mmcore.features.encoders.base import WHOLE, Encoder
from mmcore.training.device import is_out_of_memory

SIZES = {"cpu": (8, 16, 32, 64), "cuda": (32, 64, 128, 256, 512, 1024), "mps": (16, 32, 64, 128)}
"""Sizes tried on each kind of device, the smallest first."""
GAIN = 0.05
"""A larger size must be faster by this share, or the smaller one is kept: it needs less memory."""
TRIED_VALUES = 256
"""At most so many values are encoded with each size; fewer are repeated until the size is filled."""
TRIES = 2
"""Each size is timed so often, and its best time counts."""

_logger = logging.getLogger("mmcore.features")


def find_batch(encoder: Encoder, values: Sequence[Any]) -> int:
    """The size that encodes these values (as `Modality.load` gives them) fastest; the smallest where there are none."""
    sizes = SIZES.get(encoder.device, SIZES["cpu"])
    ready = []
    for value in values[:TRIED_VALUES]:
        try:
            made = encoder.ready(value)
            encoder.length(made)
            ready.append(made)
        except Exception as error:
            _logger.debug("a value that cannot be made ready is left out of the trial: %s", error)
    if not ready:
        return sizes[0]
    best, best_rate = sizes[0], 0.0
    for size in sizes:
        if encoder.device == "cpu" and size > len(ready):
            break
        try:
            rate = max(_rate(encoder, ready, size) for _ in range(TRIES))
        except Exception as error:
            if is_out_of_memory(error):
                break
            # A value that the encoder cannot take is set aside where it is encoded; here it only ends the trial.
            _logger.debug("the trial of batch size %d ended: %s", size, error)
            break
        if rate <= best_rate * (1 + GAIN):
            break
        best, best_rate = size, rate
    _logger.info("%s: %d samples at a time, %.0f a second", encoder.settings.encoder, best, best_rate)
    return best


def _rate(encoder: Encoder, ready: Sequence[Any], size: int) -> float:
    """Values a second, of enough values that the size can be filled."""
    filled = [ready[i % len(ready)] for i in range(max(size, len(ready)))]
    found = [encoder.length(value) for value in filled]
    lengths = None if None in found else [length or 0 for length in found]
    cut = cut_batches(lengths, [WHOLE] * len(filled), size, most_padding=encoder.most_padding)
    batches = [encoder.collate([filled[row] for row in rows]) for _, rows in cut]
    began = time.perf_counter()
    for batch in batches:
        encoder.encode(batch).landed()
    return len(filled) / (time.perf_counter() - began)
