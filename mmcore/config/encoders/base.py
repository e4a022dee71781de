"""What the settings of all encoders have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mmcore.config.base import Settings
from mmcore.errors import Problem
from mmcore.records import Json


class EncoderSettings(Settings):
    """What turns one modality of a sample into a vector and, where asked, into a sequence of them."""

    kinds: ClassVar[frozenset[str]]
    """The kinds of modality that this encoder reads; those of images read the frames of videos too."""
    learns: ClassVar[bool] = False
    """Whether it learns from the training split, so that its weights are a result of the run."""
    validates: ClassVar[bool] = True
    """Whether the validation split stops or chooses what it learns, so that it is part of its recipe."""
    on_device: ClassVar[bool] = False
    """Whether it computes with torch on `compute.device`, so that device and threads decide last bits."""
    half_precision: ClassVar[bool] = False
    """Whether its forward pass heeds `compute.precision`."""

    encoder: str
    """Which encoder."""
    dtype: Literal["float32", "float16"] = "float32"
    """How vectors are kept: float16 takes half the space, and three decimal digits of each number remain."""

    @property
    def holds_out(self) -> bool:
        """Whether rows of train get vectors of a model that did not learn from them."""
        return False

    @property
    def reads_labels(self) -> bool:
        """Whether it learns from labels, so that it needs every class in train and other labels make another one."""
        return self.learns

    @property
    def has_tokens(self) -> bool:
        """Whether each sample also gets a sequence of vectors."""
        return False

    def misfit(self, modality: Settings) -> str | None:
        """What keeps this encoder from reading members that are stored so; None where nothing does."""
        return None

    def dim(self, classes: int) -> int | None:
        """Width of the vector; None where it is known only once the encoder is opened."""
        return None

    def sources(self) -> Mapping[str, Json]:
        """What outside these settings decides the vectors, as the hashes of a model's files; part of the recipe.

        Raises ConfigError where it is not there or may not be used.
        """
        return {}

    def problems(self, name: str, modality: Settings) -> list[Problem]:
        """What is wrong once one looks at the model's files; `name` is the modality's. Empty where all is well."""
        return []

    def warnings(self, name: str, modality: Settings) -> list[str]:
        """What works and yet is probably not meant, in a sentence each."""
        return []


class Batched(EncoderSettings):
    """What encoders have in common that take many samples at a time through a network."""

    on_device: ClassVar[bool] = True

    batch: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Samples per forward pass at most. `auto` tries sizes once, keeps the fastest and records it; a size that the
    device's memory cannot hold is halved."""
