"""Text: UTF-8 in, one clean spelling of it out."""

from __future__ import annotations

import unicodedata
from typing import ClassVar

from mmcore.config.media import TextSettings
from mmcore.modalities.base import Modality, Rejected
from mmcore.records import Json

BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that make text appear in another order than it is in."""
UNWANTED = {ord(mark) for mark in BIDI_CONTROLS | {"\ufeff"}} | {
    code for code in range(0xA0) if unicodedata.category(chr(code)) == "Cc" and chr(code) not in "\t\n"
}
"""Code points that are removed: control characters but tab and line end, marks of order, byte order marks."""
_REMOVE = dict.fromkeys(UNWANTED)


class TextModality(Modality[str]):
    """Decodes UTF-8 (a byte order mark is dropped), unifies line ends, removes controls, normalises to NFC, cuts.

    Joiners (zero-width joiner and non-joiner) stay: emoji and several scripts need them.
    """

    kind: ClassVar[str] = "text"

    def __init__(self, settings: TextSettings) -> None:
        self.settings = settings
        self.several = getattr(settings, "several", False)

    @property
    def extension(self) -> str:
        return "txt"

    def decode(self, data: bytes) -> str | Rejected:
        if len(data) > self.settings.max_bytes:
            return Rejected("too-many-bytes", f"{len(data):,} bytes; max_bytes is {self.settings.max_bytes:,}")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            return Rejected("not-utf8", f"byte {error.start:,} is not valid UTF-8 ({error.reason})")
        if "\0" in text:
            return Rejected("not-utf8", "the text holds NUL characters, as UTF-16 or binary data do")
        # splitlines knows all line ends; the rest of the control characters goes without a trace.
        return "\n".join(text.splitlines()).translate(_REMOVE).strip()

    def check(self, value: str) -> dict[str, Json] | Rejected:
        """Characters and white-space separated words of the whole text, before it is cut."""
        if all(character.isspace() or unicodedata.category(character) == "Cf" for character in value):
            return Rejected("empty-text", "nothing is left without white space and invisible characters")
        return {"chars": len(value), "words": len(value.split())}

    def normalise(self, value: str) -> str:
        limit = self.settings.max_chars
        # Composing takes quadratic time on long runs of combining marks, so it is given no more than it may need.
        return unicodedata.normalize("NFC", value[: 4 * limit])[:limit].rstrip()

    def encode(self, value: str) -> bytes:
        return value.encode()

    def load(self, data: bytes) -> str:
        """The member as a str."""
        return data.decode()
