"""The value types that cross a stage border, and the digest that names what they determine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Json = Any
"""None, bool, int, float, str, or lists and string-keyed dicts of these."""

DIGEST_LENGTH = 32
"""Hex digits kept of a SHA-256: 128 bits, enough that no two outputs ever meet."""

SPLITS = ("train", "val", "test")

WITHOUT = "-without-"
"""Stands in a shard's name of labels before the digest of the keys that are left out of it."""

# Made once: json.dumps makes an encoder for each call that is not the plain one.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_MARK = "\0"


def canonical_json(value: Json) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, UTF-8, no NaN.

    Raises ValueError for NaN or infinity and TypeError for what JSON cannot hold.
    """
    return _encode(value).encode("utf-8", "surrogatepass")


def canonical_texts(values: Sequence[Json]) -> list[str]:
    """Each value's canonical JSON as a str: encoded together, at half the cost where they are small."""
    with_marks: list[Json] = [_MARK] * (2 * len(values) + 1)
    with_marks[1::2] = values
    parts = _encode(with_marks).split(_encode(_MARK))
    if len(parts) != len(with_marks) // 2 + 2:  # a value holds the mark itself
        return [_encode(value) for value in values]
    return [part[1:-1] for part in parts[1:-1]]


def digest(recipe: Json) -> str:
    """The name of what a recipe determines: 32 hex digits of the SHA-256 of its canonical JSON."""
    return hashlib.sha256(canonical_json(recipe)).hexdigest()[:DIGEST_LENGTH]


@dataclass(frozen=True)
class Reject:
    """A modality of a sample, or a whole row (modality ''), that was set aside.

    `circumstantial` is false where the reason follows from the input itself (a truncated file) and true
    where it does not (a time limit, a dead codec), so that trying again may help.
    """

    key: str
    modality: str
    code: str
    message: str
    source: str = ""
    circumstantial: bool = False

    def as_json(self) -> dict[str, Json]:
        return asdict(self)


@dataclass(frozen=True)
class DataFile:
    """A published file: its path below the store's root, the SHA-256 of its bytes (32 hex digits) and its size."""

    path: str
    sha256: str
    size_bytes: int

    def as_json(self) -> dict[str, Json]:
        return asdict(self)


@dataclass(frozen=True)
class ShardEntry:
    """One finished (or foreseen) shard as later stages see it.

    `views` names, per modality, the content of that modality in this shard: the digest of its ordered keys and
    member checksums; `labels` does so for the ordered keys and labels. `None` stands for what cannot be known
    before the shard is made. `present` counts the samples that have the modality.
    """

    recipe: str
    split: str
    samples: int
    views: Mapping[str, str | None]
    labels: str | None
    present: Mapping[str, int] = field(default_factory=dict)
    tar: DataFile | None = None
    index: DataFile | None = None
    removed: tuple[str, ...] = ()
    """Keys in it that are left out of all learning; `labels` then tells so too."""

    def without(self, keys: Iterable[str]) -> ShardEntry:
        """The entry with these keys left out, which renames only its `labels`."""
        removed = tuple(keys)
        if not removed or self.labels is None:
            return self
        return replace(self, removed=removed, labels=f"{self.labels}{WITHOUT}{digest(list(removed))}")

    def as_json(self) -> dict[str, Json]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> ShardEntry:
        files = {name: DataFile(**value[name]) if value[name] else None for name in ("tar", "index")}
        return cls(**{**value, **files, "removed": tuple(value.get("removed", ()))})


