"""Ogg Opus with equal bytes for equal sound."""

from __future__ import annotations

import struct
import zlib

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def without_chance(data: bytes) -> bytes:
    """The same Ogg file with stream number 0 instead of a random one, its pages' checksums mended (RFC 3533, 6)."""
    pages = bytearray(data)
    at = 0
    while at < len(pages):
        count = pages[at + 26]
        stop = at + 27 + count + sum(pages[at + 27 : at + 27 + count])
        pages[at + 14 : at + 18] = bytes(4)
        pages[at + 22 : at + 26] = bytes(4)
        struct.pack_into("<I", pages, at + 22, _checksum(bytes(pages[at:stop])))
        at = stop
    return bytes(pages)


def _checksum(page: bytes) -> int:
    """Ogg's CRC runs through bits the other way round than zlib's, and starts and ends plainly."""
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
