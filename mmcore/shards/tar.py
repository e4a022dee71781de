"""Plain ustar archives, equal to the byte for equal members: no times, no owners, no extension records."""

from __future__ import annotations

from typing import BinaryIO

from mmcore.sources.keys import EXTENSION_BYTES, MEMBER_NAME_BYTES, PART_DIGITS, escape

BLOCK = 512
LARGEST_MEMBER_BYTES = 8**11 - 1
"""What eleven octal digits can say."""

_NUL = b"\x00"
_MODE_AND_OWNER = _NUL.join((b"0000644", b"0000000", b"0000000", b""))
_TIME = b"0" * 11 + _NUL
# Type (plain file), no link, magic, version; no owner names, device numbers or prefix; padding.
_REST = b"".join((b"0", bytes(100), b"ustar", _NUL, b"00", bytes(32 + 32 + 8 + 8 + 155 + 12)))
_FIXED_SUM = sum(_MODE_AND_OWNER) + sum(_TIME) + sum(_REST) + 8 * ord(" ")


def member_name(key: str, modality: str, extension: str, part: int | None = None) -> str:
    """The name of a sample's member, grouped by readers under the (escaped) key; `part` numbers several of them."""
    if len(extension) > EXTENSION_BYTES or not extension.isascii():
        raise ValueError(f"{modality}: members end in .{extension}; at most {EXTENSION_BYTES} bytes have room")
    if part is None:
        return f"{escape(key)}.{modality}.{extension}"
    return f"{escape(key)}.{modality}.{part:0{PART_DIGITS}}.{extension}"


def header(name: str, size_bytes: int) -> bytes:
    """The 512 bytes before a member. Raises ValueError for what a plain header cannot say."""
    encoded = name.encode()
    if len(encoded) > MEMBER_NAME_BYTES or size_bytes > LARGEST_MEMBER_BYTES:
        raise ValueError(
            f"{name}: the name ({len(encoded)} bytes) or size ({size_bytes:,}) has no room in a tar header"
        )
    size = b"%011o\0" % size_bytes
    checksum = b"%06o\0 " % (_FIXED_SUM + sum(encoded) + sum(size))
    return b"".join((encoded.ljust(MEMBER_NAME_BYTES, b"\0"), _MODE_AND_OWNER, size, _TIME, checksum, _REST))


class TarWriter:
    """Appends members to an archive."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0

    def add(self, name: str, data: bytes) -> int:
        """Append one member; returns the offset of its first byte."""
        offset = self._position + BLOCK
        padding = -len(data) % BLOCK
        self._file.write(b"".join((header(name, len(data)), data, bytes(padding))))
        self._position = offset + len(data) + padding
        return offset

    @property
    def size_bytes(self) -> int:
        """Bytes of the members so far."""
        return self._position

    def finish(self) -> None:
        """End the archive with its two empty blocks."""
        self._file.write(bytes(2 * BLOCK))
