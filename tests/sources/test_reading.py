from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from mmcore.errors import SourceChangedError
from mmcore.modalities.base import Rejected
from mmcore.sources import reading
from mmcore.sources.fingerprints import fingerprints
from mmcore.sources.reading import read_source


def test_objects_of_a_bucket() -> None:
    system = fsspec.filesystem("memory")
    system.pipe("/inputs/i/a", b"one")
    (first,) = fingerprints("memory://inputs", ["i/a"], "stat")
    system.pipe("/inputs/i/a", b"two")
    (second,) = fingerprints("memory://inputs", ["i/a"], "stat")
    (hashed,) = fingerprints("memory://inputs", ["i/a"], "sha256")
    assert read_source("memory://inputs", "i/a", second, 10) == b"two"
    assert read_source("memory://inputs", "i/a", hashed, 10) == b"two"
    assert isinstance(read_source("memory://inputs", "i/a", hashed, 2), Rejected)
    assert isinstance(read_source("memory://inputs", "i/a", second, 2), Rejected)
    with pytest.raises(SourceChangedError, match="was replaced"):
        read_source("memory://inputs", "i/a", first, 10)
    system.rm("/inputs/i/a")
    with pytest.raises(SourceChangedError, match="was removed"):
        read_source("memory://inputs", "i/a", second, 10)


@pytest.mark.parametrize("how", ["stat", "sha256"])
def test_reading_notices_edits(tmp_path: Path, how: str) -> None:
    root = str(tmp_path)
    (tmp_path / "a").write_bytes(b"one")
    fingerprint = fingerprints(root, ["a"], how)[0]
    assert read_source(root, "a", fingerprint, 3) == b"one"
    assert read_source(root, "a", fingerprint, 2) == Rejected("too-many-bytes", "3 bytes; max_bytes is 2")
    assert read_source(root, "b", None, 3) == Rejected("missing-file", "there is no file of this name")
    assert read_source(root, "../a", None, 3) == Rejected("outside-root", "the path leads out of the data's root")
    (tmp_path / "a").write_bytes(b"two")
    os.utime(tmp_path / "a", ns=(5, 5))
    with pytest.raises(SourceChangedError, match="was edited"):
        read_source(root, "a", fingerprint, 3)
    (tmp_path / "a").unlink()
    with pytest.raises(SourceChangedError, match="was removed"):
        read_source(root, "a", fingerprint, 3)


def test_io_errors_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"one")
    fingerprint = fingerprints(str(tmp_path), ["a"], "stat")[0]
    real, failures = reading._read_local, [OSError(5, "Input/output error")] * 2

    def flaky(*args):
        if failures:
            raise failures.pop()
        return real(*args)

    monkeypatch.setattr(reading, "_read_local", flaky)
    monkeypatch.setattr(reading, "RETRY_AFTER_S", (0.0, 0.0))
    assert read_source(str(tmp_path), "a", fingerprint, 3) == b"one"
    failures.extend([OSError(5, "Input/output error")] * 3)
    with pytest.raises(OSError, match="Input/output"):
        read_source(str(tmp_path), "a", fingerprint, 3)
