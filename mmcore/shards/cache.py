"""Copies of remote tars on a local disk, within a size limit; the least recently opened go first."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from mmcore.errors import ConfigError, DamagedError, Problem, SourceError
from mmcore.storage import file_system, sha256, sha256_of_file

LOCKS = 64
"""Files that processes lock while they fetch; two tars that share one wait for each other."""


class ShardCache:
    """A folder of tars that any number of processes on this machine share.

    A tar is fetched once, whoever asks first; room is made before that, so that finished and unfinished copies
    together never exceed `limit_bytes`. A removed copy that a process still has mapped is freed when that process
    opens its next one. Copies are named by what they are a copy of: an object that was replaced is fetched anew.
    """

    def __init__(self, folder: str | os.PathLike[str], limit_bytes: int) -> None:
        if limit_bytes < 1:
            raise ConfigError(Problem("cache", f"a limit of {limit_bytes:,} bytes has room for nothing."))
        self.folder = Path(folder).absolute()
        self.limit_bytes = limit_bytes

    def local(self, url: str, content: str | None = None) -> str | None:
        """A local copy of the file at `url`; None where the cache has no room for it.

        `content` is the SHA-256 (32 hex digits) that the file must have. Raises DamagedError where it has another,
        FileNotFoundError where there is no such file, and what the file system raises.
        """
        system, path = file_system(url, "reading", SourceError)
        target = self.folder / f"{_name(url, content, system, path)}.tar"
        (self.folder / "locks").mkdir(parents=True, exist_ok=True)
        with self._locked(str(int(target.name[:4], 16) % LOCKS)):
            if not target.exists():
                with self._room(target.stem, int(system.info(path)["size"])) as arriving:
                    if arriving is None:
                        return None
                    system.get_file(path, str(arriving))
                    if content and (found := sha256_of_file(arriving)) != content:
                        raise DamagedError(f"{url} is damaged: its SHA-256 is {found}; that of its receipt, {content}.")
                    os.replace(arriving, target)
        with suppress(FileNotFoundError):
            os.utime(target)
        return str(target)

    @contextmanager
    def _room(self, name: str, size_bytes: int) -> Iterator[Path | None]:
        """Where to write a file of this size, once there is room for it; None where there is none to be made."""
        part = self.folder / f"{name}.{uuid.uuid4().hex}.part"
        arriving = part.with_suffix(".arriving")
        with ExitStack() as stack:
            with self._locked("room"):
                if not self._make_room(size_bytes):
                    yield None
                    return
                # As large as the file to come, so that others count it, and locked for as long as this process lives.
                held = stack.enter_context(part.open("wb"))
                fcntl.flock(held, fcntl.LOCK_EX)
                held.truncate(size_bytes)
            try:
                yield arriving
            finally:
                arriving.unlink(missing_ok=True)
                part.unlink(missing_ok=True)

    def _make_room(self, size_bytes: int) -> bool:
        """Remove the copies that were opened longest ago until `size_bytes` more are within the limit."""
        used, copies = size_bytes, []
        for file in self.folder.iterdir():
            if file.suffix not in {".tar", ".part"}:
                continue
            if file.suffix == ".part" and _abandoned(file):
                file.with_suffix(".arriving").unlink(missing_ok=True)
                file.unlink(missing_ok=True)
                continue
            with suppress(FileNotFoundError):
                stat = file.stat()
                used += stat.st_size
                if file.suffix == ".tar":
                    copies.append((stat.st_mtime_ns, stat.st_size, file))
        if size_bytes > self.limit_bytes:
            return False
        for _, size, file in sorted(copies):
            if used <= self.limit_bytes:
                break
            file.unlink(missing_ok=True)
            used -= size
        return used <= self.limit_bytes

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with (self.folder / "locks" / name).open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _name(url: str, content: str | None, system: Any, path: str) -> str:
    if content:
        return sha256(f"{url}\n{content}".encode())
    info = system.info(path)
    told = [str(info.get(field, "")) for field in ("size", "ETag", "etag", "mtime", "LastModified", "created")]
    return sha256("\n".join([url, *told]).encode())


def _abandoned(part: Path) -> bool:
    """Whether the process that was fetching it is gone."""
    try:
        with part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True
    return True
