"""References to what is no file of its own: a member of a tar, a cell of a table, several files."""

from __future__ import annotations

import json
from collections.abc import Callable

from mmcore.records import Json, canonical_json

STRUCTURED = "\0"
"""Starts a cell that holds a reference as JSON; no path can."""

Reference = Json
"""A path, `["web", address]`, `["tar", path, offset, size]`, `["table", path, row, column]`, or
`["list", reference, ...]`."""


def pack(reference: Reference) -> str:
    """A reference as a manifest's cell holds it."""
    return reference if isinstance(reference, str) else STRUCTURED + canonical_json(reference).decode()


def unpack(cell: str) -> Reference:
    """The reference in a manifest's cell."""
    return json.loads(cell[1:]) if cell.startswith(STRUCTURED) else cell


def file_of(reference: Reference) -> str:
    """The file that a reference (to one thing) lies in."""
    return str(reference if isinstance(reference, str) else reference[1])


def is_list(reference: Reference) -> bool:
    """Whether a reference names several files."""
    return isinstance(reference, list) and bool(reference) and reference[0] == "list"


def with_paths(reference: Reference, change: Callable[[str], str]) -> Reference:
    """The same reference with every path changed."""
    if isinstance(reference, str):
        return change(reference)
    if is_list(reference):
        return ["list", *(with_paths(one, change) for one in reference[1:])]
    kind, path, *within = reference
    return [kind, change(path), *within]


def words_of(reference: Reference) -> str:
    """A reference as a person reads it: a path, or a path and what within it."""
    if isinstance(reference, str):
        return reference
    if is_list(reference):
        return "; ".join(map(words_of, reference[1:]))
    _, path, *within = reference
    return f"{path}#{','.join(map(str, within))}" if within else str(path)
