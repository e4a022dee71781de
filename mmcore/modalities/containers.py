"""Which container a file of moving pictures or sound is in, by its first bytes."""

from __future__ import annotations


def container_of(data: bytes) -> str | None:
    """FFmpeg's name of the container; None for one that is not opened.

    Named rather than guessed: FFmpeg also opens play lists, which would make it open other files.
    """
    if data[4:8] in {b"ftyp", b"moov"}:
        return "mov"
    if data.startswith(b"\x1aE\xdf\xa3"):
        return "matroska"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "avi"
    if data.startswith((b"\0\0\1\xba", b"\0\0\1\xb3")):
        return "mpeg" if data[3] == 0xBA else "mpegvideo"
    # ADTS: twelve bits of sync, and a layer of 0, which tells it from MPEG audio.
    if len(data) > 7 and data[0] == 0xFF and data[1] & 0xF6 == 0xF0:
        return "aac"
    return None
