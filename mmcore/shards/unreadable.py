"""Shards that lack what could not be read: kept as they are for as long as it still cannot be.

A run that meets an unreadable file makes the shard without it, and remembers that as a file of its own. The next run
tries these cells alone: where all still fail, the shard stands, and nothing else of it is read or fetched again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from mmcore.errors import DamagedError
from mmcore.records import DataFile, Json
from mmcore.shards.exclusions import FOLDER, Exclusion, with_exclusions
from mmcore.shards.recipe import ShardJob, refs_of
from mmcore.sources.reading import read_source
from mmcore.sources.references import Reference, is_list
from mmcore.sources.web import Fetcher, hosts_of, of_address


def remember(job: ShardJob, unreadable: Sequence[Exclusion]) -> None:
    """Say which cells this shard was made without."""
    cells = [[one.key, one.modality, one.source, one.code, one.message] for one in unreadable]
    job.store.publish_json(_path(job), {"cells": cells})


def standing(job: ShardJob) -> dict[str, Json] | None:
    """The receipt of this shard without what an earlier run could not read, where that still cannot be; else None."""
    try:
        cells = [Exclusion(*cell) for cell in job.store.read_json(_path(job))["cells"]]
        receipt: dict[str, Json] = job.store.read_json(with_exclusions(job.recipe, cells).receipt)
        files = [DataFile(**part[name]) for part in receipt["files"] for name in ("tar", "index")]
    except (FileNotFoundError, DamagedError, KeyError, TypeError):
        return None
    if not all(map(job.store.intact, files)) or not _still_fail(job, {(cell.key, cell.modality) for cell in cells}):
        return None
    return receipt


def _path(job: ShardJob) -> str:
    return f"{FOLDER}/unreadable/{job.recipe.digest}.json"


def _still_fail(job: ShardJob, cells: set[tuple[str, str]]) -> bool:
    """Whether in each of these cells a file cannot be read."""
    places = list(_places(job, cells))
    addresses = ((address, most) for *_, ref, _, most in places if (address := of_address(ref)))
    failed: dict[tuple[str, str], bool] = dict.fromkeys(cells, False)
    with closing(Fetcher(addresses, hosts_of(job.run))) as fetcher:
        for number, (key, name, root, ref, fingerprint, most) in enumerate(places):
            failed[key, name] |= not _can_be_read(fetcher, root, ref, fingerprint, most)
            last_of_cell = number + 1 == len(places) or places[number + 1][:2] != (key, name)
            if last_of_cell and not failed[key, name]:
                return False
    return all(failed.values())


def _can_be_read(fetcher: Fetcher, root: str, ref: Reference, fingerprint: str | None, max_bytes: int) -> bool:
    try:
        if address := of_address(ref):
            fetcher.read(address, max_bytes)
        else:
            read_source(root, ref, fingerprint, max_bytes)
    except OSError:
        return False
    return True


def _places(job: ShardJob, cells: set[tuple[str, str]]) -> Iterator[tuple[str, str, str, Reference, str | None, int]]:
    """Key, modality, root, reference, fingerprint and most bytes of each file of these cells, in the order of rows."""
    body = job.recipe.body
    roots = [root for root, rows in job.roots for _ in range(rows)]
    for row, key in enumerate(body["keys"]):
        for name, column in body["media"].items():
            if (key, name) not in cells or "files" not in column:
                continue
            ref, found = refs_of(column)[row], column["fingerprints"][row]
            ones = zip(ref[1:], found, strict=True) if is_list(ref) else [(ref, found)]
            for one, fingerprint in ones:
                yield key, name, roots[row], one, fingerprint, body["modalities"][name]["max_bytes"]
