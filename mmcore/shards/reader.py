"""Samples by number out of tars and their indexes: any order, every byte checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmcore.errors import DamagedError
from mmcore.shards.access import Bytes, Span, TarFile, Tars
from mmcore.shards.cache import ShardCache
from mmcore.shards.catalogue import CHECKSUMS, Catalogue, Members
from mmcore.sources.keys import escape
from mmcore.storage import sha256

Sample = dict[str, Any]
"""`__key__`, `label`, what else of the index was asked for, and per field bytes, a tuple of bytes where a sample has
several files of it, or None where it has none."""
Decoders = Mapping[str, Callable[[bytes], Any]]
"""Per field, what makes a value of its bytes; fields without one stay bytes."""


class Shards:
    """Samples of some shards, numbered from 0 in shard order; `mmcore.shards.opening` has what makes one.

    Safe to fork, to pickle, and to read from several threads.
    """

    def __init__(
        self,
        files: Sequence[TarFile],
        catalogue: Catalogue,
        *,
        cache: ShardCache | None = None,
        decoders: Decoders | None = None,
        escaped: bool = True,
    ) -> None:
        self.catalogue = catalogue
        self.tars = Tars(files, cache)
        self.decoders = dict(decoders or {})
        """How each field is decoded where a reader is told to decode."""
        self._escaped = escaped

    def __len__(self) -> int:
        return len(self.catalogue)

    @property
    def fields(self) -> tuple[str, ...]:
        """What samples have members of."""
        return tuple(self.catalogue.members)

    @property
    def files(self) -> tuple[TarFile, ...]:
        return self.tars.files

    @property
    def keys(self) -> list[str]:
        """The key of each sample."""
        keys: list[str] = self.catalogue.table["key"].to_pylist()
        return keys

    @property
    def shard_sizes(self) -> list[int]:
        """Samples of each tar."""
        sizes: list[int] = np.bincount(self.catalogue.shard, minlength=len(self.files)).tolist()
        return sizes

    @cached_property
    def digest(self) -> str:
        """Names the keys in their order: positions in an epoch mean the same wherever it is equal."""
        return sha256("\n".join(self.keys).encode("utf-8", "surrogatepass"))

    def of(self, rows: Sequence[int] | NDArray[Any]) -> Shards:
        """These samples only, in this order; they share open files with the others."""
        other = object.__new__(Shards)
        other.__dict__ = {name: value for name, value in self.__dict__.items() if name != "digest"}
        other.catalogue = self.catalogue.of(np.asarray(rows, dtype=np.int64))
        return other

    def read(
        self, rows: Sequence[int] | NDArray[Any], *, fields: Sequence[str] | None = None, verify: bool = True
    ) -> list[Sample]:
        """These samples, in this order.

        Raises DamagedError, naming the tar and the member, where bytes are not those that were written, or are gone.
        """
        part = self.catalogue.of(np.asarray(rows, dtype=np.int64))
        wanted = {name: part.members[name] for name in (self.fields if fields is None else fields)}
        columns = ["__key__" if name == "key" else name for name in part.table.column_names]
        # Copied, since a dict that grows name by name costs more than all else here.
        empty = dict.fromkeys([*columns, *wanted])
        samples: list[Sample] = [empty.copy() for _ in range(len(part))]
        for name, values in zip(columns, part.table.columns, strict=True):
            for sample, value in zip(samples, values.to_pylist(), strict=True):
                sample[name] = value
        numbers = part.shard.tolist()
        opened = self.tars.opened(set(numbers), lambda: _spans(numbers, wanted.values()))
        tars = [opened[number] for number in numbers]
        hashed = CHECKSUMS[part.checksum] if verify else None
        for name, members in wanted.items():
            try:
                if members.counts is None:
                    _add_one(samples, name, members, tars, hashed)
                else:
                    _add_several(samples, name, members, tars, hashed)
            except _DamagedMemberError as error:
                raise self._named(part, name, error) from None
        return samples

    def batches(self, size: int, *, fields: Sequence[str] | None = None, verify: bool = True) -> Iterator[list[Sample]]:
        """All samples in order, so many at a time."""
        for start in range(0, len(self), size):
            yield self.read(np.arange(start, min(start + size, len(self))), fields=fields, verify=verify)

    def decode(self, samples: Iterable[Sample], decoders: Decoders) -> None:
        """Put decoded values in place of the bytes."""
        for sample in samples:
            for name, decoder in decoders.items():
                value = sample.get(name)
                if isinstance(value, bytes):
                    sample[name] = decoder(value)
                elif value is not None:
                    sample[name] = tuple(map(decoder, value))

    def _named(self, part: Catalogue, name: str, error: _DamagedMemberError) -> DamagedError:
        key = part.table["key"][error.row].as_py()
        url = self.files[int(part.shard[error.row])].url
        member = f"{escape(key) if self._escaped else key}.{name}" + (f".{error.part:03d}" if error.several else "")
        return DamagedError(
            f"{url}: member {member} (sample {key!r}) is {error}; remove the tar and run again, or fetch it again."
        )


class _DamagedMemberError(Exception):
    """A member of a row is not what was written."""

    def __init__(self, row: int, found: bytes, size: int, part: int = 0, *, several: bool = False) -> None:
        self.row, self.part, self.several = row, part, several
        super().__init__(damage(len(found), size))


def damage(size_bytes: int, wanted_bytes: int) -> str:
    """What is wrong with a member of which so many bytes were found."""
    if size_bytes < wanted_bytes:
        return f"cut off: {size_bytes:,} of {wanted_bytes:,} bytes are there"
    return "damaged: its checksum is not the one that was written"


def _spans(numbers: Sequence[int], wanted: Iterable[Members]) -> dict[int, list[Span]]:
    """Per tar the bytes that are needed of it; `numbers` are those of each row's tar."""
    spans: dict[int, list[Span]] = {number: [] for number in dict.fromkeys(numbers)}
    for members in wanted:
        if members.counts is None:
            for number, offset, size in zip(numbers, members.offsets.tolist(), members.sizes.tolist(), strict=True):
                if size >= 0:
                    spans[number].append((offset, offset + size))
            continue
        for row, number in enumerate(numbers):
            spans[number] += [(offset, offset + size) for offset, size, _ in _several(members, row)]
    return spans


