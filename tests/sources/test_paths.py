from __future__ import annotations

import os
import sys
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from mmcore.errors import SourceError
from mmcore.sources.fingerprints import fingerprints
from mmcore.sources.keys import escape, longest_key, why_unfit
from mmcore.sources.paths import inside


@pytest.mark.parametrize(
    ("ref", "relative"),
    [
        ("a.png", "a.png"),
        ("i/a.png", "i/a.png"),
        ("./i//a.png", "i/a.png"),
        ("i/../a.png", "a.png"),
        ("/data/i/a.png", "i/a.png"),
        ("näme and späce\n.txt", "näme and späce\n.txt"),
        ("..a/..b", "..a/..b"),
        ("../a.png", None),
        ("i/../../a.png", None),
        ("..", None),
        ("/etc/hostname", None),
        ("/data/../etc/hostname", None),
        ("/database/a.png", None),
        ("https://example.invalid/a.png", None),
    ],
)
def test_paths_stay_inside_the_root(ref: str, relative: str | None) -> None:
    assert inside("/data", ref) == relative


def test_urls_below_a_remote_root() -> None:
    assert inside("s3://bucket/data", "s3://bucket/data/i/a.png") == "i/a.png"
    assert inside("s3://bucket/data", "s3://bucket/other/a.png") is None


def test_escaped_keys_have_no_dots_and_stay_distinct() -> None:
    keys = ["v1.2", "v1%2E2", "v1%252E2", "v1%2", "v1"]
    escaped = [escape(key) for key in keys]
    assert len(set(escaped)) == len(keys)
    assert not any("." in key for key in escaped)
    longest = longest_key(("image", "audio"))
    assert why_unfit("k" * longest, longest) is None
    assert why_unfit("k" * (longest + 1), longest)
    assert why_unfit("." + "k", longest) == "starts with a dot"
    assert why_unfit("ä" * 50, longest)


def test_fingerprints_tell_edits_and_absence(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a").write_bytes(b"one")
    os.utime(tmp_path / "a", ns=(5, 1_000_000_007))
    os.mkfifo(tmp_path / "pipe")
    refs = ["a", "gone", None, "folder", "pipe", "a\0b"]
    assert fingerprints(str(tmp_path), refs, "stat") == ["3:1000000007", None, None, None, None, None]
    hashed = fingerprints(str(tmp_path), refs, "sha256")
    assert hashed[0] == "sha256:7692c3ad3540bb803c020b3aee66cd88"  # printf one | sha256sum
    assert hashed[1:] == [None] * 5


def test_fingerprints_on_a_bucket() -> None:
    system = fsspec.filesystem("memory")
    system.pipe("/media/i/a", b"one")
    first = fingerprints("memory://media", ["i/a", "i/b", None, "i"], "stat")
    assert first[0] is not None
    assert first[1:] == [None, None, None]
    system.pipe("/media/i/a", b"two")
    assert fingerprints("memory://media", ["i/a"], "stat") != first[:1]
    hashed = "sha256:3fc4ccfe745870e2c0d99f71f30ff065"  # printf two | sha256sum
    assert fingerprints("memory://media", ["i/a"], "sha256") == [hashed]


def test_buckets_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(SourceError, match=r"^s3://bucket/data: .* Run: pip install 'mmcore\[s3\]'$"):
        fingerprints("s3://bucket/data", ["a"], "stat")

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Unable to locate credentials")

    monkeypatch.setattr(MemoryFileSystem, "ls", refuse)
    with pytest.raises(SourceError, match="cannot be listed .Unable to locate credentials.* Check data.root"):
        fingerprints("memory://private", ["a"], "stat")
