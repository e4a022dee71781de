"""Where every member of many shards lies, in arrays: a few dozen bytes a member, shared by forked workers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Checksum = Literal["xxh3", "sha256"]


def _first_64_bits_of_sha256(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8])


CHECKSUMS: Mapping[str, Callable[[bytes], int]] = {
    "xxh3": xxhash.xxh3_64_intdigest,
    "sha256": _first_64_bits_of_sha256,
}
"""64 bits that tell a member's bytes from damaged ones."""


@dataclass(frozen=True)
class Members:
    """The members of one field; -1 as offset and size where a row has none.

    One each per row, or, where a row may have several, `counts` of them from `firsts` on.
    """

    offsets: Integers
    sizes: Integers
    checksums: NDArray[np.uint64]
    firsts: Integers | None = None
    counts: Integers | None = None
    """-1 where the row has none."""

    def of(self, rows: Integers) -> Members:
        """The members of these rows only."""
        if self.firsts is None or self.counts is None:
            return Members(self.offsets[rows], self.sizes[rows], self.checksums[rows])
        return replace(self, firsts=self.firsts[rows], counts=self.counts[rows])

    @property
    def present(self) -> NDArray[np.bool_]:
        return (self.sizes if self.counts is None else self.counts) >= 0


@dataclass(frozen=True)
class Catalogue:
    """The rows of some shards, in order."""

    shard: NDArray[np.int32]
    """Number of the tar that holds each row."""
    table: pa.Table
    """`key` and `label`, and what else of the index was asked for."""
    members: Mapping[str, Members]
    """Per field: a modality, or in tars of other makers what follows the key."""
    checksum: Checksum

    def __len__(self) -> int:
        return len(self.shard)

    def of(self, rows: Integers) -> Catalogue:
        """These rows only, in this order."""
        members = {name: found.of(rows) for name, found in self.members.items()}
        return replace(self, shard=self.shard[rows], table=self.table.take(rows).combine_chunks(), members=members)

    @classmethod
    def of_indexes(cls, indexes: Sequence[pa.Table], columns: Sequence[str] = ()) -> Catalogue:
        """From the index of each tar: see `mmcore.shards.index`. Raises KeyError for a column that is in none."""
        sizes = [len(index) for index in indexes]
        names = sorted({name for index in indexes for name in fields_of(index)})
        kept = ("key", "label", *columns)
        for column in columns:
            if indexes and not any(column in index.column_names for index in indexes):
                raise KeyError(column)
        tables = [index.select([name for name in kept if name in index.column_names]) for index in indexes]
        table = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({"key": [], "label": []})
        # Beyond 2 GB of keys, plain strings no longer fit one array.
        table = table.set_column(table.column_names.index("key"), "key", table["key"].cast(pa.large_string()))
        every = all(f"{name}.xxh3" in index.column_names for index in indexes for name in fields_of(index))
        checksum: Checksum = "xxh3" if every else "sha256"
        return cls(
            np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
            table.combine_chunks(),
            {name: _joined([_members(index, name, checksum) for index in indexes]) for name in names},
            checksum,
        )


def fields_of(index: pa.Table) -> list[str]:
    """The fields that an index has members of."""
    names = set(index.column_names)
    ends = [name.removesuffix(".offset") for name in index.column_names if name.endswith(".offset")]
    return [name for name in ends if {f"{name}.present", f"{name}.size_bytes"} <= names]


def _members(index: pa.Table, name: str, checksum: Checksum) -> Members:
    """One field's members in one index; none where the index does not have the field."""
    if f"{name}.offset" not in index.column_names:
        absent = np.full(len(index), -1, dtype=np.int64)
        return Members(absent, absent, np.zeros(len(index), dtype=np.uint64))
    offset, size, found = (index[f"{name}.{part}"].combine_chunks() for part in ("offset", "size_bytes", checksum))
    present = index[f"{name}.present"].to_numpy().astype(bool)
    if not pa.types.is_list(offset.type):
        return Members(_integers(offset), _integers(size), _bits(found))
    counts = _integers(offset.value_lengths())
    counts = np.where(present, counts, -1)
    lengths = np.maximum(counts, 0)
    return Members(
        _integers(offset.flatten()),
        _integers(size.flatten()),
        _bits(found.flatten()),
        np.cumsum(lengths) - lengths,
        counts,
    )


def _joined(parts: Sequence[Members]) -> Members:
    """The members of one field of one shard after another."""
    if any(part.counts is not None for part in parts):
        parts = [part if part.counts is not None else _as_several(part) for part in parts]
    shifts = np.cumsum([0, *(len(part.offsets) for part in parts)])
    several = [part for part in parts if part.firsts is not None and part.counts is not None]
    return Members(
        np.concatenate([part.offsets for part in parts]),
        np.concatenate([part.sizes for part in parts]),
        np.concatenate([part.checksums for part in parts]),
        np.concatenate([part.firsts + by for part, by in zip(parts, shifts, strict=False)]) if several else None,
        np.concatenate([part.counts for part in several if part.counts is not None]) if several else None,
    )


def _as_several(part: Members) -> Members:
    return replace(part, firsts=np.arange(len(part.sizes)), counts=np.where(part.sizes >= 0, 1, -1))


def _integers(values: pa.Array) -> Integers:
    found: Integers = values.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
    return found


def _bits(checksums: pa.Array) -> NDArray[np.uint64]:
    """The first 64 bits of each checksum, 0 where there is none."""
    if pa.types.is_integer(checksums.type):
        numbers: NDArray[np.uint64] = checksums.cast(pa.uint64()).fill_null(0).to_numpy(zero_copy_only=False)
        return numbers
    digits = "".join(text[:16] for text in checksums.fill_null("0" * 16).to_pylist())
    return np.frombuffer(bytes.fromhex(digits), dtype=">u8").astype(np.uint64)
