"""The encoders that are small networks, trained here."""

from __future__ import annotations

from importlib.util import find_spec
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from mmcore.config.base import Settings
from mmcore.config.encoders.trained import TrainedEncoder
from mmcore.config.media import AudioSettings, PixelSettings


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
    keep_tokens: bool = False
    """Also keep a vector for each position of the last layer before pooling (a place in the picture, a stretch of
    sound, a piece of text), for fusion methods that attend to sequences."""
    cross_fit: int | None = Field(None, ge=2)
    """Train so many further networks, each without one part of train, and give each training row the scores of the one
    that did not learn from it, so that fusion sees how good the encoder really is. Rows of one group stay together."""
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

    @model_validator(mode="after")
    def _only_scores_are_comparable(self) -> NeuralEncoder:
        kept = [name for name in ("keep_hidden", "keep_tokens") if getattr(self, name)]
        if self.cross_fit and kept:
            raise ValueError(
                f"cross_fit and {' and '.join(kept)} exclude each other: hidden units of networks trained apart mean "
                "different things, and only the scores of classes can be compared; leave one of them out"
            )
        return self

    @property
    def holds_out(self) -> bool:
        return self.cross_fit is not None

    @property
    def has_tokens(self) -> bool:
        return self.keep_tokens

    def dim(self, classes: int) -> int | None:
        return classes + (self.hidden if self.keep_hidden else 0)


class SelfSupervised(NeuralEncoder):
    """What networks have in common that can also learn without labels."""

    objective: Literal["supervised", "contrastive"] = "supervised"
    """What the network learns: the labels, or, without looking at them, to tell which two variations come from the same
    sample. The vector is then the hidden units alone."""
    temperature: float = Field(0.2, gt=0)
    """Of the contrastive loss: the lower, the more the hardest to tell apart count."""

    @model_validator(mode="after")
    def _contrasts_variations(self) -> SelfSupervised:
        if self.objective == "contrastive":
            if not self.augment:
                raise ValueError("objective contrastive compares variations of a sample: leave augment on")
            if self.keep_hidden:
                raise ValueError("objective contrastive gives the hidden units already: leave keep_hidden out")
            if self.cross_fit:
                raise ValueError(
                    "cross_fit and objective contrastive exclude each other: hidden units of networks trained apart "
                    "mean different things; leave one of them out"
                )
        return self

    @property
    def reads_labels(self) -> bool:
        return self.objective == "supervised"

    def dim(self, classes: int) -> int | None:
        return super().dim(classes) if self.objective == "supervised" else self.hidden


class ImageNetworkSettings(SelfSupervised):
    """What networks on images have in common."""

    kinds: ClassVar[frozenset[str]] = frozenset({"image"})

    width: int = Field(16, ge=1)
    """Channels of the first layer; the last have four times as many."""

    def misfit(self, modality: Settings) -> str | None:
        if isinstance(modality, PixelSettings) and not (modality.equally_large and isinstance(modality.size, int)):
            return "takes squares: set resize to pad, crop or stretch, and size to one length"
        return None


class CnnSettings(ImageNetworkSettings):
    """A small convolutional network on images."""

    implementation: ClassVar[str] = "mmcore.features.encoders.cnn:CnnEncoder"

    encoder: Literal["cnn"] = "cnn"


class ResnetSettings(ImageNetworkSettings):
    """A small residual network on images: deeper than `cnn`, with a short cut past every two convolutions."""

    implementation: ClassVar[str] = "mmcore.features.encoders.resnet:ResnetEncoder"

    encoder: Literal["resnet"] = "resnet"
    blocks: int = Field(1, ge=1)
    """Blocks of two convolutions per size of the maps, which are halved until they are at most 8 by 8."""


class LogmelSettings(SelfSupervised):
    """What networks on log-mel spectrograms have in common."""

    kinds: ClassVar[frozenset[str]] = frozenset({"audio"})

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


class LogmelCnnSettings(LogmelSettings):
    """A small convolutional network on log-mel spectrograms."""

    implementation: ClassVar[str] = "mmcore.features.encoders.logmel_cnn:LogmelCnnEncoder"

    encoder: Literal["logmel-cnn"] = "logmel-cnn"


class LogmelCrnnSettings(LogmelSettings):
    """Convolutions on log-mel spectrograms, then a recurrent network that reads them forwards and backwards."""

    implementation: ClassVar[str] = "mmcore.features.encoders.logmel_crnn:LogmelCrnnEncoder"

    encoder: Literal["logmel-crnn"] = "logmel-crnn"
    units: int = Field(48, ge=1)
    """Units of the recurrent layer in each direction."""


class TextNetworkSettings(NeuralEncoder):
    """What networks on text have in common: they read pieces of words that a tokenizer finds in the training texts."""

    kinds: ClassVar[frozenset[str]] = frozenset({"text"})

    learning_rate: float = Field(2e-3, gt=0)
    """The highest of the schedule."""
    vocabulary: int = Field(2000, ge=300)
    """Pieces that the tokenizer may tell apart at most, the 256 bytes among them."""
    max_tokens: int = Field(128, ge=2)
    """Longer texts are read up to here."""
    width: int = Field(64, ge=1)
    """Width of the vectors that stand for pieces."""

    @model_validator(mode="after")
    def _is_installed(self) -> TextNetworkSettings:
        if find_spec("tokenizers") is None:
            raise ValueError(
                f"encoder {self.encoder!r} needs tokenizers, which is not installed: pip install mmcore[tokenizers]"
            )
        return self


class BigruSettings(TextNetworkSettings):
    """A recurrent network that reads a text forwards and backwards."""

    implementation: ClassVar[str] = "mmcore.features.encoders.bigru:BigruEncoder"

    encoder: Literal["bigru"] = "bigru"
    units: int = Field(48, ge=1)
    """Units of the recurrent layer in each direction."""


class TextTransformerSettings(TextNetworkSettings):
    """A small transformer, in which every piece of a text attends to all others."""

    implementation: ClassVar[str] = "mmcore.features.encoders.text_transformer:TextTransformerEncoder"

    encoder: Literal["text-transformer"] = "text-transformer"
    layers: int = Field(2, ge=1)
    """Layers of attention."""
    heads: int = Field(4, ge=1)
    """Parts of each layer that attend separately; `width` is a multiple of it."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> TextTransformerSettings:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads, which is {self.heads}")
        return self
