"""Where media lie: inside the data's root, and nowhere else."""

from __future__ import annotations

import posixpath
import re

import fsspec

from mmcore import storage
from mmcore.errors import SourceError

_PLAIN = re.compile(r"[^/:\\\0]+(?:/[^/:\\\0]+)*").fullmatch
_DOTS = re.compile(r"(?:^|/)\.\.?(?:/|$)").search


def is_remote(path: str) -> bool:
    return "://" in path and not path.startswith("file://")


def inside(root: str, ref: str) -> str | None:
    """The reference relative to `root`, in its shortest spelling; None where it leads out of it.

    Absolute paths and URLs are fine where they lie below the root. Symbolic links are the owner's own affair.
    """
    if _PLAIN(ref) and not _DOTS(ref):
        return ref
    ref = ref.removeprefix(root.rstrip("/") + "/")
    return None if leads_out(ref) else posixpath.normpath(ref)


def leads_out(ref: str) -> bool:
    """Whether a reference from a root leads out of it."""
    if ref.startswith("/") or "://" in ref:
        return True
    path = posixpath.normpath(ref)
    return path == ".." or path.startswith("../")


def file_system(root: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a remote root and the root's path on it. Raises SourceError where its library is missing."""
    return storage.file_system(root, root, SourceError)
