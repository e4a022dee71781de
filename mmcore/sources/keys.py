"""Which keys can name the members of a tar, and how they are spelt there."""

from __future__ import annotations

import re

MEMBER_NAME_BYTES = 100
"""A plain tar header holds this many bytes of a name."""
EXTENSION_BYTES = 4
"""Room kept for the ending of a member, as `flac`."""
PART_DIGITS = 3
"""Digits that number the members of a modality of which a sample may have several."""
UNFIT = re.compile(r"[/\x00-\x1f\x7f-\x9f]|^\.")
"""What no key may hold: slashes, control characters, a dot at its start."""


def escape(key: str) -> str:
    """The key as members are named: readers split names at the first dot, so dots are spelt %2E (and % as %25)."""
    return key.replace("%", "%25").replace(".", "%2E") if "." in key or "%" in key else key


def longest_key(modalities: tuple[str, ...]) -> int:
    """Bytes that an escaped key may have, so that `<key>.<modality>.<extension>` fits into a tar header."""
    return MEMBER_NAME_BYTES - max(len(name) for name in modalities) - 2 - EXTENSION_BYTES - PART_DIGITS - 1


def why_unfit(key: str, longest: int) -> str | None:
    """What keeps the key from naming a member, or None."""
    if found := UNFIT.search(key):
        return "starts with a dot" if found.group() == "." else f"holds {found.group()!r}"
    if (size := len(escape(key).encode())) > longest:
        return f"takes {size} bytes in a tar, and there is room for {longest}"
    return None