def _several(members: Members, row: int) -> Iterator[tuple[int, int, int]]:
    """Offset, size and checksum of each member of a row that may have several."""
    if members.firsts is None or members.counts is None:
        raise ValueError("each row has one")
    first = int(members.firsts[row])
    parts = slice(first, first + max(0, int(members.counts[row])))
    return zip(
        members.offsets[parts].tolist(), members.sizes[parts].tolist(), members.checksums[parts].tolist(), strict=True
    )


def _add_one(
    samples: list[Sample], name: str, members: Members, tars: list[Bytes], hashed: Callable[[bytes], int] | None
) -> None:
    stops = members.offsets + members.sizes
    places = zip(members.offsets.tolist(), stops.tolist(), members.checksums.tolist(), strict=True)
    for sample, tar, (offset, stop, checksum) in zip(samples, tars, places, strict=True):
        if offset < 0:
            continue
        sample[name] = data = tar[offset:stop]
        # Fewer bytes than there should be have another hash.
        if len(data) != stop - offset if hashed is None else hashed(data) != checksum:
            raise _DamagedMemberError(_row_of(sample, samples), data, stop - offset)


def _row_of(sample: Sample, samples: list[Sample]) -> int:
    return next(row for row, one in enumerate(samples) if one is sample)


def _add_several(
    samples: list[Sample], name: str, members: Members, tars: list[Bytes], hashed: Callable[[bytes], int] | None
) -> None:
    present = members.present.tolist()
    for row, (sample, tar) in enumerate(zip(samples, tars, strict=True)):
        parts = []
        for part, (offset, size, checksum) in enumerate(_several(members, row)):
            data = tar[offset : offset + size]
            if len(data) != size or (hashed is not None and hashed(data) != checksum):
                raise _DamagedMemberError(row, data, size, part, several=True)
            parts.append(data)
        sample[name] = tuple(parts) if present[row] else None
