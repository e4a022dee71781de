"""The output root: a local folder or any fsspec URL, with publishing that never shows half a file."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec

from mmcore.errors import DamagedError, LayoutError, NoSpaceError, StoreError
from mmcore.records import DIGEST_LENGTH, DataFile, Json

LAYOUT_VERSION = 1
"""Raised when the folders below the root change so that an older mmcore would misread them."""


def sha256(data: bytes | memoryview) -> str:
    """The SHA-256 of `data`, cut to the length of a digest."""
    return hashlib.sha256(data).hexdigest()[:DIGEST_LENGTH]


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a local file's bytes, cut to the length of a digest."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST_LENGTH]


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
        return fsspec.url_to_fs(self.root)[0]

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
            return int(self._filesystem.info(self.url(path))["size"])
        except (FileNotFoundError, NotADirectoryError):
            return None

    def listing(self, folder: str) -> dict[str, int]:
        """Names and sizes of the files directly in `folder`, in one listing; empty where there is no such folder."""
        try:
            if self.local:
                with os.scandir(self.url(folder)) as entries:
                    return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
            # Another process may have written since this one last looked.
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
        described = DataFile(path, sha256_of_file(file), file.stat().st_size)
        with _no_space_named(self.root):
            if self.local:
                _replace(file, Path(self.url(path)))
            else:
                self._filesystem.put_file(str(file), self.url(path))
                self._filesystem.invalidate_cache(self.url(path).rsplit("/", 1)[0])
        return described

    def publish_content(self, file: Path, folder: str, extension: str) -> DataFile:
        """Move a finished local file to `folder`, named by the hash of its own bytes."""
        return self.publish_file(file, f"{folder}/{sha256_of_file(file)}.{extension}")

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A fresh local folder, on the same disk where the root is local; it goes when the block ends."""
        parent = Path(self.url("tmp")) if self.local else Path(tempfile.gettempdir())
        folder = parent / f"mmcore-{uuid.uuid4().hex}"
        with _no_space_named(self.root):
            try:
                folder.mkdir(parents=True)
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

        Raises LayoutError where a newer mmcore wrote it and StoreError where it cannot be written.
        """
        try:
            if self.exists("format.json"):
                version = self.read_json("format.json").get("layout")
                if not isinstance(version, int) or version > LAYOUT_VERSION:
                    raise LayoutError(
                        f"{self.root} has layout {version}, and this mmcore knows up to {LAYOUT_VERSION}: "
                        "upgrade mmcore or choose another output."
                    )
            else:
                self.publish_json("format.json", {"layout": LAYOUT_VERSION})
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise StoreError(f"output: cannot write below {self.root} ({error.strerror}); choose another.") from error
        return self

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
    target.parent.mkdir(parents=True, exist_ok=True)
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
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
