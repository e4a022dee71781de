"""What rows are to be learned for, and which split they are in."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from mmcore.config.data import SplitConfig
from mmcore.records import SPLITS, Json, canonical_json


def bad_numbers(cells: pa.ChunkedArray, *, least: float = -math.inf) -> list[bool]:
    """Which cells are neither empty nor a finite number from `least` on."""
    return [bool(cell) and not _is_number(cell, least) for cell in cells.to_pylist()]


def _is_number(cell: str, least: float) -> bool:
    try:
        return math.isfinite(float(cell)) and float(cell) >= least
    except ValueError:
        return False


def targets(cells: pa.ChunkedArray, task: str) -> list[Json]:
    """Labels as shards hold them: a text, a sorted list of texts, or a number; None where there is none."""
    values: list[Json] = shared(cells)
    if task == "regression":
        return [None if cell is None else float(cell) for cell in values]
    if task == "multilabel":
        return [None if cell is None else sorted(set(json.loads(cell))) for cell in values]
    return values


def shared(cells: pa.ChunkedArray) -> list[str | None]:
    """The texts of a column in which few differ: equal ones are one object, where `to_pylist` makes one per row."""
    known: dict[str | None, str | None] = {}
    return [known.setdefault(cell, cell) for chunk in cells.chunks for cell in chunk.to_pylist()]


def divided(keys: Sequence[str], settings: SplitConfig) -> pa.Array:
    """The split of each key (or group): where the hash of seed and key falls among the ratios.

    Equal keys are in one split, whatever other rows there are; the shares are met on average.
    """
    total = sum(settings.ratios.values())
    bounds, reached = [], 0.0
    for split in SPLITS:
        reached += settings.ratios.get(split, 0.0) / total  # type: ignore[call-overload]
        bounds.append((reached, split))
    last = max(split for split in settings.ratios if settings.ratios[split])
    known: dict[str, str] = {}
    for key in keys:
        if key not in known:
            hashed = hashlib.blake2b(canonical_json([settings.seed, key]), digest_size=8).digest()
            place = int.from_bytes(hashed) / 2**64
            known[key] = next((split for bound, split in bounds if place < bound), last)
    return pa.array([known[key] for key in keys], pa.string())


def torn_groups(groups: pa.ChunkedArray, splits: pa.ChunkedArray) -> list[tuple[str, list[str]]]:
    """Groups that have rows in several splits, and in which; rows without a group are in none."""
    table = pa.table({"group": groups, "split": splits}).filter(pc.not_equal(groups, ""))
    found = table.group_by("group").aggregate([("split", "distinct")])
    return [
        (group, sorted(names))
        for group, names in zip(found["group"].to_pylist(), found["split_distinct"].to_pylist(), strict=True)
        if len(names) > 1
    ]
