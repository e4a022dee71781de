"""What a modality is: how its bytes are decoded, checked, normalised, stored and loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from mmcore.records import Json

Value = TypeVar("Value")

REASONS: Mapping[str, str] = {
    "missing-file": "The manifest names a file that is not there.",
    "outside-root": "The path leads out of the data's root.",
    "empty-file": "The file has no bytes.",
    "too-many-bytes": "The file is larger than max_bytes.",
    "too-large": "The picture has more pixels than max_pixels.",
    "too-small": "The picture's shorter side has fewer pixels than min_size.",
    "too-short": "The sound is shorter than min_duration_s, or the text than min_chars.",
    "too-many-channels": "The sound has more channels than max_channels.",
    "no-sound-track": "The video has no sound.",
    "no-video-track": "The file has no moving pictures.",
    "unknown-format": "The bytes are of no format that this modality knows.",
    "truncated": "The file ends before its content does.",
    "corrupt": "The file's format is known, but its content cannot be decoded.",
    "not-finite": "The sound or picture holds NaN or infinity.",
    "not-utf8": "The text is not valid UTF-8.",
    "wrong-encoding": "The text is not valid in the encoding that it should be in.",
    "unknown-encoding": "The text's encoding cannot be told.",
    "empty-text": "No text is left after normalisation.",
    "duplicate-key": "Several rows have this key; all of them are set aside.",
    "malformed-row": "The manifest's row cannot be read: its fields, its JSON or its text is broken.",
    "missing-key": "The row has no key.",
    "bad-key": "The key cannot name a file in a tar.",
    "missing-label": "The row has no label.",
    "bad-target": "The row's label or weight is not the finite number that it has to be.",
    "unknown-split": "The row's split is none of train, val and test.",
    "no-modality": "The sample has no usable modality left.",
    "dropped": "The sample was dropped because one of its modalities was bad (data.bad_modality: drop).",
    "filtered": "The sample does not pass data.filters: it is not wanted, and not bad.",
    "missing-library": "Reading this format needs a library that is not installed.",
    "io-error": "Reading the file failed.",
    "time-limit": "Decoding took longer than compute.sample_timeout_s.",
    "codec-died": "The process died while it decoded this sample.",
    "encoder-failed": "The encoder raised an error on this sample.",
    "not-finite-vector": "The encoder gave NaN or infinity for this sample.",
}
"""Every reason code of the quarantine, and what it means."""

CIRCUMSTANTIAL = frozenset({"missing-library", "io-error", "time-limit", "codec-died"})
"""Reasons that do not follow from the input alone: trying again may help."""


@dataclass(frozen=True)
class Rejected:
    """Why a value is unfit: a code of `REASONS` and a sentence for a person."""

    code: str
    message: str

    def __post_init__(self) -> None:
        if self.code not in REASONS:
            raise ValueError(f"{self.code!r} is not a reason code; add it to REASONS")


@dataclass(frozen=True)
class Member:
    """One modality of one sample, ready for a shard."""

    parts: tuple[bytes, ...]
    """What is stored: one file, or several where the modality is `several`."""
    facts: Mapping[str, Json]
    """Plain facts for the index: at least what `check` found, about the source as it came."""
    signature: bytes | None = None
    """What finds near-duplicates: see `Modality.signature`."""

    @property
    def data(self) -> bytes:
        """The one part. Raises ValueError where there are several."""
        (part,) = self.parts
        return part


class Modality(ABC, Generic[Value]):
    """One kind of media. All methods are pure: no file is opened, nothing is kept between calls.

    Limits are checked before memory is taken: `decode` reads the header first. Bad input gives a `Rejected`,
    never an exception.
    """

    kind: ClassVar[str]
    several: bool = False
    """Whether a sample may have several members of this modality."""

    @property
    @abstractmethod
    def extension(self) -> str:
        """Ending of members in the tar, without the dot."""

    @abstractmethod
    def decode(self, data: bytes) -> Value | Rejected:
        """The value in a file's bytes, within the settings' limits."""

    @abstractmethod
    def check(self, value: Value) -> dict[str, Json] | Rejected:
        """Facts about the value as it came, or why it is unfit."""

    @abstractmethod
    def normalise(self, value: Value) -> Value:
        """The value as the settings want it."""

    @abstractmethod
    def encode(self, value: Value) -> bytes:
        """The normalised value as a member's bytes: equal values, equal bytes."""

    @abstractmethod
    def load(self, data: bytes) -> Any:
        """A member's bytes as an encoder takes them (an array, or a str for text)."""

    def signature(self, value: Value) -> bytes | None:
        """A few bytes that are close to those of a near-duplicate, from the decoded value; None where it has none."""
        return None

    def process(self, data: bytes) -> Member | Rejected:
        """A source file's bytes as a member: decode, check, normalise, encode."""
        if not data:
            return Rejected("empty-file", "the file has no bytes")
        value = self.decode(data)
        if isinstance(value, Rejected):
            return value
        facts = self.check(value)
        if isinstance(facts, Rejected):
            return facts
        return Member((self.encode(self.normalise(value)),), facts, self.signature(value))
