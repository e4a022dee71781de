"""Small encoders of texts that fail, overflow or run out of memory where asked to; Dask workers import them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from mmcore.config import EncoderSettings
from mmcore.config.encoders import Batched
from mmcore.features.encoders.base import WHOLE, Encoded, Encoder


class CountedSettings(EncoderSettings):
    """Learns nothing and takes a whole shard at a time."""

    implementation: ClassVar[str] = "tests.features.made_encoders:CountedEncoder"
    kinds: ClassVar[frozenset[str]] = frozenset({"text"})
    encoder: str = "counted"
    tokens: bool = False

    @property
    def has_tokens(self) -> bool:
        return self.tokens

    def dim(self, classes: int) -> int:
        return 2


class CountedEncoder(Encoder):
    """Length and mean letter of a text; its sequence are the letters and their places.

    A text with `STEP!` in it fails in that step, one with `nan!` gives NaN and one with `large!` a million.
    """

    @property
    def token_dim(self) -> int | None:
        return 2 if self.settings.tokens else None

    def ready(self, value: str) -> str:
        return _checked([value], "ready")[0]

    def length(self, ready: str) -> int:
        return len(_checked([ready], "length")[0])

    def collate(self, values: Sequence[str]) -> list[str]:
        return list(_checked(values, "collate"))

    def encode(self, batch: Sequence[str], part: int = WHOLE) -> Encoded:
        _checked(batch, "encode")
        vectors = np.array([vector_of(text) for text in batch], np.float32)
        if not self.settings.tokens:
            return Encoded(vectors)
        longest = max(map(len, batch))
        tokens = np.full((len(batch), longest, 2), np.nan, np.float32)
        for row, text in enumerate(batch):
            tokens[row, : len(text)] = sequence_of(text)
        return Encoded(vectors, tokens, [len(text) for text in batch])


class SmallMemorySettings(Batched):
    """Runs out of memory above `most` texts at a time, and tells in its vectors how many there were."""

    implementation: ClassVar[str] = "tests.features.made_encoders:SmallMemoryEncoder"
    kinds: ClassVar[frozenset[str]] = frozenset({"text"})
    outside_recipe: ClassVar[frozenset[str]] = frozenset({"most"})
    on_device: ClassVar[bool] = False
    encoder: str = "small-memory"
    most: int = 1000

    def dim(self, classes: int) -> int:
        return 3


class SmallMemoryEncoder(Encoder):
    tried: ClassVar[list[int]] = []
    """Sizes of all batches that came."""

    def encode(self, batch: Sequence[str], part: int = WHOLE) -> Encoded:
        self.tried.append(len(batch))
        if len(batch) > self.settings.most:
            raise RuntimeError(f"CUDA out of memory. Tried to allocate {len(batch)} GiB.")
        return Encoded(np.array([(*vector_of(text), len(batch)) for text in batch], np.float32))


def vector_of(text: str) -> tuple[float, float]:
    mean = sum(map(ord, text)) / len(text)
    return (float("nan") if "nan!" in text else 1e6 if "large!" in text else len(text)), mean


def sequence_of(text: str) -> np.ndarray:
    return np.array([(ord(letter), place) for place, letter in enumerate(text)], np.float32)


def _checked(texts: Sequence[str], step: str) -> Sequence[str]:
    if any(f"{step}!" in text for text in texts):
        raise ValueError(f"no {step} of this")
    return texts
