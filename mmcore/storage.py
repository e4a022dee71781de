"""The output root: a local folder or any fsspec URL, with publishing that never shows half a file."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec

from mmcore.errors import ConfigError, DamagedError, InputError, LayoutError, MmcoreError, NoSpaceError, Problem
from mmcore.records import DIGEST_LENGTH, DataFile, Json

LAYOUT_VERSION = 1
"""Raised when the folders below the root change so that an older mmcore would misread them."""

EXTRAS = {"s3": "s3", "s3a": "s3"}
"""Protocols whose library comes with an extra of mmcore."""

ABANDONED_AFTER_S = 24 * 3600
"""Scratch folders in which nothing was made for so long are removed, whoever made them."""

_SCRATCH = re.compile(r"mmcore-(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{32}").fullmatch


def sha256(data: bytes | memoryview) -> str:
    """The SHA-256 of `data`, cut to the length of a digest."""
    return hashlib.sha256(data).hexdigest()[:DIGEST_LENGTH]


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a local file's bytes, cut to the length of a digest."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST_LENGTH]


def file_system(url: str, where: str, kind: type[InputError]) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL and the path on it. Raises `kind` where there is none that can be used."""
    try:
        # A listing that is remembered hides what other processes have written since.
        return fsspec.url_to_fs(url, use_listings_cache=False)  # type: ignore[no-any-return]
    except ImportError as error:
        extra = EXTRAS.get(url.partition("://")[0])
        fix = f"Run: pip install 'mmcore[{extra}]'" if extra else "Install the library that it names."
        raise kind(Problem(where, f"{url} needs a library that is not installed ({error}).", fix)) from error
    except Exception as error:  # each library has errors of its own
        fix = "Name a local folder, or a URL such as s3://bucket/folder, and check your access."
        raise kind(Problem(where, f"{url} cannot be used ({_words_of(error)}).", fix)) from error


