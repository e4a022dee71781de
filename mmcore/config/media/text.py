"""Settings of text."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from mmcore.config.base import Settings


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
