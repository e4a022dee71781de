"""Publishing shows the whole file or none; damage and lack of space have names."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import uuid
from pathlib import Path

import pytest

from mmcore.errors import DamagedError, LayoutError, NoSpaceError, StoreError
from mmcore.storage import Store


@pytest.fixture(params=["local", "memory"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store in a folder, and one behind fsspec."""
    return Store(tmp_path / "root" if request.param == "local" else f"memory://{uuid.uuid4().hex}/root").open()


class TestPublishing:
    def test_what_was_put_is_read(self, any_store: Store) -> None:
        file = any_store.publish_bytes("a/b.bin", b"hello")
        assert any_store.read_bytes("a/b.bin") == b"hello"
        assert (file.path, file.size_bytes) == ("a/b.bin", 5)
        assert file.sha256 == hashlib.sha256(b"hello").hexdigest()[:32]
        assert any_store.listing("a") == {"b.bin": 5}
        assert any_store.folders("") == sorted(set(any_store.folders("")) | {"a"})

    def test_putting_again_replaces(self, any_store: Store) -> None:
        any_store.publish_bytes("a", b"one")
        any_store.publish_bytes("a", b"three")
        assert any_store.read_bytes("a") == b"three"

    def test_equal_json_gives_equal_bytes(self, any_store: Store) -> None:
        one = any_store.publish_json("x.json", {"a": 1, "b": "é"})
        two = any_store.publish_json("y.json", {"b": "é", "a": 1})
        assert one.sha256 == two.sha256
        assert any_store.read_json("x.json") == {"a": 1, "b": "é"}

    def test_content_is_named_by_its_hash(self, any_store: Store) -> None:
        with any_store.scratch() as folder:
            (folder / "f").write_bytes(b"content")
            file = any_store.publish_content(folder / "f", "shards", "tar")
        assert file.path == f"shards/{hashlib.sha256(b'content').hexdigest()[:32]}.tar"
        assert any_store.intact(file)

    def test_nothing_is_left_of_an_attempt_that_failed(self, store: Store) -> None:
        with pytest.raises(RuntimeError), store.scratch() as folder:
            (folder / "half").write_bytes(b"half")
            raise RuntimeError
        assert not list(Path(store.url("tmp")).iterdir())

    def test_a_file_made_elsewhere_is_moved_in(self, store: Store) -> None:
        here = Path("/dev/shm")
        if not here.is_dir():
            pytest.skip("no second file system at /dev/shm")
        file = here / f"mmcore-test-{uuid.uuid4().hex}"
        file.write_bytes(b"from another disk")
        store.publish_file(file, "moved")
        assert store.read_bytes("moved") == b"from another disk"
        assert not file.exists()

    def test_removing_takes_files_and_folders(self, any_store: Store) -> None:
        any_store.publish_bytes("d/x", b"1")
        any_store.publish_bytes("d/y", b"2")
        any_store.remove("d/x")
        assert any_store.listing("d") == {"y": 1}
        any_store.remove("d")
        any_store.remove("never there")
        assert any_store.listing("d") == {}

    def test_local_copies_have_the_bytes(self, any_store: Store) -> None:
        any_store.publish_bytes("x/data.bin", b"abc")
        with any_store.as_local("x/data.bin") as path:
            assert path.read_bytes() == b"abc"


class TestReading:
    def test_nothing_there(self, any_store: Store) -> None:
        assert any_store.size("no") is None
        assert not any_store.exists("no/way")
        assert any_store.listing("no") == {}
        assert any_store.folders("no") == []
        with pytest.raises(FileNotFoundError):
            any_store.read_bytes("no")

    def test_json_that_is_none_is_damage(self, any_store: Store) -> None:
        any_store.publish_bytes("x.json", b"{half")
        with pytest.raises(DamagedError, match="x.json is not JSON"):
            any_store.read_json("x.json")

    def test_verify_finds_changed_and_missing_files(self, any_store: Store) -> None:
        file = any_store.publish_bytes("x", b"abc")
        any_store.verify(file)
        any_store.publish_bytes("x", b"abd")
        assert any_store.intact(file)  # sizes alone cannot tell
        with pytest.raises(DamagedError, match="x is missing or not the file"):
            any_store.verify(file)
        any_store.remove("x")
        assert not any_store.intact(file)
        with pytest.raises(DamagedError):
            any_store.verify(file)


class TestRoot:
    def test_opening_again_is_fine(self, any_store: Store) -> None:
        assert any_store.open() is any_store

    def test_a_newer_layout_is_refused(self, any_store: Store) -> None:
        any_store.publish_json("format.json", {"layout": 99})
        with pytest.raises(LayoutError, match="layout 99.*upgrade mmcore"):
            any_store.open()

    def test_a_root_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("not a folder")
        with pytest.raises(StoreError, match="cannot write below"):
            Store(tmp_path / "file" / "below").open()

    def test_travels_to_other_processes(self, any_store: Store) -> None:
        assert pickle.loads(pickle.dumps(any_store)).root == any_store.root

    def test_relative_roots_are_pinned_down(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert Store("out/").root == str(tmp_path / "out")


def test_a_full_disk_has_a_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(NoSpaceError, match="no space left below .* run the same command again"):
        store.publish_bytes("x", b"data")
    monkeypatch.undo()
    assert not store.exists("x")
    with pytest.raises(NoSpaceError), store.scratch():
        full()
