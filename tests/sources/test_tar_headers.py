from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcore.errors import DamagedError
from mmcore.sources.tar_headers import TarMember, scan

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def _tar(members: list[tuple[str, bytes]], form: int, **header: object) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, **header) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1.5 if form == tarfile.PAX_FORMAT else 1  # a float takes a PAX record
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _found(data: bytes) -> list[tuple[str, bytes]]:
    return [(m.name, data[m.offset : m.offset + m.size_bytes]) for m in scan(io.BytesIO(data), "x.tar")]


@pytest.mark.parametrize("form", FORMATS)
def test_members_are_those_of_the_standard_library(form: str) -> None:
    members = [
        ("a.txt", b""),
        ("b.bin", b"\0" * 512),
        ("folder/" * 12 + "c.txt", b"c" * 700),
        ("ключ 日本.txt", b"d"),
        *([("long" * 60 + "/" + "e" * 200 + ".txt", b"e" * 1025)] if form != "ustar" else []),
        ("f.txt", b"f"),
    ]
    assert _found(_tar(members, FORMATS[form])) == members


def test_global_pax_records_and_what_is_no_plain_file() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}) as archive:
        for kind, name in (
            (tarfile.DIRTYPE, "d"),
            (tarfile.SYMTYPE, "l"),
            (tarfile.LNKTYPE, "h"),
            (tarfile.FIFOTYPE, "p"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mtime = kind, "elsewhere" * 30, 1.5
            archive.addfile(info)
        info = tarfile.TarInfo("a.txt")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    assert _found(out.getvalue()) == [("a.txt", b"abc")]


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar command")
@pytest.mark.parametrize("form", ["gnu", "pax", "ustar", "v7", "oldgnu"])
def test_what_the_tar_command_writes(form: str, tmp_path: Path) -> None:
    for n in range(5):
        (tmp_path / f"{n}.txt").write_bytes(bytes([n]) * n * 300)
    names = [f"{n}.txt" for n in range(5)]
    subprocess.run(["tar", f"--format={form}", "-cf", "x.tar", *names], cwd=tmp_path, check=True)
    assert _found((tmp_path / "x.tar").read_bytes()) == [(n, (tmp_path / n).read_bytes()) for n in names]


class _Sparse(io.RawIOBase):
    """Ten gigabytes of zeros with a header before and an end after them."""

    def __init__(self, size: int) -> None:
        info = tarfile.TarInfo("big.bin")
        info.size = size
        self.header = info.tobuf(tarfile.GNU_FORMAT)
        self.length, self.at = 512 + size + 1024, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset + (self.length if whence == 2 else 0)
        return self.at

    def read(self, size: int = -1) -> bytes:
        count = max(0, min(size, self.length - self.at))
        data = (self.header[self.at : self.at + count] + bytes(count))[:count]
        self.at += count
        return data


@pytest.mark.parametrize("size", [8**11, 10 * 2**30])
def test_sizes_beyond_octal_digits(size: int) -> None:
    assert list(scan(_Sparse(size), "big.tar")) == [TarMember("big.bin", 512, size)]


@pytest.mark.parametrize("form", FORMATS)
def test_every_cut_but_that_of_the_end_is_an_error(form: str) -> None:
    members = [(f"{n}.txt", bytes([n]) * (n * 400)) for n in range(4)]
    whole = _tar(members, FORMATS[form])
    last = list(scan(io.BytesIO(whole), "x.tar"))[-1]
    end = last.offset + -(-last.size_bytes // 512) * 512
    for length in [*range(0, end + 512, 128), end - 1, end + 511]:
        if length >= end + 512:
            continue
        with pytest.raises(DamagedError, match=r"x\.tar.* (is cut off|damaged)"):
            _found(whole[:length])
    assert _found(whole[: end + 512]) == members, "one block of zeros says that nothing is missing"


def test_a_header_of_zeros_or_with_a_flipped_bit_is_an_error() -> None:
    members = [(f"{n}.txt", b"content" * 90) for n in range(4)]
    whole = _tar(members, tarfile.USTAR_FORMAT)
    for number, member in enumerate(scan(io.BytesIO(whole), "x.tar")):
        start = member.offset - 512
        with pytest.raises(DamagedError, match=rf"byte {start:,}, after .*, holds only zeros"):
            _found(whole[:start] + bytes(512) + whole[start + 512 :])
        for at in range(0, 512, 37):
            damaged = bytearray(whole)
            damaged[start + at] ^= 4
            with pytest.raises(DamagedError, match=rf"the header at byte {start:,}, after .*is damaged"):
                _found(bytes(damaged))
        assert number < 4


@given(st.binary(max_size=3000))
def test_any_bytes_are_members_or_an_error(data: bytes) -> None:
    with contextlib.suppress(DamagedError):
        _found(data)


@given(st.integers(0, 10**6))
def test_any_damage_is_members_or_an_error(seed: int) -> None:
    random = np.random.default_rng(seed)
    data = bytearray(_tar([("n" * 200, b"x" * 600), ("b.txt", b"y")], tarfile.PAX_FORMAT))
    for _ in range(int(random.integers(1, 5))):
        data[int(random.integers(len(data)))] = int(random.integers(256))
    with contextlib.suppress(DamagedError):
        _found(bytes(data))
