"""Text: any encoding in, one clean spelling in UTF-8 out."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace
from typing import ClassVar

from mmcore.config.media import TextSettings
from mmcore.modalities import language, minhash
from mmcore.modalities.base import Member, Modality, Rejected
from mmcore.modalities.html_text import visible_text
from mmcore.modalities.text_encoding import text_of_bytes
from mmcore.records import Json

BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that make text appear in another order than it is in."""
UNWANTED = {ord(mark) for mark in BIDI_CONTROLS | {"\ufeff"}} | {
    code for code in range(0xA0) if unicodedata.category(chr(code)) == "Cc" and chr(code) not in "\t\n"
}
"""Code points that are removed: control characters but tab and line end, marks of order, byte order marks."""
_REMOVE = dict.fromkeys(UNWANTED)
LOOK_BACK = 512
"""So far before the limit a place is looked for where a character surely begins."""


@dataclass(frozen=True)
class Text:
    """A decoded text, and how it came."""

    text: str
    encoding: str
    applied: tuple[str, ...] = ()


class TextModality(Modality[Text]):
    """Decodes, unifies line ends, removes controls, normalises to NFC, cuts.

    Joiners (zero-width joiner and non-joiner) stay: emoji and several scripts need them.
    """

    kind: ClassVar[str] = "text"

    def __init__(self, settings: TextSettings) -> None:
        self.settings = settings
        self.several = settings.several

    @property
    def extension(self) -> str:
        return "txt"

    def decode(self, data: bytes) -> Text | Rejected:
        if len(data) > self.settings.max_bytes:
            return Rejected("too-many-bytes", f"{len(data):,} bytes; max_bytes is {self.settings.max_bytes:,}")
        found = text_of_bytes(data, self.settings.encoding)
        if isinstance(found, Rejected):
            return found
        text, encoding, marked = found
        applied = ["byte-order-mark-removed"] if marked else []
        if encoding != "utf-8":
            applied.append("to-utf-8")
        if self.settings.strip_html:
            stripped = visible_text(text)
            if stripped != text:
                applied.append("html-stripped")
            text = stripped
        # splitlines knows all line ends; the rest of the control characters goes without a trace.
        lines = "\n".join(text.splitlines())
        clean = lines.translate(_REMOVE)
        if len(clean) < len(lines):
            applied.append("controls-removed")
        return Text(clean.strip(), encoding, tuple(applied))

    def check(self, value: Text) -> dict[str, Json] | Rejected:
        """Characters and white-space separated words of the whole text, before it is cut, and the file's encoding."""
        text = value.text
        if not text or (not text.isprintable() and _is_invisible(text)):
            return Rejected("empty-text", "nothing is left without white space and invisible characters")
        if len(text) < self.settings.min_chars:
            return Rejected("too-short", f"{len(text):,} characters; min_chars is {self.settings.min_chars:,}")
        return {"chars": len(text), "words": len(text.split()), "encoding": value.encoding}

    def normalise(self, value: Text) -> Text:
        text, limit, applied = value.text, self.settings.max_chars, value.applied
        # Composing takes quadratic time on long runs of combining marks, so it is given no more than it may need.
        composed = unicodedata.normalize("NFC", text[: 4 * limit])
        if len(text) <= 4 * limit and composed != text:
            applied = (*applied, "composed")
        if len(composed) > limit or len(text) > 4 * limit:
            composed, applied = _cut(composed, limit).rstrip(), (*applied, "cut")
        return replace(value, text=composed, applied=applied)

    def encode(self, value: Text) -> bytes:
        return value.text.encode()

    def load(self, data: bytes) -> str:
        """The member as a str."""
        return data.decode()

    def signature(self, value: Text) -> bytes | None:
        """256 bytes: see `minhash.signature`."""
        return minhash.signature(value.text)

    def process(self, data: bytes) -> Member | Rejected:
        """As for any modality, but hash and language are of what is stored."""
        if not data:
            return Rejected("empty-file", "the file has no bytes")
        value = self.decode(data)
        if isinstance(value, Rejected):
            return value
        facts = self.check(value)
        if isinstance(facts, Rejected):
            return facts
        stored = self.normalise(value)
        if self.settings.language:
            facts["language"] = language.of_text(stored.text)
        if stored.applied:
            facts["applied"] = list(stored.applied)
        return Member((self.encode(stored),), facts, self.signature(stored))


def _is_invisible(text: str) -> bool:
    return all(character.isspace() or unicodedata.category(character) == "Cf" for character in text)


def _cut(text: str, limit: int) -> str:
    """At most `limit` code points, ending where what a reader sees as one character ends (Unicode UAX 29)."""
    if len(text) <= limit:
        return text
    if text[limit - 1 : limit + 1].isascii():  # none of these joins another but line ends, which are one here
        return text[:limit]
    import regex  # few texts are cut

    # An ASCII letter or a space begins a character, whatever stands before it.
    start = next((at for at in range(limit - 1, max(0, limit - LOOK_BACK), -1) if text[at].isascii()), 0)
    end = start
    for found in regex.finditer(r"\X", text, pos=start):
        if found.end() > limit:
            break
        end = found.end()
    # A single character longer than the limit, as no script has it, is cut after all.
    return text[: end or limit]
