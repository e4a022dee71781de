"""What an encoder is: it turns one modality of a sample into a vector, and may learn from the training split how."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from mmcore.config import EncoderSettings
from mmcore.errors import DamagedError, StageError
from mmcore.features.batches import PADDING
from mmcore.records import Json

if TYPE_CHECKING:
    from mmcore.training.checkpoint import Checkpoints

Array = npt.NDArray[Any]
OnEpoch = Callable[[int, int, dict[str, float]], None]
"""Takes the epoch's number from 1, their most possible number, and figures such as `val_loss`."""

WHOLE = -1
"""The model that learned from all rows of train, among those that an encoder may keep."""
ARRAYS = "encoder.safetensors"
FACTS = "encoder.json"


@dataclass(frozen=True)
class Samples:
    """One modality of the samples that have it: keys, values as `Modality.load` gives them, and class numbers (n,)."""

    keys: Sequence[str]
    values: Sequence[Any]
    labels: Array
    groups: Sequence[str | None] | None = None
    """What may not be torn apart, as the speaker, where the manifest tells."""

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Encoded:
    """A batch as vectors (n, dim) and, where an encoder gives them, as sequences (n, t, width) of `lengths` (n,).

    Arrays, or tensors that may still be computed on the encoder's device; `landed` waits for them.
    """

    vectors: Any
    tokens: Any = None
    lengths: Sequence[int] | None = None
    arrival: Any = None
    """What tells that a copy from the device is whole; None where there is nothing to wait for."""

    def sent(self) -> Encoded:
        """Of a CUDA device: on its way to the CPU at once, so that it need not wait for the batch behind it."""
        if getattr(getattr(self.vectors, "device", None), "type", "cpu") != "cuda":
            return self
        import torch

        cuda: Any = torch.cuda
        sent = [None if one is None else _pinned_copy(one) for one in (self.vectors, self.tokens)]
        event = cuda.Event()
        event.record()
        return Encoded(sent[0], sent[1], self.lengths, event)

    def landed(self) -> tuple[Array, list[Array] | None]:
        """float32 vectors (n, dim), and of each value its sequence (t, width) where there are any."""
        if self.arrival is not None:
            self.arrival.synchronize()
        vectors = _landed(self.vectors)
        if self.tokens is None or self.lengths is None:
            return vectors, None
        tokens = _landed(self.tokens)
        return vectors, [tokens[row, :length] for row, length in enumerate(self.lengths)]


def _pinned_copy(values: Any) -> Any:
    """The tensor in float32 in pinned memory, once the device comes to it."""
    import torch

    found = torch.empty(values.shape, dtype=torch.float32, pin_memory=True)
    return found.copy_(values.float(), non_blocking=True)


def _landed(values: Any) -> Array:
    """On the CPU, in float32, whatever it was."""
    if not isinstance(values, np.ndarray):
        values = values.float().cpu().numpy()
    landed: Array = values.astype(np.float32, copy=False)
    return landed


class Encoder(ABC):
    """One modality to vectors: `ready`, `length` and `collate` in a thread ahead, `encode` on the device.

    Equal settings, batches and threads give equal vectors on one kind of CPU.
    """

    most_padding: float = PADDING
    """Largest share of a batch that may be padding; 0 where padding would change a vector."""

    @property
    def by_length(self) -> bool:
        """Whether values are of unlike lengths; else they are made ready batch by batch."""
        return type(self).length is not Encoder.length

    batch: int | None = None
    """Values that go through at a time at most; None: all of a shard. Halved where memory does not suffice."""
    planned: Mapping[str, Json] | None = None
    """The `sources` that its recipe has; None outside a run."""
    width: int | None = None
    """How wide the vectors are, where only a vector tells: found by `look` once, then told by the receipt."""

    def __init__(
        self,
        settings: Any,
        modality: Mapping[str, Json],
        classes: Sequence[str] = (),
        *,
        threads: int = 1,
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        """`modality` are the settings its members were stored with, `classes` the sorted labels of train."""
        self.settings, self.modality, self.classes = settings, dict(modality), tuple(classes)
        self.threads, self.device, self.precision = threads, device, precision

    def open(self) -> None:  # noqa: B027 - most have nothing to load
        """Load what is not learned here, as a model's files. Called once, before anything else but `unpack`."""

    def demand_planned(self) -> None:
        """Raise StageError where what lies outside the settings is not what the run was planned with."""
        if self.planned is not None and dict(self.settings.sources()) != dict(self.planned):
            what = f"the {self.settings.encoder} encoder here is not the one that the run was planned with"
            raise StageError(f"{what}: its files have changed, or are others on this machine. Run again.")

    def look(self, values: Iterator[Any]) -> None:  # noqa: B027 - most know all by their settings
        """Find out what only values tell, as the width. Called once in an encoder's life, after `open`.

        `values` are those of one shard, as `Modality.load` gives them; they are read as they are asked for.
        """

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        settings: EncoderSettings = self.settings
        dim = settings.dim(len(self.classes)) or self.width
        if dim is None:
            raise NotImplementedError(f"{type(self).__name__} has to say how wide its vectors are")
        return dim

    @property
    def token_dim(self) -> int | None:
        """Width of the vectors in a sequence; None where there are no sequences."""
        return None

    def ready(self, value: Any) -> Any:
        """A value, as `Modality.load` gives it, made ready for `collate`. An error sets this one sample aside."""
        return value

    def length(self, ready: Any) -> int | None:
        """Positions that the value takes, by which batches are made of like ones; None where all take equally many."""
        return None

    def collate(self, values: Sequence[Any]) -> Any:
        """A batch as `encode` takes it, of values that `ready` gave."""
        return list(values)

    @abstractmethod
    def encode(self, batch: Any, part: int = WHOLE) -> Encoded:
        """What `collate` gave, by the model of all training rows or, where rows are held out, by that of a part."""

    def parts(self, keys: Sequence[str], groups: Sequence[str | None] | None) -> Array:
        """Of rows of the training split, the model (n,) that did not learn from them; WHOLE is that of all rows."""
        return np.full(len(keys), WHOLE)


class LearnedEncoder(Encoder):
    """An encoder that learns from the training split."""

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
