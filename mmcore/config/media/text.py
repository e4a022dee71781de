"""Settings of text."""

from __future__ import annotations

import codecs
from importlib.util import find_spec
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from mmcore.config.base import Settings

_NOT_LEGACY = frozenset(
    {"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape", "utf-7", "mbcs", "oem"}
)
"""Codecs that turn bytes into text, but are no encoding of files."""


class TextSettings(Settings):
    """Text: one clean spelling (NFC, Unix line ends, no control characters), stored as UTF-8."""

    implementation: ClassVar[str] = "mmcore.modalities.text:TextModality"
    version: ClassVar[int] = 2
    outside_recipe: ClassVar[frozenset[str]] = frozenset({"column", "inline"})

    kind: Literal["text"] = "text"
    column: str
    """Manifest column with the file's path, or with the text itself."""
    inline: bool = False
    """The column holds the text itself."""
    several: bool = False
    """The column holds a list of files."""
    encoding: str = "utf-8"
    """Of files without a byte order mark: `utf-8`, another encoding's name as `cp1252`, or `detect`: UTF-8 where the
    bytes are valid UTF-8, else the encoding that they look most like."""
    strip_html: bool = False
    """Drop tags, scripts and styles, decode entities, start a new line for each block."""
    language: bool = False
    """Note each text's language (ISO 639-1, `und` where unsure) as a fact; needs the extra `language`."""
    min_chars: int = Field(1, ge=1)
    """Shorter texts are set aside."""
    max_chars: int = Field(10_000, ge=1)
    """Longer texts are cut to at most this many characters (code points), never within one that readers see as one."""
    max_bytes: int = Field(16_000_000, ge=1, le=1_000_000_000)
    """Larger files are set aside unread."""

    @field_validator("encoding")
    @classmethod
    def _known(cls, name: str) -> str:
        """One spelling per encoding, so that equal settings have equal digests."""
        if name == "detect":
            return name
        try:
            found = codecs.lookup(name).name
            "".encode(found)
        except LookupError:
            raise ValueError(f"{name!r} is no text encoding that Python knows; use utf-8, detect, or a name") from None
        if found.replace("_", "-") in _NOT_LEGACY:
            raise ValueError(f"{name!r} is not an encoding of files")
        return "utf-8" if found in {"utf-8-sig", "ascii"} else found

    @model_validator(mode="after")
    def _libraries(self) -> TextSettings:
        needed = (
            ("language", self.language, "py3langid", "language"),
            ("encoding: detect", self.encoding == "detect", "chardet", "encodings"),
            ("strip_html", self.strip_html, "selectolax", "html"),
        )
        for what, wanted, module, extra in needed:
            if wanted and find_spec(module) is None:
                raise ValueError(f"{what} needs {module}, which is not installed: pip install mmcore[{extra}]")
        return self

    @model_validator(mode="after")
    def _inline_is_text_already(self) -> TextSettings:
        if self.inline and self.encoding not in {"utf-8", "detect"}:
            raise ValueError(f"encoding: {self.encoding!r} is for files; an inline text has the manifest's encoding")
        if self.min_chars > self.max_chars:
            raise ValueError(f"min_chars ({self.min_chars:,}) is more than max_chars ({self.max_chars:,})")
        return self
