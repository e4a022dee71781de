"""Making one shard: read, decode, check, normalise, store. The function that Dask workers run."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from mmcore import parallel
from mmcore.errors import MmcoreError, StageError
from mmcore.modalities.base import CIRCUMSTANTIAL, Member, Rejected
from mmcore.records import Json, Reject, count_by
from mmcore.shards.exclusions import Exclusion, source_of
from mmcore.shards.index import IndexBuilder
from mmcore.shards.inputs import read_source
from mmcore.shards.recipe import FOLDER, ShardJob, open_modality
from mmcore.shards.tar import TarWriter, member_name
from mmcore.shards.time_limit import TimeLimit
from mmcore.storage import sha256

INLINE = "(text in the manifest)"


_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setback:
    """A shard that was not made, because of circumstances: once these cells are excluded it can be."""

    exclusions: tuple[Exclusion, ...]


def make_shard(job: ShardJob) -> dict[str, Json] | Setback:
    """Make and publish a shard's tar and index, then its receipt, which is returned.

    Raises SourceChangedError where a file is not the one that was planned with, and StageError where a modality's
    code fails on a sample.
    """
    body = job.recipe.body
    decoder = _Decoder(job, body)
    index = IndexBuilder(decoder.modalities)
    with job.store.scratch() as folder:
        tar_path, index_path = folder / "shard.tar", folder / "shard.parquet"
        with tar_path.open("wb", buffering=1 << 20) as file:
            tar = TarWriter(file)
            for row, members in decoder.samples():
                index.add_row(body["keys"][row], body["labels"][row])
                for name, member in members.items():
                    _add(tar, index, name, member, decoder.member_name(row, name))
            tar.finish()
        if decoder.setbacks:
            return Setback(tuple(decoder.setbacks))
        index.write(index_path)
        files = {
            "tar": job.store.publish_content(tar_path, FOLDER, "tar").as_json(),
            "index": job.store.publish_content(index_path, FOLDER, "parquet").as_json(),
        }
    receipt = {
        **{name: body[name] for name in ("kind", "writer", "split", "bad_modality", "modalities")},
        **files,
        "recipe": job.recipe.digest,
        "rows": job.recipe.rows,
        "samples": len(index.keys),
        "whole": index.whole(),
        "present": index.present(),
        "views": index.views(),
        "labels": index.labels_digest(),
        "classes": count_by(index.labels),
        "rejects": [reject.as_json() for reject in decoder.rejects],
        "sources": job.recipe.sources,
    }
    job.store.publish_json(job.recipe.receipt, receipt)
    if decoder.rejects:
        counts = ", ".join(f"{code} {n}" for code, n in count_by(one.code for one in decoder.rejects).items())
        _logger.info(
            "shard %s (%s): set aside of %d samples: %s", job.recipe.digest[:8], body["split"], job.recipe.rows, counts
        )
    return receipt


def _add(tar: TarWriter, index: IndexBuilder, modality: str, member: Member | None, name: str) -> None:
    if member is None:
        index.add_absent(modality)
    else:
        offset = tar.add(name, member.data)
        index.add_member(modality, offset, len(member.data), sha256(member.data), member.facts)


class _ReadError(Exception):
    """A source file could not be read; told apart from what codecs raise."""


class _Decoder:
    """Turns the rows of a recipe into members; collects what is set aside."""

    def __init__(self, job: ShardJob, body: dict[str, Json]) -> None:
        self._job = job
        self._body = body
        self.modalities = {name: open_modality(recipe) for name, recipe in sorted(body["modalities"].items())}
        self._extensions = {name: modality.extension for name, modality in self.modalities.items()}
        self._excluded = {(key, name): Rejected(code, message) for key, name, code, message in body["excluded"]}
        self.rejects: list[Reject] = []
        self.setbacks: list[Exclusion] = []
        self._since = 0.0

    def samples(self) -> Iterator[tuple[int, dict[str, Member | None]]]:
        """Row and members of each sample that is kept, in order."""
        roots = (root for root, rows in self._job.roots for _ in range(rows))
        limit_s = self._job.sample_timeout_s if parallel.in_single_threaded_process_worker() else None
        with TimeLimit(limit_s, exact=self._job.isolated) as limit:
            for row, (key, root) in enumerate(zip(self._body["keys"], roots, strict=True)):
                limit.restart()
                self._since = time.monotonic()
                members: dict[str, Member | None] = {}
                bad = []
                for name in self.modalities:
                    found = self._member(row, key, name, root)
                    members[name] = found if isinstance(found, Member) else None
                    if isinstance(found, Rejected):
                        bad.append(name)
                        self.rejects.append(self._reject(row, key, name, found))
                if bad and self._body["bad_modality"] == "drop":
                    self.rejects.append(Reject(key, "", "dropped", f"unfit: {', '.join(bad)}"))
                elif all(member is None for member in members.values()):
                    self.rejects.append(Reject(key, "", "no-modality", f"unfit: {', '.join(bad)}"))
                else:
                    yield row, members
        if self._job.isolated:
            parallel.tell({"decoding": None})

    def member_name(self, row: int, name: str) -> str:
        return member_name(self._body["keys"][row], name, self._extensions[name])

    def _member(self, row: int, key: str, name: str, root: str) -> Member | Rejected | None:
        """One cell's member, None where the cell is empty."""
        column = self._body["media"][name]
        ref = column["files" if "files" in column else "texts"][row]
        if ref is None:
            return None
        if excluded := self._excluded.get((key, name)):
            return excluded
        if self._job.isolated:
            parallel.tell({"decoding": [key, name], "since": self._since})
        try:
            data = self._read(row, name, root)
            return data if isinstance(data, Rejected) else self.modalities[name].process(data)
        except MmcoreError:
            raise
        except MemoryError:
            return self._set_back(key, name, row, Rejected("codec-died", "decoding ran out of memory"))
        except _ReadError as error:
            return self._set_back(key, name, row, Rejected("io-error", str(error)))
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise StageError(f"{name} of {key!r} ({self._source(row, name)}): its modality failed: {what}") from error

    def _read(self, row: int, name: str, root: str) -> bytes | Rejected:
        column = self._body["media"][name]
        if "texts" in column:
            return str(column["texts"][row]).encode()
        max_bytes = self._body["modalities"][name]["max_bytes"]
        try:
            return read_source(root, column["files"][row], column["fingerprints"][row], max_bytes)
        except OSError as error:
            raise _ReadError(error.strerror or type(error).__name__) from error

    def _set_back(self, key: str, name: str, row: int, why: Rejected) -> Rejected:
        source = source_of(self._body["media"][name], row)
        self.setbacks.append(Exclusion(key, name, source, why.code, why.message))
        return why

    def _source(self, row: int, name: str) -> str:
        column = self._body["media"][name]
        return str(column["files"][row]) if "files" in column else INLINE

    def _reject(self, row: int, key: str, name: str, why: Rejected) -> Reject:
        return Reject(key, name, why.code, why.message, self._source(row, name), why.code in CIRCUMSTANTIAL)
