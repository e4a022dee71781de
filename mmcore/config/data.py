"""Where samples come from, how each modality is decoded and normalised, and how shards are cut."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from mmcore.config.base import Part, Settings


def _fraction(value: Any) -> Any:
    """'5%' as .05; anything else as it is."""
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip()[:-1]) / 100
    return value


Percentage = Annotated[str, Field(pattern=r"^\s*\d+(\.\d+)?\s*%\s*$")]
_Share = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[_Share, BeforeValidator(_fraction, json_schema_input_type=_Share | Percentage)]


class ImageSettings(Settings):
    """Images: decoded to RGB or grey, resized to one square size, stored as PNG or JPEG."""

    implementation: ClassVar[str] = "mmcore.modalities.image:ImageModality"
    outside_recipe: ClassVar[frozenset[str]] = frozenset({"column"})

    kind: Literal["image"] = "image"
    column: str
    """Manifest column with the file's path."""
    size: int = Field(64, ge=1, le=4096)
    """Side of the stored square, in pixels."""
    resize: Literal["pad", "crop", "stretch"] = "pad"
    """Keep all and pad with `background`, keep the middle square, or ignore the aspect ratio."""
    mode: Literal["rgb", "grey"] = "rgb"
    """Colour channels kept."""
    background: tuple[int, int, int] = (255, 255, 255)
    """RGB colour under transparent pixels and in the padding."""
    format: Literal["png", "jpeg"] = "png"
    """How members are stored."""
    quality: int = Field(90, ge=1, le=100)
    """JPEG quality; PNG has none."""
    max_bytes: int = Field(64_000_000, ge=1)
    """Larger files are set aside unread."""
    max_pixels: int = Field(100_000_000, ge=1)
    """Larger pictures are set aside before they are decoded."""


class AudioSettings(Settings):
    """Sound: decoded, mixed to mono, resampled, stored as 16-bit FLAC or WAV."""

    implementation: ClassVar[str] = "mmcore.modalities.audio:AudioModality"
    outside_recipe: ClassVar[frozenset[str]] = frozenset({"column"})

    kind: Literal["audio"] = "audio"
    column: str
    """Manifest column with the file's path."""
    sample_rate_hz: int = Field(16_000, ge=1_000, le=192_000)
    """Rate of the stored sound."""
    max_duration_s: float = Field(30.0, gt=0)
    """Longer sounds are cut to this."""
    min_duration_s: float = Field(0.01, ge=0)
    """Shorter sounds are set aside."""
    format: Literal["flac", "wav"] = "flac"
    """How members are stored."""
    max_bytes: int = Field(256_000_000, ge=1)
    """Larger files are set aside unread."""


class TextSettings(Settings):
    """Text: UTF-8, normalised to NFC with Unix line ends, control characters removed."""

    implementation: ClassVar[str] = "mmcore.modalities.text:TextModality"
    outside_recipe: ClassVar[frozenset[str]] = frozenset({"column", "inline"})

    kind: Literal["text"] = "text"
    column: str
    """Manifest column with the file's path, or with the text itself."""
    inline: bool = False
    """The column holds the text itself."""
    max_chars: int = Field(10_000, ge=1)
    """Longer texts are cut to this many characters."""
    max_bytes: int = Field(16_000_000, ge=1)
    """Larger files are set aside unread."""


ModalitySettings = Annotated[ImageSettings | AudioSettings | TextSettings, Field(discriminator="kind")]


class Columns(Part):
    """Which manifest column is what."""

    key: str = "id"
    """Names the sample; unique."""
    label: str = "label"
    """The class to predict."""
    split: str = "split"
    """`train`, `val` or `test`."""


class DataConfig(Part):
    """The manifest and what it names."""

    manifest: str | list[str]
    """CSV, TSV, JSONL or Parquet: a path, a list of paths, or a glob.

    Relative paths start from the YAML's folder, or from the folder that a deployment was made in.
    """
    root: str | None = None
    """Folder that the paths in the manifest start from; the manifest's own folder when not given."""
    columns: Columns = Columns()
    modalities: dict[str, ModalitySettings] = Field(min_length=1)
    """Name of each modality and how it is decoded, normalised and stored."""
    pairing: Literal["instance", "class"] = "instance"
    """Whether a row's modalities are one thing, or only of one class."""
    bad_modality: Literal["keep", "drop"] = "keep"
    """Keep a sample without its bad modality, or drop the sample."""
    fingerprint: Literal["stat", "sha256"] = "stat"
    """Notice edited files by size and time, or by reading all their bytes."""
    limit: int | None = Field(None, ge=1)
    """Only the first N rows, to try things out."""
    max_rejected: Fraction = 0.05
    """The run stops when a larger share of the rows has a reject. A fraction, or '5%'."""

    @model_validator(mode="after")
    def _names_fit_in_a_tar(self) -> DataConfig:
        for name in self.modalities:
            if not name.isidentifier() or name != name.lower():
                raise ValueError(f"modality name {name!r}: use lower-case letters, digits and underscores")
        return self


class ShardsConfig(Part):
    """How samples are cut into shards."""

    samples: int = Field(256, ge=1, le=1_000_000)
    """Mean rows per shard; each has at least half and at most four times as many."""
