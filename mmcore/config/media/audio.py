"""Settings of sound."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from mmcore.config.base import Settings


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
    several: bool = False
    """The column holds a list of files; each is a member of its own."""
    max_bytes: int = Field(256_000_000, ge=1)
    """Larger files are set aside unread."""
