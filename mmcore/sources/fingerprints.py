"""What tells whether a source file is still the one that was planned with."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec

from mmcore.errors import Problem, SourceError
from mmcore.sources.paths import file_system, is_remote
from mmcore.storage import sha256, sha256_of_file

HASHED = "sha256:"
"""Start of fingerprints that were made from a file's bytes."""


def of_stat(found: os.stat_result) -> str:
    """`size:mtime_ns` of a local file."""
    return f"{found.st_size}:{found.st_mtime_ns}"


def of_object(info: Mapping[str, Any]) -> str:
    """The size of a remote object and what its store gives to tell versions apart."""
    # What listings and single questions both give comes first: they must agree.
    for name in ("ETag", "etag", "generation", "md5Hash", "version_id", "LastModified", "mtime", "created"):
        if value := info.get(name):
            mark = value.timestamp() if isinstance(value, datetime) else value
            return f"{info['size']}:{mark}"
    return f"{info['size']}:"


def of_bytes(data: bytes) -> str:
    """The hash of a file's bytes."""
    return HASHED + sha256(data)


def fingerprints(root: str, refs: Sequence[str | None], how: str) -> list[str | None]:
    """One fingerprint per reference below `root`; None where there is no reference or no such file.

    `how` is 'stat' (size and time; on buckets version or ETag) or 'sha256' (all bytes are read).
    Raises SourceError for a remote root that cannot be listed.
    """
    if is_remote(root):
        return _remote(root, refs, how)
    found: list[str | None] = []
    for ref in refs:
        if ref is None:
            found.append(None)
            continue
        path = f"{root}/{ref}"
        try:
            status = os.stat(path)
            regular = stat.S_ISREG(status.st_mode)
            if regular and how == "sha256":
                found.append(HASHED + sha256_of_file(Path(path)))
            else:
                found.append(of_stat(status) if regular else None)
        except (OSError, ValueError):  # ValueError: a NUL in the name
            found.append(None)
    return found


def _remote(root: str, refs: Sequence[str | None], how: str) -> list[str | None]:
    system, base = file_system(root)
    paths = [None if ref is None else f"{base.rstrip('/')}/{ref}" for ref in refs]
    folders = {posixpath.dirname(path) for path in paths if path is not None}
    infos = {folder: _listing(system, folder) for folder in folders}
    found: list[str | None] = []
    for path in paths:
        info = None if path is None else infos[posixpath.dirname(path)].get(posixpath.basename(path))
        if info is None or info.get("type") != "file":
            found.append(None)
        else:
            found.append(of_bytes(system.cat_file(info["name"])) if how == "sha256" else of_object(info))
    return found


def _listing(system: fsspec.AbstractFileSystem, folder: str) -> dict[str, Mapping[str, Any]]:
    """What lies in a remote folder: one listing instead of one question per file."""
    system.invalidate_cache(folder)
    try:
        return {posixpath.basename(info["name"]): info for info in system.ls(folder, detail=True)}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except Exception as error:  # libraries for buckets have errors of their own
        what = f"cannot be listed ({str(error) or type(error).__name__})."
        url = str(system.unstrip_protocol(folder))
        raise SourceError(Problem(url, what, "Check data.root, your credentials and your access.")) from error
