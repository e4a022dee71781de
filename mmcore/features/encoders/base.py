"""What an encoder is: it learns from one modality of the training split and turns each sample of it into a vector."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from mmcore.config import TrainedEncoder
from mmcore.errors import DamagedError
from mmcore.records import Json

if TYPE_CHECKING:
    from mmcore.training.checkpoint import Checkpoints

Array = npt.NDArray[Any]
OnEpoch = Callable[[int, int, dict[str, float]], None]
"""Takes the epoch's number from 1, their most possible number, and figures such as `val_loss`."""

ARRAYS = "encoder.safetensors"
FACTS = "encoder.json"


@dataclass(frozen=True)
class Samples:
    """One modality of the samples that have it: keys, values as `Modality.load` gives them, and class numbers (n,)."""

    keys: Sequence[str]
    values: Sequence[Any]
    labels: Array

    def __len__(self) -> int:
        return len(self.keys)


class Encoder(ABC):
    """One modality to vectors. Equal settings, samples and threads give equal vectors on one kind of CPU."""

    def __init__(
        self,
        settings: Any,
        modality: Mapping[str, Json],
        classes: Sequence[str],
        *,
        threads: int = 1,
        device: str = "cpu",
    ) -> None:
        """`modality` are the settings its members were stored with, `classes` the sorted labels of train."""
        self.settings, self.modality, self.classes = settings, dict(modality), tuple(classes)
        self.threads, self.device = threads, device

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        settings: TrainedEncoder = self.settings
        return settings.dim(len(self.classes))

    @abstractmethod
    def fit(
        self,
        train: Samples,
        val: Samples,
        *,
        checkpoints: Checkpoints | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> dict[str, Json]:
        """Learn; returns what the receipt tells of it: `scores` per split, and `curves` where there are epochs."""

    @abstractmethod
    def encode(self, values: Sequence[Any], *, train_keys: Sequence[str] | None = None) -> Array:
        """float32 vectors (n, dim) of n values. `train_keys` are given for rows of the training split.

        An encoder that keeps models of parts of the training split then takes one that did not learn from the row.
        """

    @abstractmethod
    def state(self) -> tuple[dict[str, Array], Json]:
        """What was learned: named arrays, and the rest as JSON."""

    @abstractmethod
    def restore(self, arrays: Mapping[str, Array], facts: Json) -> None:
        """Take back what `state` gave."""

    def pack(self) -> dict[str, bytes]:
        """What was learned as the bytes of two files: equal states, equal bytes."""
        arrays, facts = self.state()
        packed = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        text = json.dumps(facts, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return {ARRAYS: packed, FACTS: text.encode("utf-8", "surrogatepass")}

    def unpack(self, files: Mapping[str, bytes]) -> None:
        """Take back what `pack` gave. Raises DamagedError where it is not that."""
        try:
            self.restore(safetensors.numpy.load(files[ARRAYS]), json.loads(files[FACTS]))
        except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise DamagedError(f"the stored {self.settings.encoder} encoder cannot be read ({error})") from error


def scores_of(logits: Array, labels: Array) -> dict[str, float]:
    """Accuracy, and mean negative log of the softmax of `logits` (n, classes) at `labels` (n,)."""
    logits = np.asarray(logits, np.float64)
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return {
        "accuracy": round(float(np.mean(log_p.argmax(axis=1) == labels)), 6),
        "log_loss": round(float(-np.mean(log_p[np.arange(len(labels)), labels])), 6),
    }


def centred(logits: Array) -> Array:
    """Scores with mean 0 over the classes: what the softmax does not see is taken out."""
    values: Array = logits - logits.mean(axis=1, keepdims=True)
    return values
