"""Encoders that learn from the training split."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from mmcore.config.base import Settings
from mmcore.config.data import Percentage
from mmcore.config.encoders.base import EncoderSettings
from mmcore.config.media import AudioSettings, PixelSettings


def _refit(value: Any) -> Any:
    """'10%' as .1; 'always' and 'never' as they are."""
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip()[:-1]) / 100
    return value


_Refit = Literal["always", "never"] | Annotated[float, Field(gt=0)]
Refit = Annotated[_Refit, BeforeValidator(_refit, json_schema_input_type=_Refit | Percentage)]


class TrainedEncoder(EncoderSettings):
    """What all encoders that are trained here have in common."""

    outside_recipe: ClassVar[frozenset[str]] = frozenset({"refit"})
    learns: ClassVar[bool] = True

    refit: Refit = "always"
    """Train again when the training data change: always, never, or when they have grown by a share such as '10%'.
    Whatever this says, no encoder is kept that shares no training shard with the data, or that learned from rows that
    are now in val or test."""
    seed: int = Field(0, ge=0)
    """Seed of initial weights, augmentation and order."""

    def dim(self, classes: int) -> int | None:
        """One score per class, unless an encoder adds to that."""
        return classes


class NeuralEncoder(TrainedEncoder):
    """What the encoders trained by backpropagation have in common.

    The vector is the network's score of each class (before the softmax, centred) and, if kept, its hidden units.
    """

    on_device: ClassVar[bool] = True

    hidden: int = Field(64, ge=1)
    """Hidden units before the scores."""
    keep_hidden: bool = False
    """Add the hidden units to the vector. They say more, but on few samples they know the training rows by heart, and
    a fusion model then trusts them too much."""
    epochs: int = Field(30, ge=1)
    """At most this many passes over the training split."""
    patience: int = Field(15, ge=1)
    """Stop after this many epochs without a better validation loss."""
    batch_size: int = Field(64, ge=1)
    """Samples per training step."""
    learning_rate: float = Field(4e-3, gt=0)
    """The highest of the schedule."""
    weight_decay: float = Field(1e-2, ge=0)
    """How strongly AdamW pulls weights to zero."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Share of hidden units left out at a time in training."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Share of the target spread over all classes, so that the scores do not claim more than they can."""
    augment: bool = True
    """Vary the training samples in ways that keep their class."""

    def dim(self, classes: int) -> int | None:
        return classes + (self.hidden if self.keep_hidden else 0)


class CnnSettings(NeuralEncoder):
    """A small convolutional network on images."""

    implementation: ClassVar[str] = "mmcore.features.encoders.cnn:CnnEncoder"
    kinds: ClassVar[frozenset[str]] = frozenset({"image"})

    encoder: Literal["cnn"] = "cnn"
    width: int = Field(16, ge=1)
    """Channels of the first layer; the last have four times as many."""

    def misfit(self, modality: Settings) -> str | None:
        if isinstance(modality, PixelSettings) and not (modality.equally_large and isinstance(modality.size, int)):
            return "takes squares: set resize to pad, crop or stretch, and size to one length"
        return None


class LogmelCnnSettings(NeuralEncoder):
    """A small convolutional network on log-mel spectrograms."""

    implementation: ClassVar[str] = "mmcore.features.encoders.logmel_cnn:LogmelCnnEncoder"
    kinds: ClassVar[frozenset[str]] = frozenset({"audio"})

    encoder: Literal["logmel-cnn"] = "logmel-cnn"
    width: int = Field(16, ge=1)
    """Channels of the first layer; the last have four times as many."""
    mels: int = Field(40, ge=8)
    """Mel bands."""
    window_s: float = Field(0.025, gt=0)
    """Length of one spectrogram column's window."""
    hop_s: float = Field(0.010, gt=0)
    """From one column to the next."""
    max_duration_s: float = Field(1.0, gt=0)
    """The network sees this much of the sound, where it is loudest; shorter ones are padded with silence."""
    dynamic_range_db: float = Field(45.0, gt=0)
    """What is fainter than the loudest by more than this counts as silence."""

    def misfit(self, modality: Settings) -> str | None:
        if isinstance(modality, AudioSettings) and modality.channels == "keep":
            return "takes one channel: set channels to mono"
        return None


class NgramSettings(TrainedEncoder):
    """Words and character n-grams, weighed by TF-IDF, the most telling of them scored by a linear classifier.

    The vector is the classifier's score of each class.
    """

    implementation: ClassVar[str] = "mmcore.features.encoders.ngram:NgramEncoder"
    kinds: ClassVar[frozenset[str]] = frozenset({"text"})

    encoder: Literal["ngram"] = "ngram"
    word_ngrams: int = Field(2, ge=1)
    """Longest word n-gram. One-character words and numerals count as words."""
    char_ngrams: int = Field(4, ge=0)
    """Longest character n-gram within words; 0 for none."""
    min_count: int = Field(2, ge=1)
    """N-grams in fewer training texts are left out."""
    max_features: int = Field(50_000, ge=1)
    """N-grams kept of each kind (words, characters), most frequent first."""
    folds: int = Field(5, ge=2)
    """Strength and selection are chosen by cross-validation on train with so many parts; and train rows get the
    scores of a classifier that did not learn from their part, so that fusion sees how good the text really is."""

    @property
    def holds_out(self) -> bool:
        return True
