"""Settings of sound."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from mmcore.config.base import Settings

OPUS_RATES_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)


class AudioSettings(Settings):
    """Sound: decoded, mixed, resampled, cut or padded, stored as FLAC, WAV (16 bits) or Opus."""

    implementation: ClassVar[str] = "mmcore.modalities.audio:AudioModality"
    version: ClassVar[int] = 3
    outside_recipe: ClassVar[frozenset[str]] = frozenset({"column"})

    kind: Literal["audio"] = "audio"
    column: str
    """Manifest column with the file's path: a sound, or a video whose sound track is taken."""
    sample_rate_hz: int = Field(16_000, ge=1_000, le=192_000)
    """Rate of the stored sound."""
    channels: Literal["mono", "keep"] = "mono"
    """Average the channels, or keep them."""
    duration_s: float | None = Field(None, gt=0, le=86_400)
    """Cut or pad every sound with silence to exactly this; as long as they are when not given."""
    trim_silence_db: float | None = Field(None, ge=-120, lt=0)
    """Drop what is quieter than this (dB of full scale, peak) at the beginning and the end, as -50."""
    loudness_lufs: float | None = Field(None, ge=-70, le=0)
    """Amplify to this integrated loudness (EBU R 128: -23), but not beyond full scale."""
    measure_loudness: bool = False
    """Note the integrated loudness as a fact, `loudness_lufs`."""
    format: Literal["flac", "wav", "opus"] = "flac"
    """How members are stored; Opus loses what is hard to hear."""
    several: bool = False
    """The column holds a list of files; each is a member of its own."""
    max_duration_s: float = Field(30.0, gt=0)
    """Longer sounds are cut to this before anything else."""
    min_duration_s: float = Field(0.01, ge=0)
    """Shorter sounds are set aside."""
    max_channels: int = Field(64, ge=1)
    """Sounds of more channels are set aside; so are those of more than 8 where they are kept in FLAC or Opus."""
    max_bytes: int = Field(256_000_000, ge=1)
    """Larger files are set aside unread."""

    @property
    def most_channels(self) -> int:
        """`max_channels`, or what the format holds."""
        holds = 8 if self.channels == "keep" and self.format != "wav" else self.max_channels
        return min(self.max_channels, holds)

    @model_validator(mode="after")
    def _fits(self) -> AudioSettings:
        if self.format == "opus" and self.sample_rate_hz not in OPUS_RATES_HZ:
            raise ValueError(
                f"sample_rate_hz: Opus knows {', '.join(map(str, OPUS_RATES_HZ))} Hz, not {self.sample_rate_hz}"
            )
        if self.duration_s is not None and self.duration_s > self.max_duration_s:
            raise ValueError(f"duration_s ({self.duration_s:g}) is more than max_duration_s ({self.max_duration_s:g})")
        return self
