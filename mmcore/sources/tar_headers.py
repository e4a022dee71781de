"""The members of any tar in one pass over its headers: ustar, PAX, GNU long names, sizes beyond eight gigabytes.

Strict where common readers stop without a word: a header that is damaged, a member or an archive that is cut off, and
blocks of zeros in the middle are errors that say where.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from mmcore.errors import DamagedError

BLOCK = 512
LARGEST_RECORD_BYTES = 1 << 20
"""Extension records are names and attributes; a larger one is damage."""
_ZEROS = bytes(BLOCK)
_REGULAR = frozenset({b"0", b"\0", b"7"})
_PLAIN = frozenset("01234567")


@dataclass(frozen=True)
class TarMember:
    """A plain file in a tar: its name, its first byte and its size."""

    name: str
    offset: int
    size_bytes: int


def scan(file: BinaryIO, url: str) -> Iterator[TarMember]:
    """Every plain file of an archive, in order; folders and links are passed over. `url` is for messages.

    Seeks before each header, so that the file may be read in between. Raises DamagedError for what is no sound tar.
    """
    size = file.seek(0, 2)
    position, last = 0, "its beginning"
    lasting: dict[str, str] = {}
    passing: dict[str, str] = {}
    while True:
        file.seek(position)
        header = file.read(BLOCK)
        if len(header) < BLOCK:
            raise DamagedError(f"{url} is cut off after {last}: it does not end as a tar does.")
        if header == _ZEROS:
            _demand_end(file, url, position, last)
            return
        where = f"{url}: the header at byte {position:,}, after {last},"
        member_bytes = _member_bytes(header, passing, where)
        offset, kind = position + BLOCK, header[156:157]
        if offset + member_bytes > size:
            name = _name(header, passing, lasting)
            raise DamagedError(
                f"{url}: member {name!r} is cut off: {size - offset:,} of {member_bytes:,} bytes are there."
            )
        position = offset + member_bytes + -member_bytes % BLOCK
        if kind in b"xgLK":
            record = _record(file, member_bytes, where)
            if kind == b"L":
                passing["path"] = _text(record.partition(b"\0")[0])
            elif kind != b"K":
                (passing if kind == b"x" else lasting).update(_attributes(record, where))
            continue
        if kind == b"S" or any(name.startswith("GNU.sparse") for name in passing):
            raise DamagedError(f"{where} is of a sparse file, whose bytes are not in one piece: pack it again without.")
        name = _name(header, passing, lasting)
        last, passing = f"member {name!r}", {}
        if kind in _REGULAR and not name.endswith("/"):
            yield TarMember(name, offset, member_bytes)


def _demand_end(file: BinaryIO, url: str, position: int, last: str) -> None:
    """Raise DamagedError where anything follows the zeros that end an archive."""
    while rest := file.read(1 << 20):
        if rest.count(0) != len(rest):
            raise DamagedError(f"{url} is damaged: the header at byte {position:,}, after {last}, holds only zeros.")


def _member_bytes(header: bytes, passing: dict[str, str], where: str) -> int:
    """The size that a sound header gives. Raises DamagedError for one that is not sound."""
    try:
        told = _number(header[148:156])
    except ValueError:
        told = -1
    # The sum counts its own field as spaces; some writers of old summed signed bytes.
    plain = sum(header) - sum(header[148:156]) + 8 * 32
    if told != plain and told != plain - 256 * sum(byte > 127 for byte in header[:148] + header[156:]):
        raise DamagedError(f"{where} is damaged: its checksum is wrong.")
    try:
        # A PAX record of a size is of the file that it precedes, not of a further record.
        size = (
            int(passing["size"]) if "size" in passing and header[156:157] not in b"xgLK" else _number(header[124:136])
        )
    except ValueError:
        raise DamagedError(f"{where} is damaged: its size is no number.") from None
    if size < 0:
        raise DamagedError(f"{where} is damaged: its size is negative.")
    # Links and folders have no content, whatever their headers say.
    return 0 if header[156:157] in b"123456" else size


def _number(field: bytes) -> int:
    """Octal digits, or base 256 where the first bit is set. Raises ValueError."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:])
    if field[0] == 0xFF:
        return int.from_bytes(field[1:]) - (1 << 8 * (len(field) - 1))
    digits = field.partition(b"\0")[0].strip().decode("ascii")
    if not _PLAIN.issuperset(digits):
        raise ValueError(digits)
    return int(digits or "0", 8)


def _record(file: BinaryIO, size_bytes: int, where: str) -> bytes:
    if size_bytes > LARGEST_RECORD_BYTES:
        raise DamagedError(f"{where} is damaged: an extension record of {size_bytes:,} bytes.")
    return file.read(size_bytes)


def _attributes(record: bytes, where: str) -> dict[str, str]:
    """The attributes of a PAX record, as `30 path=some/long/name`, each with its own length in bytes."""
    found, start = {}, 0
    while start < len(record):
        digits, space, _ = record[start : start + 20].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        entry = record[start : start + length]
        name, equals, value = entry[len(digits) + 1 : -1].partition(b"=")
        if length < len(digits) + 3 or not equals or not entry.endswith(b"\n") or len(entry) < length:
            raise DamagedError(f"{where} is damaged: a PAX record that cannot be read.")
        found[_text(name)] = _text(value)
        start += length
    return found


def _name(header: bytes, passing: dict[str, str], lasting: dict[str, str]) -> str:
    long = passing.get("path", lasting.get("path"))
    if long is not None:
        return long
    name = _text(header[:100].partition(b"\0")[0])
    prefix = _text(header[345:500].partition(b"\0")[0]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
