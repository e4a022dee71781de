"""Reading finished shards again to find what the disk did to them, sample by sample."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmcore.errors import DamagedError
from mmcore.records import Dataset, ShardEntry
from mmcore.shards.access import TarFile
from mmcore.shards.catalogue import Catalogue
from mmcore.shards.read import read_index
from mmcore.shards.reader import Shards
from mmcore.shards.recipe import FOLDER
from mmcore.shards.tar import BLOCK
from mmcore.sources.keys import escape
from mmcore.storage import Store, sha256_of_file


@dataclass(frozen=True)
class Damage:
    """What is wrong with one member of a sample, or with a whole file (no key)."""

    what: str
    key: str = ""
    modality: str = ""


@dataclass(frozen=True)
class Finding:
    """A shard and all that is damaged in it; nothing where it is sound."""

    shard: ShardEntry
    damages: tuple[Damage, ...]


def verify_shards(store: Store, dataset: Dataset) -> Iterator[Finding]:
    """Read every byte of a data set's shards and compare it with what was written."""
    for entry in dataset.shards:
        yield Finding(entry, tuple(_damages(store, entry)))


def remove_damaged(store: Store, finding: Finding) -> None:
    """Remove a damaged shard, its receipt first, so that the next run makes it again."""
    store.remove(f"{FOLDER}/{finding.shard.recipe}.json")
    for file in (finding.shard.tar, finding.shard.index):
        if file is not None:
            store.remove(file.path)


def _damages(store: Store, entry: ShardEntry) -> Iterator[Damage]:
    if entry.tar is None:
        raise ValueError(f"shard {entry.recipe} is only foreseen: there are no files to read")
    index = None
    try:
        index = read_index(store, entry)
    except DamagedError as error:
        yield Damage(str(error))
    if not store.exists(entry.tar.path):
        yield Damage(f"{store.url(entry.tar.path)} is missing")
        return
    with store.as_local(entry.tar.path) as tar:
        if sha256_of_file(tar) == entry.tar.sha256:
            return
        if index is None:
            yield Damage(f"{store.url(entry.tar.path)} is damaged")
            return
        shards = Shards([TarFile(str(tar))], Catalogue.of_indexes([index]))
        found = [*_damaged_members(shards), *_damaged_headers(shards, tar)]
    yield from found or [Damage(f"{store.url(entry.tar.path)} is damaged between its members, which are sound")]


def _damaged_members(shards: Shards) -> Iterator[Damage]:
    for row, key in enumerate(shards.keys):
        for field in shards.fields:
            try:
                shards.read([row], fields=[field])
            except DamagedError as error:
                # Without the tar's name and the advice around it.
                what = str(error).partition(f"(sample {key!r}) is ")[2].partition("; ")[0]
                yield Damage(what or str(error), key, field)


def _damaged_headers(shards: Shards, tar: Path) -> Iterator[Damage]:
    """Members whose bytes are sound, but which other readers of tars would not find or would misname."""
    keys = shards.keys
    with tar.open("rb") as file:
        for field, members in shards.catalogue.members.items():
            rows = range(len(keys)) if members.counts is None else _rows_of_parts(shards, field)
            for row, offset, size in zip(rows, members.offsets.tolist(), members.sizes.tolist(), strict=True):
                if size < 0:
                    continue
                file.seek(offset - BLOCK)
                try:
                    header = tarfile.TarInfo.frombuf(file.read(BLOCK), "utf-8", "surrogateescape")
                    sound = header.size == size and header.name.startswith(f"{escape(keys[row])}.{field}.")
                except tarfile.HeaderError:
                    sound = False
                if not sound:
                    yield Damage("damaged in the header before it; its own bytes may be sound", keys[row], field)


def _rows_of_parts(shards: Shards, field: str) -> list[int]:
    counts = shards.catalogue.members[field].counts
    return [] if counts is None else [row for row, count in enumerate(counts.tolist()) for _ in range(max(0, count))]
