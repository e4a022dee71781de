"""A class of the user's own as an encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from mmcore.config import CustomSettings
from mmcore.config.plugged import plugged
from mmcore.errors import StageError
from mmcore.features.encoders.base import WHOLE, Array, Encoded, Encoder

TRIED = 16
"""So many samples are tried to see how wide the vectors are."""


class CustomEncoder(Encoder):
    """Calls `ready(value)` for each value and `encode(list)` for each batch.

    `encode` gives an array (n, dim) of finite numbers, a row for each of the n values. A value that `ready` or `encode`
    fails on is set aside alone; an array of another shape ends the stage.
    """

    settings: CustomSettings

    def open(self) -> None:
        self.demand_planned()
        kind, self.batch = plugged(self.settings.class_), self.settings.batch
        try:
            self._made = kind(**self.settings.options)
        except Exception as error:
            raise StageError(f"{self._called('')} fails: {type(error).__name__}: {error}.") from error

    def look(self, values: Iterator[Any]) -> None:
        failure = "there is none in the first shard"
        for value in islice(values, TRIED):
            try:
                found = self._made.encode([self._made.ready(value)])
            except Exception as error:
                failure = f"the last one with {type(error).__name__}: {error}"
                continue
            self.width = self._checked(found, 1).shape[1]
            return
        raise StageError(f"{self.settings.class_} encodes none of the samples it was tried on: {failure}.")

    def ready(self, value: Any) -> Any:
        return self._made.ready(value)

    def encode(self, batch: Sequence[Any], part: int = WHOLE) -> Encoded:
        found = self._checked(self._made.encode(batch), len(batch))
        if found.shape[1] != self.dim:
            raise StageError(
                f"{self._called('.encode')} gives vectors of {found.shape[1]} numbers, after some of {self.dim}; all "
                "have to be of one width."
            )
        return Encoded(found)

    def _checked(self, found: Any, rows: int) -> Array:
        """float32 (rows, dim). Raises StageError for anything else."""
        array = np.asarray(found.detach().cpu() if hasattr(found, "detach") else found)
        if array.dtype.kind not in "fiub" or array.ndim != 2 or len(array) != rows or not array.shape[1]:
            raise StageError(
                f"{self._called('.encode')} has to give numbers of shape ({rows}, dim) for {rows} samples, and gave "
                f"{array.dtype} of shape {array.shape}."
            )
        with np.errstate(over="ignore"):  # what is too large becomes infinite, which sets the sample aside
            return array.astype(np.float32)

    def _called(self, method: str) -> str:
        name = self.settings.class_
        return f"{name}{method}" if method else f"{name}(**options)"


class CustomByLength(CustomEncoder):
    """One whose class also tells `length(ready)`, a whole number, so that batches are made of alike ones."""

    def length(self, ready: Any) -> int | None:
        return int(self._made.length(ready))