@dataclass(frozen=True)
class Dataset:
    """The shards of a data set in order, and every reject: what `datasets/<digest>.json` holds."""

    shards: tuple[ShardEntry, ...]
    rejects: tuple[Reject, ...]
    rows: int
    classes: tuple[str, ...]
    modalities: Mapping[str, Json]
    """Modality name to the settings its members were written with (`Settings.recipe()`)."""
    facts: Mapping[str, Json] = field(default_factory=dict)
    """Counts that people look at: per split, class and modality."""
    removed: Mapping[str, str] = field(default_factory=dict)
    """Keys of samples that lie in shards and yet are left out, each with the reason: `duplicate-across-splits` (val
    or test has it too) or `duplicate`. Whoever reads samples skips them."""
    task: str = "classes"
    """What labels are: one class, several (`multilabel`), or a number (`regression`)."""

    @property
    def digest(self) -> str:
        return digest(self.as_json())

    def of(self, *splits: str) -> tuple[ShardEntry, ...]:
        """The shards of these splits, in order."""
        return tuple(shard for shard in self.shards if shard.split in splits)

    def as_json(self) -> dict[str, Json]:
        return {
            "shards": [shard.as_json() for shard in self.shards],
            "rejects": [reject.as_json() for reject in self.rejects],
            "rows": self.rows,
            "classes": list(self.classes),
            "modalities": dict(self.modalities),
            "facts": dict(self.facts),
            "removed": dict(self.removed),
            "task": self.task,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Dataset:
        return cls(
            shards=tuple(ShardEntry.from_json(shard) for shard in value["shards"]),
            rejects=tuple(Reject(**reject) for reject in value["rejects"]),
            rows=value["rows"],
            classes=tuple(value["classes"]),
            modalities=value["modalities"],
            facts=value["facts"],
            removed=value["removed"],
            task=value["task"],
        )


def floor_of(modality: str) -> str:
    """What the floor of a modality is called: its classical encoder, and the classifier that reads it."""
    return f"floor-{modality}"


@dataclass(frozen=True)
class EncoderEntry:
    """One modality's encoder: its vectors lie at `features/<digest>/<view>.arrow`."""

    modality: str
    digest: str
    name: str
    """The setting that chose it, as `cnn`."""
    dim: int | None
    """Width of its vectors; None where only opening it would tell."""
    trained: bool
    """Whether it learned from this data set, so that its weights lie at `encoders/<digest>/`."""
    rejects: tuple[Reject, ...] = ()
    """Samples that it could not take; their vectors are null."""
    floor: bool = False
    """Whether it is the classical one beside the configured one: see `RunConfig.floor`."""

    @property
    def view(self) -> str:
        """Its name within a run: the modality's, or that of its floor."""
        return floor_of(self.modality) if self.floor else self.modality


def titled(model: str, setting: str) -> str:
    """What a model with one setting of its grid is called."""
    return f"{model}[{setting}]" if setting else model


@dataclass(frozen=True)
class ModelEntry:
    """One trained fusion model at `models/<digest>/`."""

    name: str
    """Unique in a table: the method, with what tells it apart where a method occurs twice. Settings of one grid share
    it."""
    method: str
    digest: str
    val_scores: Mapping[str, float]
    """`log_loss`, `accuracy` and `macro_f1` on the validation split; empty where it is not trained."""
    baseline: bool = False
    """Trained in every run to compare with (single modalities, late fusion), whatever the settings say."""
    floor: bool = False
    """Whether it reads the classical encoder that has its name."""
    setting: str = ""
    """Which of the method's grid it is, as `n_components=8`; empty where there is no grid."""
    failed: str = ""
    """Why these data cannot be learned by it; empty where they can, or where it was not tried."""

    @property
    def title(self) -> str:
        """Its name among all fits of a seed: `cca[n_components=8]`."""
        return titled(self.name, self.setting)


@dataclass(frozen=True)
class EvaluationEntry:
    """The scores of one model on the test split at `evaluations/<digest>/`."""

    model: str
    digest: str


@dataclass(frozen=True)
class Step:
    """What a run would do, or did, about one output: the line of a plan."""

    stage: str
    name: str
    action: Literal["reuse", "compute"]
    reason: str
    digest: str | None = None
    """None where it follows from something that is not there yet."""
    samples: int = 0

    def as_json(self) -> dict[str, Json]:
        return asdict(self)


def labels_change(old: Iterable[str], new: Iterable[str]) -> str:
    """What differs between two lists of shards' `labels`, in a person's words; empty where nothing does."""
    old, new = list(old), list(new)
    if old == new:
        return ""
    same = [one.partition(WITHOUT)[0] for one in old] == [one.partition(WITHOUT)[0] for one in new]
    return "other duplicates removed" if same else "labels changed"


def count_by(items: Iterable[str]) -> dict[str, int]:
    """How often each item occurs, most frequent first, ties by name."""
    counts: dict[str, int] = {}
    for item in items:
        counts[item] = counts.get(item, 0) + 1
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
