"""The encoders that turn one modality of a sample into a feature vector."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from mmcore.config.base import Settings


def _refit(value: Any) -> Any:
    """'10%' as .1; 'always' and 'never' as they are."""
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip()[:-1]) / 100
    return value


Refit = Annotated[Literal["always", "never"] | Annotated[float, Field(gt=0)], BeforeValidator(_refit)]


class TrainedEncoder(Settings):
    """What all encoders that are trained here have in common."""

    outside_recipe: ClassVar[frozenset[str]] = frozenset({"refit"})
    modality_kind: ClassVar[str]
    """The kind of modality that this encoder reads."""

    refit: Refit = "always"
    """Train again when the training data change: always, never, or when they have grown by a share such as '10%'."""
    seed: int = Field(0, ge=0)
    """Seed of initial weights, augmentation and order."""


class NeuralEncoder(TrainedEncoder):
    """What the encoders trained by backpropagation have in common."""

    dim: int = Field(64, ge=1)
    """Width of the feature vector."""
    epochs: int = Field(40, ge=1)
    """At most this many passes over the training split."""
    patience: int = Field(8, ge=1)
    """Stop after this many epochs without a better validation loss."""
    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    augment: bool = True
    """Vary the training samples in ways that keep their class."""


class CnnSettings(NeuralEncoder):
    """A small convolutional network on images."""

    implementation: ClassVar[str] = "mmcore.features.encoders.cnn:CnnEncoder"
    modality_kind: ClassVar[str] = "image"

    encoder: Literal["cnn"] = "cnn"
    width: int = Field(24, ge=1)
    """Channels of the first layer; each further stage has twice as many."""


class LogmelCnnSettings(NeuralEncoder):
    """A small convolutional network on log-mel spectrograms."""

    implementation: ClassVar[str] = "mmcore.features.encoders.logmel_cnn:LogmelCnnEncoder"
    modality_kind: ClassVar[str] = "audio"

    encoder: Literal["logmel-cnn"] = "logmel-cnn"
    width: int = Field(24, ge=1)
    """Channels of the first layer; each further stage has twice as many."""
    mels: int = Field(40, ge=8)
    """Mel bands."""
    window_s: float = Field(0.025, gt=0)
    hop_s: float = Field(0.010, gt=0)
    max_duration_s: float = Field(1.0, gt=0)
    """The network sees this much of the sound; shorter ones are padded with silence."""


class NgramSettings(TrainedEncoder):
    """TF-IDF over word and character n-grams, then a supervised linear projection."""

    implementation: ClassVar[str] = "mmcore.features.encoders.ngram:NgramEncoder"
    modality_kind: ClassVar[str] = "text"

    encoder: Literal["ngram"] = "ngram"
    dim: int = Field(64, ge=1)
    """Width of the feature vector (at most; small vocabularies give less)."""
    word_ngrams: int = Field(2, ge=1)
    """Longest word n-gram. One-character words and numerals count as words."""
    char_ngrams: int = Field(4, ge=0)
    """Longest character n-gram within words; 0 for none."""
    max_features: int = Field(50_000, ge=1)
    """N-grams kept, most frequent first."""


EncoderSettings = Annotated[CnnSettings | LogmelCnnSettings | NgramSettings, Field(discriminator="encoder")]
