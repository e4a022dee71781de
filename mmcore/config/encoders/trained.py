"""What encoders that learn from the training split have in common, and the one of n-grams."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from mmcore.config.data import Percentage
from mmcore.config.encoders.base import EncoderSettings


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


class NgramSettings(TrainedEncoder):
    """Words and character n-grams, weighed by TF-IDF, the most telling of them scored by a linear classifier.

    The vector is the classifier's score of each class.
    """

    implementation: ClassVar[str] = "mmcore.features.encoders.ngram:NgramEncoder"
    version: ClassVar[int] = 2
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
    """Strength and selection are chosen by cross-validation on train with so many parts, none of which shares a
    group with another; and train rows get the scores of a classifier that did not learn from their part, so that fusion
    sees how good the text really is."""

    @property
    def holds_out(self) -> bool:
        return True
