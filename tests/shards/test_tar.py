from __future__ import annotations

import io
import tarfile

import pytest

from mmcore.shards.tar import TarWriter, header, member_name


@pytest.mark.parametrize("name", ["a.image.png", "n" * 100, "ключ.text.txt"])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 8**11 - 1])
def test_headers_are_those_of_the_standard_library(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    assert header(name, size) == info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")


def test_what_a_plain_header_cannot_say() -> None:
    with pytest.raises(ValueError, match="no room"):
        header("n" * 101, 1)
    with pytest.raises(ValueError, match="no room"):
        header("n", 8**11)
    with pytest.raises(ValueError, match="at most 4 bytes"):
        member_name("a", "image", "extension")


def test_archives_are_those_of_the_standard_library() -> None:
    members = [("a.text.txt", b""), ("b.text.txt", b"x" * 512), ("c.text.txt", b"y" * 1000)]
    ours, theirs = io.BytesIO(), io.BytesIO()
    writer = TarWriter(ours)
    offsets = [writer.add(name, data) for name, data in members]
    writer.finish()
    with tarfile.open(fileobj=theirs, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    # The standard library fills up its last 10 KiB record.
    assert theirs.getvalue().rstrip(b"\0") == ours.getvalue().rstrip(b"\0")
    assert ours.getvalue().endswith(bytes(1024))
    assert [ours.getvalue()[o : o + len(d)] for o, (_, d) in zip(offsets, members, strict=True)] == [
        data for _, data in members
    ]
