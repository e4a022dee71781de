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
    known = None if None in lengths else lengths
    for part, rows in cut_batches(known, parts, encoder.batch, most_padding=encoder.most_padding):
        found[rows] = encoder.encode(encoder.collate([ready[row] for row in rows]), part).landed()[0]
    return found


def sequences(encoder: Encoder, values: Sequence[Any]) -> list[np.ndarray]:
    """The sequence (t, width) of each value, encoded in batches like `encoded`."""
    found: list[np.ndarray] = [np.zeros((0, 0), np.float32)] * len(values)
    ready = [encoder.ready(value) for value in values]
    lengths = [encoder.length(one) for one in ready]
    known = None if None in lengths else lengths
    for _, rows in cut_batches(known, [WHOLE] * len(ready), encoder.batch, most_padding=encoder.most_padding):
        _, tokens = encoder.encode(encoder.collate([ready[row] for row in rows])).landed()
        assert tokens is not None
        for place, row in enumerate(rows):
            found[row] = tokens[place]
    return found
