"""Making one shard: read, decode, check, normalise, store. The function that Dask workers run."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import xxhash

from mmcore import parallel
from mmcore.modalities.base import Rejected
from mmcore.records import Json, Reject, count_by
from mmcore.shards.cells import CellReader, Found
from mmcore.shards.exclusions import Exclusion, with_exclusions
from mmcore.shards.filters import FILTERED, Filters, facts_of
from mmcore.shards.index import Cell, IndexBuilder, Place
from mmcore.shards.quarantine import DEFAULT_LIMITS, QuarantineWriter
from mmcore.shards.recipe import FOLDER, ShardJob
from mmcore.shards.tar import TarWriter, member_name
from mmcore.shards.time_limit import TimeLimit
from mmcore.shards.unreadable import remember, standing
from mmcore.storage import Store, sha256

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setback:
    """A shard that was not made, because of circumstances: once these cells are excluded it can be."""

    exclusions: tuple[Exclusion, ...]


@dataclass(frozen=True)
class Kept:
    """A sample as it goes into a shard."""

    key: str
    label: Json
    cells: Mapping[str, Found | None]
    extras: tuple[Json, ...] = ()


def make_shard(job: ShardJob) -> dict[str, Json] | Setback:
    """Make and publish a shard's tars and indexes, then its receipt, which is returned.

    Where files could not be read, the shard is made without them, under the recipe that excludes them.
    Raises SourceChangedError where a file is not the one that was planned with, and StageError where a modality's
    code fails on a sample.
    """
    if finished := standing(job):
        return finished
    recipe, body = job.recipe, job.recipe.body
    reader = CellReader(job, body)
    rejects: list[Reject] = []
    with (
        closing(reader),
        job.store.scratch() as folder,
        ShardWriter(folder, body, reader) as writer,
        closing(QuarantineWriter(folder, body.get("quarantine", DEFAULT_LIMITS))) as quarantine,
    ):
        for sample in _samples(job, body, reader, rejects, quarantine):
            writer.add(sample)
        if any(setback.lasting for setback in reader.setbacks):
            return Setback(tuple(reader.setbacks))
        if reader.setbacks:
            # The bytes are those that making it again, with these cells excluded, would give.
            recipe = with_exclusions(recipe, reader.setbacks)
        files = [part.published(job.store) for part in writer.finish()]
        receipt = {
            **{
                name: body[name]
                for name in ("kind", "writer", "split", "bad_modality", "filters", "modalities", "task")
            },
            "files": files,
            "recipe": recipe.digest,
            "rows": recipe.rows,
            "samples": sum(file["samples"] for file in files),
            "whole": sum(file["whole"] for file in files),
            "present": _added(file["present"] for file in files),
            "classes": _added(file["classes"] for file in files),
            "filtered": sum(reject.code == FILTERED for reject in rejects),
            "rejects": [reject.as_json() for reject in rejects],
            "sources": recipe.sources,
            **quarantine.published(job.store),
        }
    job.store.publish_json(recipe.receipt, receipt)
    if recipe is not job.recipe:
        remember(job, reader.setbacks)
    if rejects:
        counts = ", ".join(f"{code} {n}" for code, n in count_by(one.code for one in rejects).items())
        _logger.info(
            "shard %s (%s): set aside of %d samples: %s", recipe.digest[:8], body["split"], recipe.rows, counts
        )
    return receipt


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            total[name] = total.get(name, 0) + count
    return total


def _samples(
    job: ShardJob, body: dict[str, Json], reader: CellReader, rejects: list[Reject], quarantine: QuarantineWriter
) -> Iterator[Kept]:
    """The samples that are kept, in order; the others, and what others lack, go to `rejects` and `quarantine`."""
    roots = (root for root, rows in job.roots for _ in range(rows))
    limit_s = job.sample_timeout_s if parallel.in_single_threaded_process_worker() else None
    extras: dict[str, list[Json]] = body["extras"]
    filters = Filters(body["filters"], list(reader.modalities))
    with TimeLimit(limit_s, exact=job.isolated) as limit:
        reader.waiting = limit.restart
        for row, (key, root) in enumerate(zip(body["keys"], roots, strict=True)):
            limit.restart()
            reader.begin()
            cells: dict[str, Found | None] = {}
            bad = []
            for name in reader.modalities:
                found = reader.read(row, key, name, root)
                if isinstance(found, Rejected):
                    bad.append(name)
                    rejects.append(reader.reject(row, key, name, found))
                    quarantine.add(rejects[-1], reader.refused)
                    found = None
                cells[name] = found
            if bad and body["bad_modality"] == "drop":
                rejects.append(Reject(key, "", "dropped", f"unfit: {', '.join(bad)}"))
            elif all(cell is None for cell in cells.values()):
                rejects.append(Reject(key, "", "no-modality", f"unfit: {', '.join(bad)}"))
            else:
                label, values = body["labels"][row], {name: column[row] for name, column in extras.items()}
                if filters:
                    media = {name: None if cell is None else cell.member.facts for name, cell in cells.items()}
                    facts = facts_of({"key": key, "label": label, "split": body["split"]}, values, media)
                    if why := filters.why_not(facts):
                        rejects.append(Reject(key, "", FILTERED, why))
                        continue
                yield Kept(key, label, cells, tuple(values.values()))
    if job.isolated:
        parallel.tell({"decoding": None})


class _Part:
    """One tar with its index, being written."""

    def __init__(self, folder: Path, number: int, index: IndexBuilder) -> None:
        self.tar_path, self.index_path = folder / f"{number}.tar", folder / f"{number}.parquet"
        self.file = self.tar_path.open("wb", buffering=1 << 20)
        self.tar = TarWriter(self.file)
        self.index = index

    def finish(self) -> None:
        self.tar.finish()
        self.file.close()
        self.index.write(self.index_path)

    def published(self, store: Store) -> dict[str, Json]:
        """What the receipt says of it, once its files are in the store."""
        return {
            "tar": store.publish_content(self.tar_path, FOLDER, "tar").as_json(),
            "index": store.publish_content(self.index_path, FOLDER, "parquet").as_json(),
            "samples": len(self.index.keys),
            "whole": self.index.whole(),
            "present": self.index.present(),
            "classes": self.index.classes(),
            "views": self.index.views(),
            "labels": self.index.labels_digest(),
        }


class ShardWriter:
    """Samples into a tar with its index, or into several where one would grow beyond the recipe's `part_bytes`."""

    def __init__(self, folder: Path, body: Mapping[str, Json], reader: CellReader) -> None:
        self._folder = folder
        self._several = reader.several
        self._extensions = {name: modality.extension for name, modality in reader.modalities.items()}
        self._task, self._extras = body["task"], list(body["extras"])
        self._part_bytes = body["part_bytes"]
        self._parts: list[_Part] = []
        self._open = ExitStack()
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def _begin(self) -> None:
        index = IndexBuilder(self._several, task=self._task, extras=self._extras)
        self._parts.append(_Part(self._folder, len(self._parts), index))
        self._open.enter_context(self._parts[-1].file)

    def add(self, sample: Kept) -> None:
        part = self._parts[-1]
        if self._part_bytes is not None and part.index.keys:
            size_bytes = sum(len(data) for cell in sample.cells.values() if cell for data in cell.member.parts)
            if part.tar.size_bytes + size_bytes > self._part_bytes:
                part.finish()
                self._begin()
                part = self._parts[-1]
        cells = {
            name: None if cell is None else self._stored(part.tar, sample.key, name, cell)
            for name, cell in sample.cells.items()
        }
        part.index.add(sample.key, sample.label, cells, sample.extras)

    def _stored(self, tar: TarWriter, key: str, name: str, found: Found) -> Cell:
        places = []
        for number, data in enumerate(found.member.parts):
            member = member_name(key, name, self._extensions[name], number if self._several[name] else None)
            offset = tar.add(member, data)
            places.append(Place(offset, len(data), sha256(data), xxhash.xxh3_64_intdigest(data)))
        return Cell(places, found.member.facts, found.member.signature, found.source, found.source_sha256)

    def finish(self) -> list[_Part]:
        """The finished parts: at least one, which is empty where no sample was kept."""
        self._parts[-1].finish()
        return self._parts
