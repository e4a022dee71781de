"""From a text file's bytes to its characters."""

from __future__ import annotations

import codecs
import re

from mmcore.modalities.base import Rejected

_MARKS = (  # the mark of UTF-32 starts with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
)
_TELLING = re.compile(rb"[^\x01-\x1a\x1c-\x7f]")
"""Bytes by which encodings differ: not ASCII, or the escape byte that ISO 2022 switches with."""
_NONE = "utf-32-be"
"""Stands for no answer: it must be one that may be detected, so it is the rarest."""
_BEFORE, _LOOKED_AT = 1_000, 64_000
"""Bytes given to the detector: some before the first telling one, and what follows it."""


def text_of_bytes(data: bytes, encoding: str) -> tuple[str, str, bool] | Rejected:
    """The text, the encoding it was in, and whether a byte order mark said so.

    A mark always wins over `encoding`, which may be `detect`. Nothing is guessed without `detect`, and nothing is
    replaced: bytes that the encoding does not allow reject the file, and so does NUL, which no text holds.
    """
    named = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), None)
    if named is not None:
        mark, name = named
        text = _strictly(data[len(mark) :], name)
        return text if isinstance(text, Rejected) else (text, name, True)
    if encoding != "detect":
        text = _strictly(data, encoding)
        return text if isinstance(text, Rejected) else (text, encoding, False)
    text = _strictly(data, "utf-8")
    if isinstance(text, str) and "\x1b" not in text:
        return text, "utf-8", False
    detected = _detected(data)
    if isinstance(detected, Rejected):
        return detected
    text = _strictly(data, detected)
    return text if isinstance(text, Rejected) else (text, detected, False)


def _strictly(data: bytes, encoding: str) -> str | Rejected:
    code = "not-utf8" if encoding == "utf-8" else "wrong-encoding"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        return Rejected(code, f"byte {error.start:,} is not valid {encoding.upper()} ({error.reason})")
    except ValueError as error:  # some codecs of Asian encodings
        return Rejected(code, f"the bytes are not valid {encoding.upper()} ({error})")
    if "\0" in text:
        return Rejected(code, "the text holds NUL characters, as UTF-16 or binary data do")
    if not text.isascii() and _SURROGATE.search(text):
        return Rejected(code, "the text holds half a surrogate pair")
    return text


_SURROGATE = re.compile("[\ud800-\udfff]")


def _detected(data: bytes) -> str | Rejected:
    """The encoding that the bytes look most like, of those that web pages use, and UTF-16 and 32 without a mark."""
    try:
        import chardet
    except ImportError:
        return Rejected("missing-library", "encoding: detect needs chardet; install mmcore[encodings]")
    found = _TELLING.search(data)
    start = max(0, found.start() - _BEFORE) // 4 * 4 if found else 0
    guess = chardet.detect(
        data[start : start + _LOOKED_AT],
        encoding_era=chardet.EncodingEra.MODERN_WEB,
        prefer_superset=True,
        compat_names=False,
        no_match_encoding=_NONE,
    )["encoding"]
    if guess is None or guess == _NONE:
        return Rejected("unknown-encoding", "the bytes look like no text encoding")
    return codecs.lookup(guess).name
