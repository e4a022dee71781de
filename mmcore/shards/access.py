"""The bytes of many tars: mapped into memory where they lie on this machine, read by ranges where they do not."""

from __future__ import annotations

import mmap
import os
import resource
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mmcore.errors import DamagedError, SourceError
from mmcore.shards.cache import ShardCache
from mmcore.storage import file_system

Span = tuple[int, int]
"""Start and stop of bytes in a tar."""

LARGEST_GAP_BYTES = 64 * 1024
"""Ranges of a remote tar that are no further apart are read at once."""
MOST_OPEN = 4096
"""Tars that are mapped at a time, at most: each takes a file descriptor and an entry of the kernel's."""
RETRY_AFTER_S = (0.1, 0.5, 2.0)
"""Waits between attempts at a remote read that failed."""


@dataclass(frozen=True)
class TarFile:
    """Where a tar is: a local path or a URL; its size and SHA-256 (32 hex digits) where they are known."""

    url: str
    size_bytes: int | None = None
    sha256: str | None = None

    @property
    def local(self) -> bool:
        return "://" not in self.url


class Bytes(Protocol):
    """What a slice takes bytes out of; short where the tar ends before."""

    def __getitem__(self, span: slice, /) -> bytes: ...


class Tars:
    """Opens tars by number and keeps the latest ones open; at most a quarter of the file descriptors allowed.

    Safe to use from several threads, to fork and to pickle: each process maps files and makes connections of its own.
    """

    def __init__(self, files: Sequence[TarFile], cache: ShardCache | None = None, most_open: int | None = None) -> None:
        self.files = tuple(files)
        self.cache = cache
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.most_open = most_open or max(8, min(MOST_OPEN, allowed // 4))
        self._forget()

    def _forget(self) -> None:
        _keep_freed_memory()
        self._maps: dict[int, mmap.mmap | bytes] = {}
        self._paths: dict[int, str] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files, "cache": self.cache, "most_open": self.most_open}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._forget()

    def opened(self, numbers: Iterable[int], spans: Callable[[], Mapping[int, Sequence[Span]]]) -> dict[int, Bytes]:
        """The bytes of these tars; of those that are read remotely, the bytes within `spans`.

        Raises DamagedError where a tar is missing.
        """
        found: dict[int, Bytes] = {}
        remote = []
        with self._lock:
            for number in numbers:
                mapped = self._mapped(number)
                if mapped is None:
                    remote.append(number)
                else:
                    found[number] = mapped
        if remote:
            wanted = spans()
            found |= _fetched({self.files[number].url: wanted[number] for number in remote}, remote)
        return found

    def _mapped(self, number: int) -> mmap.mmap | bytes | None:
        """The whole tar mapped into memory; None where it has to be read remotely. Needs the lock."""
        mapped = self._maps.pop(number, None)
        # A file that was cut short under its map would end the process where bytes beyond its end are touched.
        if not mapped or mapped.size() != len(mapped):  # type: ignore[union-attr]
            mapped = self._map(number)
            if mapped is None:
                return None
        self._maps[number] = mapped
        while len(self._maps) > self.most_open:
            # Not closed by hand: another thread may be reading from it.
            del self._maps[next(iter(self._maps))]
        return mapped

    def _map(self, number: int) -> mmap.mmap | bytes | None:
        tar, cache = self.files[number], self.cache
        if tar.local or cache is None:
            return _map(tar.url) if tar.local else None

        def fetch() -> mmap.mmap | bytes | None:
            path = cache.local(tar.url, tar.sha256)
            if path is None:
                return None
            self._paths[number] = path
            try:
                return _map(path)
            except DamagedError as error:
                raise OSError(f"{path} was removed by another process") from error

        found: mmap.mmap | bytes | None = _patiently(fetch, tar.url)
        # What the cache has removed meanwhile takes room on the disk for as long as it is mapped.
        for gone in [other for other, path in self._paths.items() if not os.path.exists(path)]:
            self._maps.pop(gone, None)
            del self._paths[gone]
        return found


def _map(path: str) -> mmap.mmap | bytes:
    try:
        with open(path, "rb") as file:
            # An empty file cannot be mapped.
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if file.seek(0, 2) else b""
    except FileNotFoundError:
        raise missing(path) from None


def _keep_freed_memory() -> None:
    """Have malloc keep what members took for those to come, instead of handing it back to the system after each batch.

    That cost half of all reading time, in page faults. glibc raises its thresholds to what was last freed in one
    piece (up to 32 MiB), so freeing one such piece, whose pages are never touched, is enough.
    """
    bytes(31 << 20)


def missing(url: str) -> DamagedError:
    return DamagedError(f"{url} is missing; make or fetch it again.")


class _Ranges:
    """Pieces of a remote file, by where they start."""

    def __init__(self, starts: Sequence[int], pieces: Sequence[bytes]) -> None:
        self._starts, self._pieces = starts, pieces

    def __getitem__(self, span: slice, /) -> bytes:
        at = bisect_right(self._starts, span.start) - 1
        start = self._starts[at]
        return self._pieces[at][span.start - start : span.stop - start]


def _fetched(wanted: Mapping[str, Sequence[Span]], numbers: Sequence[int]) -> dict[int, Bytes]:
    """The spans of remote files, in one go per file system; those that lie close together are read as one."""
    merged = {url: merge(spans) for url, spans in wanted.items()}
    by_protocol: dict[str, list[str]] = {}
    for url in merged:
        by_protocol.setdefault(url.partition("://")[0], []).append(url)
    found: dict[str, Bytes] = {}
    for urls in by_protocol.values():
        system, _ = file_system(urls[0], "reading", SourceError)
        paths, starts, stops = (
            [part for url in urls for part in parts(url)]
            for parts in (
                lambda url: [url] * len(merged[url]),
                lambda url: [start for start, _ in merged[url]],
                lambda url: [stop for _, stop in merged[url]],
            )
        )
        plain = [system._strip_protocol(path) for path in paths]
        pieces = _patiently(lambda: system.cat_ranges(plain, starts, stops, on_error="raise"), urls[0])  # noqa: B023
        taken = 0
        for url in urls:
            spans = merged[url]
            found[url] = _Ranges([start for start, _ in spans], pieces[taken : taken + len(spans)])
            taken += len(spans)
    return {number: found[url] for number, url in zip(numbers, wanted, strict=True)}


def merge(spans: Sequence[Span], gap_bytes: int = LARGEST_GAP_BYTES) -> list[Span]:
    """The same bytes in as few spans as there are, in order; gaps of up to `gap_bytes` are included."""
    merged: list[Span] = []
    for start, stop in sorted(spans):
        if merged and start - merged[-1][1] <= gap_bytes:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def _patiently(read: Callable[[], Any], url: str) -> Any:
    for wait_s in (*RETRY_AFTER_S, None):
        try:
            return read()
        except FileNotFoundError:
            raise missing(url) from None
        except (PermissionError, NotImplementedError):
            raise
        except OSError:
            if wait_s is None:
                raise
            time.sleep(wait_s)
    return None
