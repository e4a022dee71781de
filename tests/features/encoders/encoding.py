"""Values through an encoder without a store: as the engine does it, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmcore.features.batches import cut_batches
from mmcore.features.encoders.base import WHOLE, Encoder


def encoded(encoder: Encoder, values: Sequence[Any], train_keys: Sequence[str] | None = None) -> np.ndarray:
    """Vectors (n, dim) of values as `Modality.load` gives them; held-out ones where `train_keys` are given."""
    ready = [encoder.ready(value) for value in values]
    lengths = [encoder.length(one) for one in ready]
    parts = [WHOLE] * len(ready) if train_keys is None else encoder.parts(train_keys, None).tolist()
    found = np.zeros((len(ready), encoder.dim), np.float32)
    for part, rows in cut_batches(None if None in lengths else lengths, parts, encoder.batch):
        found[rows] = encoder.encode(encoder.collate([ready[row] for row in rows]), part).landed()[0]
    return found
