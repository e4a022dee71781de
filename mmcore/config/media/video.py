"""Settings of videos."""

from __future__ import annotations

from importlib.util import find_spec
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from mmcore.config.media.image import PixelSettings


class VideoSettings(PixelSettings):
    """Videos: a few upright frames, resized, each stored as a picture. The sound track is an `audio` modality's."""

    implementation: ClassVar[str] = "mmcore.modalities.video:VideoModality"
    version: ClassVar[int] = 2
    outside_recipe: ClassVar[frozenset[str]] = frozenset({"column"})
    several: ClassVar[bool] = False
    """The column holds one file, of which there are several members."""

    kind: Literal["video"] = "video"
    column: str
    """Manifest column with the file's path."""
    frames: int = Field(8, ge=1, le=10_000)
    """Evenly spaced frames kept, where `frames_per_s` is not given."""
    frames_per_s: float | None = Field(None, gt=0, le=1000)
    """Frames kept per second, `max_frames` at most."""
    format: Literal["png", "jpeg", "webp"] = "jpeg"
    """How frames are stored."""
    max_frames: int = Field(256, ge=1, le=10_000)
    """With `frames_per_s`: later frames are left out."""
    min_duration_s: float = Field(0.0, ge=0)
    """Shorter videos are set aside."""
    max_duration_s: float = Field(600.0, gt=0)
    """Of longer videos only the beginning is looked at."""
    max_bytes: int = Field(256_000_000, ge=1)
    """Larger files are set aside unread."""
    max_pixels: int = Field(36_000_000, ge=1)
    """Videos of larger frames are set aside before they are decoded."""

    @model_validator(mode="after")
    def _libraries(self) -> VideoSettings:
        if find_spec("av") is None:
            raise ValueError("videos need PyAV, which is not installed: pip install mmcore[video]")
        return self
