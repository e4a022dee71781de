"""Encoders that learn nothing from labels: what a run's own encoders are held against."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from mmcore.config.encoders.base import EncoderSettings
from mmcore.config.encoders.trained import TrainedEncoder

Bins = Annotated[int, Field(ge=1, le=64)]


class HogSettings(EncoderSettings):
    """Where a picture's edges run and which colours it has; nothing is learned."""

    implementation: ClassVar[str] = "mmcore.features.encoders.hog:HogEncoder"
    kinds: ClassVar[frozenset[str]] = frozenset({"image"})

    encoder: Literal["hog"] = "hog"
    size: int = Field(64, ge=2, le=1024)
    """Every picture is stretched to a square of so many pixels first."""
    cell: int = Field(16, ge=1)
    """Side in pixels of the squares that each have a histogram of gradients."""
    block: int = Field(2, ge=1)
    """Side in cells of the overlapping squares within which histograms are brought to one length."""
    orientations: int = Field(9, ge=1, le=180)
    """Bins of a cell's histogram, over half a turn."""
    colour_bins: tuple[Bins, Bins, Bins] = (8, 2, 4)
    """Bins of hue, saturation and value (HSV) of the colour histogram, which has one bin for each combination."""

    @model_validator(mode="after")
    def _a_block_fits(self) -> HogSettings:
        if self.size < self.cell * self.block:
            raise ValueError(
                f"size ({self.size}) has no room for a block of {self.block} x {self.block} cells of {self.cell} pixels"
            )
        return self

    def dim(self, classes: int) -> int | None:
        blocks = self.size // self.cell - self.block + 1
        hue, saturation, value = self.colour_bins
        return hue * saturation * value + blocks**2 * self.block**2 * self.orientations


class MelStatsSettings(EncoderSettings):
    """How a sound's mel bands and cepstral coefficients (MFCC) spread over its length; nothing is learned."""

    implementation: ClassVar[str] = "mmcore.features.encoders.mel_stats:MelStatsEncoder"
    kinds: ClassVar[frozenset[str]] = frozenset({"audio"})

    encoder: Literal["mel-stats"] = "mel-stats"
    mels: int = Field(40, ge=2)
    """Mel bands between 0 Hz and half the sample rate."""
    mfcc: int = Field(20, ge=1)
    """Cepstral coefficients."""
    window_s: float = Field(0.025, gt=0)
    """Length of one spectrogram column's window."""
    hop_s: float = Field(0.010, gt=0)
    """From one column to the next."""
    dynamic_range_db: float = Field(80.0, gt=0)
    """What is fainter than the loudest by more than this counts as silence."""

    @model_validator(mode="after")
    def _coefficients_fit(self) -> MelStatsSettings:
        if self.mfcc > self.mels:
            raise ValueError(f"mfcc ({self.mfcc}) is more than mels ({self.mels})")
        return self

    def dim(self, classes: int) -> int | None:
        return 2 * self.mels + 3 * self.mfcc


class TfidfSettings(TrainedEncoder):
    """Hashed words, weighed by TF-IDF, brought to few numbers by a truncated SVD (latent semantic analysis).

    Weights and SVD are learned from the texts of the training split, without their labels.
    """

    implementation: ClassVar[str] = "mmcore.features.encoders.tfidf:TfidfEncoder"
    kinds: ClassVar[frozenset[str]] = frozenset({"text"})
    validates: ClassVar[bool] = False

    encoder: Literal["tfidf"] = "tfidf"
    word_ngrams: int = Field(2, ge=1)
    """Longest word n-gram. One-character words and numerals count as words."""
    buckets: int = Field(2**18, ge=2, le=2**31 - 1)
    """N-grams are hashed into so many columns."""
    components: int = Field(64, ge=1)
    """Width of the vector. Where the training texts span fewer dimensions, the rest is zero."""

    @property
    def reads_labels(self) -> bool:
        return False

    def dim(self, classes: int) -> int | None:
        return self.components


CLASSICAL: dict[str, EncoderSettings] = {
    "image": HogSettings(),
    "video": HogSettings(),
    "audio": MelStatsSettings(),
    "text": TfidfSettings(),
}
"""The classical encoder of each kind of modality, which is a run's floor."""