class Store:
    """Files below one root; paths are relative to it and use `/`.

    Every write is a publication: a reader sees the whole file or none. Locally that is a temporary file, fsync,
    `os.replace` and an fsync of the folder; on a bucket it is one put of a finished local file.

    Raises NoSpaceError where a write finds the disk full and LayoutError for a root of a newer mmcore.
    Instances are cheap to pickle and safe to share between threads.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = os.fspath(root).rstrip("/") or "/"
        if self.local:
            self.root = os.path.abspath(self.root.removeprefix("file://"))

    def __repr__(self) -> str:
        return f"Store({self.root!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Store, (self.root,))

    @property
    def local(self) -> bool:
        return "://" not in self.root or self.root.startswith("file://")

    @cached_property
    def _filesystem(self) -> fsspec.AbstractFileSystem:
        return file_system(self.root, "output", ConfigError)[0]

    def url(self, path: str) -> str:
        """Where `path` is: an absolute local path, or a URL."""
        return f"{self.root}/{path}" if path else self.root

    # Reading

    def exists(self, path: str) -> bool:
        return self.size(path) is not None

    def size(self, path: str) -> int | None:
        """Bytes of the file at `path`, or None where there is none."""
        try:
            if self.local:
                return os.stat(self.url(path)).st_size
            # Another process may have written since this one last looked.
            self._filesystem.invalidate_cache(self.url(path).rsplit("/", 1)[0])
            return int(self._filesystem.info(self.url(path))["size"])
        except (FileNotFoundError, NotADirectoryError):
            return None

    def listing(self, folder: str) -> dict[str, int]:
        """Names and sizes of the files directly in `folder`, in one listing; empty where there is no such folder."""
        try:
            if self.local:
                with os.scandir(self.url(folder)) as entries:
                    return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
            self._filesystem.invalidate_cache(self.url(folder))
            found = self._filesystem.ls(self.url(folder), detail=True)
            return {item["name"].rsplit("/", 1)[-1]: int(item["size"]) for item in found if item["type"] == "file"}
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def folders(self, folder: str) -> list[str]:
        """Sorted names of the folders directly in `folder`."""
        try:
            if self.local:
                with os.scandir(self.url(folder)) as entries:
                    return sorted(entry.name for entry in entries if entry.is_dir())
            self._filesystem.invalidate_cache(self.url(folder))
            found = self._filesystem.ls(self.url(folder), detail=True)
            return sorted(i["name"].rstrip("/").rsplit("/", 1)[-1] for i in found if i["type"] == "directory")
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read_bytes(self, path: str) -> bytes:
        """The file's bytes. Raises FileNotFoundError."""
        if self.local:
            return Path(self.url(path)).read_bytes()
        data: bytes = self._filesystem.cat_file(self.url(path))
        return data

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        """The file's bytes from `start` up to `stop`; fewer where it ends before. Raises FileNotFoundError."""
        if self.local:
            with open(self.url(path), "rb") as file:
                file.seek(start)
                return file.read(stop - start)
        data: bytes = self._filesystem.cat_file(self.url(path), start=start, end=stop)
        return data

    def read_json(self, path: str) -> Json:
        """The JSON at `path`. Raises FileNotFoundError, and DamagedError where it is not JSON."""
        try:
            return json.loads(self.read_bytes(path))
        except ValueError as error:
            raise DamagedError(f"{self.url(path)} is not JSON ({error}); remove it and run again.") from error

    @contextmanager
    def as_local(self, path: str) -> Iterator[Path]:
        """A local file with the bytes of `path`: the file itself, or a copy that goes when the block ends."""
        if self.local:
            yield Path(self.url(path))
            return
        with tempfile.TemporaryDirectory(prefix="mmcore-") as folder:
            copy = Path(folder) / path.rsplit("/", 1)[-1]
            self._filesystem.get_file(self.url(path), str(copy))
            yield copy

    # Writing

    def publish_bytes(self, path: str, data: bytes) -> DataFile:
        """Put `data` at `path`, replacing what was there."""
        with self.scratch() as folder:
            file = folder / "data"
            file.write_bytes(data)
            return self.publish_file(file, path)

    def publish_json(self, path: str, value: Json) -> DataFile:
        """Put `value` at `path` as indented JSON with sorted keys: equal values, equal bytes."""
        text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        return self.publish_bytes(path, text.encode("utf-8", "surrogatepass"))

    def publish_file(self, file: Path, path: str) -> DataFile:
        """Move a finished local file (best made in `scratch()`) to `path`."""
        return self._publish(file, path, sha256_of_file(file))

    def publish_content(self, file: Path, folder: str, extension: str) -> DataFile:
        """Move a finished local file to `folder`, named by the hash of its own bytes."""
        name = sha256_of_file(file)
        return self._publish(file, f"{folder}/{name}.{extension}", name)

    def _publish(self, file: Path, path: str, sha256: str) -> DataFile:
        described = DataFile(path, sha256, file.stat().st_size)
        with _no_space_named(self.root):
            if self.local:
                _replace(file, Path(self.url(path)))
            else:
                self._filesystem.put_file(str(file), self.url(path))
                self._filesystem.invalidate_cache(self.url(path).rsplit("/", 1)[0])
        return described

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A fresh local folder, on the same disk where the root is local; it goes when the block ends.

        Its name says whose it is: `open` removes those of processes that were killed.
        """
        parent = Path(self.url("tmp")) if self.local else Path(tempfile.gettempdir())
        folder = parent / f"mmcore-{_host()}-{os.getpid()}-{uuid.uuid4().hex}"
        with _no_space_named(self.root):
            try:
                _make_folder(parent)
                folder.mkdir()
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all in it; nothing happens where there is none."""
        if not self.local:
            with suppress(FileNotFoundError):
                self._filesystem.rm(self.url(path), recursive=True)
        elif os.path.isdir(self.url(path)):
            shutil.rmtree(self.url(path), ignore_errors=True)
        else:
            Path(self.url(path)).unlink(missing_ok=True)

    # The root itself

    def open(self) -> Store:
        """Make the root if it is not there and mark its layout; returns the store itself.

        Raises LayoutError where a newer mmcore wrote it and ConfigError where it cannot be written.
        """
        self.check_layout()
        with self._unusable_named("write"):
            if not self.exists("format.json"):
                self.publish_json("format.json", {"layout": LAYOUT_VERSION})
        if self.local:
            _clear_abandoned(Path(self.url("tmp")))
        return self

    def check_layout(self) -> None:
        """Only reads; a root that is not there is fine.

        Raises LayoutError where a newer mmcore wrote it and ConfigError where it cannot be read.
        """
        with self._unusable_named("read"):
            if not self.exists("format.json"):
                return
            found = self.read_json("format.json")
        version = found.get("layout") if isinstance(found, dict) else None
        if not isinstance(version, int) or version > LAYOUT_VERSION:
            raise LayoutError(
                f"{self.root} has layout {version}, and this mmcore knows up to {LAYOUT_VERSION}: "
                "upgrade mmcore or choose another output."
            )

    @contextmanager
    def _unusable_named(self, what: str) -> Iterator[None]:
        try:
            yield
        except MmcoreError:
            raise
        except Exception as error:
            # Libraries for buckets have errors of their own, as for credentials that are missing.
            if self.local and not isinstance(error, (OSError, ValueError)):
                raise
            fix = "Choose another output." if self.local else "Check the address, your credentials and your access."
            raise ConfigError(
                Problem("output", f"cannot {what} below {self.root} ({_words_of(error)}).", fix)
            ) from error

    def intact(self, file: DataFile) -> bool:
        """Whether the file is there with the size that its receipt names."""
        return self.size(file.path) == file.size_bytes

    def verify(self, file: DataFile) -> None:
        """Read the file again and compare its hash. Raises DamagedError."""
        with suppress(FileNotFoundError), self.as_local(file.path) as local:
            if local.exists() and sha256_of_file(local) == file.sha256:
                return
        raise DamagedError(f"{self.url(file.path)} is missing or not the file that its receipt names; run again.")


def _replace(file: Path, target: Path) -> None:
    """Flush `file` to disk and give it its final name, so that a crash leaves the old file or the new one."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
    _make_folder(target.parent)
    try:
        os.replace(file, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # The file was made on another disk: copy it beside its target first.
        beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        shutil.copyfile(file, beside)
        _replace(beside, target)
        file.unlink()
        return
    _flush_folder(target.parent)


def _make_folder(folder: Path) -> None:
    """Make the folder and those above it; each new one is flushed to disk in the one that holds it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _clear_abandoned(folder: Path) -> None:
    """Remove the scratch folders of this host's processes that are gone, and any that nobody touched for a day."""
    with suppress(OSError):
        for scratch in folder.glob("mmcore-*"):
            owner = _SCRATCH(scratch.name)
            gone = owner is not None and owner["host"] == _host() and not _alive(int(owner["pid"]))
            if gone or time.time() - _last_touched(scratch) > ABANDONED_AFTER_S:
                shutil.rmtree(scratch, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it belongs to somebody else
        return True
    return True


def _last_touched(folder: Path) -> float:
    """When the folder or a file in it last changed; now, where it went meanwhile."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except OSError:
        return time.time()


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname()) or "localhost"


def _words_of(error: Exception) -> str:
    """What an error says, or its kind where it says nothing."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


@contextmanager
def _no_space_named(root: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(
                f"output: no space left below {root}. What was finished is kept: free some space and run the same "
                "command again."
            ) from error
        raise
