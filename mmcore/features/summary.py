"""What features look like as a whole, and which rows are alike: read once through, few rows at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmcore.features.reading import Features

ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Summary:
    """All rows of one modality that have a vector."""

    rows: int
    present: int
    mean_norm: float
    """Mean Euclidean length of the vectors; NaN where there are none."""
    dead: int
    """Dimensions with one value in all rows: they tell nothing."""


@dataclass(frozen=True)
class Neighbour:
    """Another row, and the cosine of the angle between its vector and the one looked at."""

    row: int
    cosine: float


def summarise(features: Features) -> Summary:
    """Norms and dimensions of the vectors."""
    least = np.full(features.dim, np.inf, np.float32)
    most, norms, count = -least, 0.0, 0
    for _, vectors in features.batches(ROWS_AT_ONCE):
        there = _there(vectors)
        if len(there):
            least, most = np.minimum(least, there.min(axis=0)), np.maximum(most, there.max(axis=0))
            norms += float(np.linalg.norm(there.astype(np.float64), axis=1).sum())
            count += len(there)
    return Summary(len(features), count, norms / count if count else math.nan, int((least == most).sum()))


def neighbours(features: Features, row: int, most: int = 5) -> list[Neighbour]:
    """The rows most like this one by cosine, the nearest first; rows of length 0 are like none."""
    wanted = features[row].astype(np.float32)
    cosines = np.full(len(features), -np.inf, np.float32)
    for rows, vectors in features.batches(ROWS_AT_ONCE):
        values = vectors.astype(np.float32, copy=False)
        lengths = np.linalg.norm(values, axis=1) * np.linalg.norm(wanted)
        with np.errstate(invalid="ignore", divide="ignore"):
            cosines[rows] = np.where(lengths > 0, values @ wanted / lengths, -np.inf)
    cosines[row] = -np.inf
    order = np.argsort(-cosines, kind="stable")[:most]
    return [Neighbour(int(one), float(cosines[one])) for one in order if np.isfinite(cosines[one])]


def _there(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Those of the rows that have a vector."""
    values = vectors[~np.isnan(vectors[:, 0])] if vectors.shape[1] else vectors
    return values.astype(np.float32, copy=False)
