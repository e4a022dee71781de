"""Publishing shows the whole file or none; damage and lack of space have names."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from mmcore import storage
from mmcore.errors import ConfigError, DamagedError, LayoutError, NoSpaceError
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

    def test_each_file_is_hashed_once(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        hashed = []
        real = storage.sha256_of_file
        monkeypatch.setattr(storage, "sha256_of_file", lambda path: hashed.append(path) or real(path))
        with store.scratch() as folder:
            (folder / "f").write_bytes(b"content")
            store.publish_content(folder / "f", "shards", "tar")
        assert len(hashed) == 1

    def test_new_folders_are_flushed_where_they_lie(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        flushed = []
        real = storage._flush_folder
        monkeypatch.setattr(storage, "_flush_folder", lambda folder: (flushed.append(folder), real(folder)))
        store = Store(tmp_path / "new" / "root").open()
        root = Path(store.root)
        assert {tmp_path, tmp_path / "new", root} <= set(flushed)
        flushed.clear()
        store.publish_bytes("a/b/x", b"1")
        assert flushed == [root, root / "a", root / "a" / "b"]
        flushed.clear()
        store.publish_bytes("a/b/y", b"2")
        assert flushed == [root / "a" / "b"]


class Listed(MemoryFileSystem):
    """Answers from what it listed before, as those for buckets do."""

    protocol = "listed"
    known: ClassVar[dict[str, list[dict[str, Any]]]] = {}

    def ls(self, path: str, detail: bool = True, **_: Any) -> Any:
        path = self._strip_protocol(path)
        if path not in self.known:
            self.known[path] = super().ls(path, detail=True)
        return self.known[path] if detail else [item["name"] for item in self.known[path]]

    def info(self, path: str, **_: Any) -> Any:
        path = self._strip_protocol(path)
        if (listed := self.known.get(path.rsplit("/", 1)[0])) is None:
            return super().info(path)
        for item in listed:
            if item["name"] == path:
                return item
        raise FileNotFoundError(path)

    def invalidate_cache(self, path: str | None = None) -> None:
        self.known.pop(self._strip_protocol(path or ""), None)


class TestReading:
    def test_files_of_other_processes_are_seen_in_spite_of_a_listing(self) -> None:
        fsspec.register_implementation("listed", Listed, clobber=True)
        store = Store(f"listed://{uuid.uuid4().hex}/root").open()
        store.publish_bytes("a/x", b"1")
        store._filesystem.ls(store.url("a"))
        MemoryFileSystem().pipe(Listed._strip_protocol(store.url("a/y")), b"22")
        store._filesystem.ls(store.url("a"))
        with pytest.raises(FileNotFoundError):
            store._filesystem.info(store.url("a/y"))
        assert store.size("a/y") == 2

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
        with pytest.raises(ConfigError, match=r"^output: cannot write below .* Choose another output\.$"):
            Store(tmp_path / "file" / "below").open()
        if Path("/proc/self").exists():
            with pytest.raises(ConfigError, match="cannot write below /proc/mmcore"):
                Store("/proc/mmcore/output").open()

    @pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EIO])
    def test_a_disk_that_refuses(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(Path, "mkdir", refuse)
        with pytest.raises(ConfigError) as caught:
            Store(tmp_path / "output").open()
        what = f"cannot write below {tmp_path / 'output'} ({os.strerror(code)})."
        assert str(caught.value) == f"output: {what} Choose another output."

    def test_protocols_that_cannot_be_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ConfigError, match="^output: foo://bucket/x cannot be used .*not known: foo.* Name a local"):
            Store("foo://bucket/x").open()
        monkeypatch.setitem(sys.modules, "s3fs", None)
        for attempt in (Store("s3://bucket/x").open, Store("s3://bucket/x").check_layout):
            with pytest.raises(ConfigError, match=r"^output: s3://bucket/x needs .* Run: pip install 'mmcore\[s3\]'$"):
                attempt()

    def test_credentials_that_are_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class NoCredentialsError(Exception):
            """As botocore has it: no OSError."""

        def info(*_: object, **__: object) -> None:
            raise NoCredentialsError("Unable to locate credentials")

        monkeypatch.setattr(MemoryFileSystem, "info", info)
        with pytest.raises(ConfigError, match=r"\(Unable to locate credentials\). Check the address, your credentials"):
            Store("memory://private/output").open()

    def test_checking_the_layout_makes_nothing(self, any_store: Store, tmp_path: Path) -> None:
        Store(tmp_path / "nothing" / "there").check_layout()
        assert not (tmp_path / "nothing").exists()
        any_store.check_layout()
        for marker in ({"layout": 99}, {}, []):
            any_store.publish_json("format.json", marker)
            with pytest.raises(LayoutError, match="upgrade mmcore"):
                any_store.check_layout()

    def test_scratch_of_processes_that_were_killed_is_cleared(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        code = (
            "import os, sys; from mmcore.storage import Store;"
            "scratch = Store(sys.argv[1]).scratch(); scratch.__enter__(); os._exit(9)"
        )
        subprocess.run([sys.executable, "-c", code, store.root], check=False)
        tmp = Path(store.url("tmp"))
        (killed,) = tmp.iterdir()
        (killed / "half").write_bytes(b"half")
        elsewhere = tmp / f"mmcore-not{socket.gethostname()}-1-{uuid.uuid4().hex}"
        forgotten = tmp / f"mmcore-not{socket.gethostname()}-2-{uuid.uuid4().hex}"
        for folder in (elsewhere, forgotten):
            folder.mkdir()
        long_ago = time.time() - 25 * 3600
        os.utime(forgotten, (long_ago, long_ago))
        with store.scratch() as own:
            store.open()
            assert sorted(tmp.iterdir()) == sorted([own, elsewhere])

            def refuse(*_: int) -> None:
                raise PermissionError

            monkeypatch.setattr(os, "kill", refuse)  # the process of somebody else
            store.open()
            assert own.exists()

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
