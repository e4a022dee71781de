"""From one cell of a recipe to what a shard holds of it: read, decode, check, normalise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mmcore import parallel
from mmcore.errors import MmcoreError, StageError
from mmcore.modalities.base import CIRCUMSTANTIAL, Member, Modality, Rejected
from mmcore.records import Json, Reject
from mmcore.shards.exclusions import PASSING, Exclusion, source_of
from mmcore.shards.quarantine import Refused, ending_of
from mmcore.shards.recipe import ShardJob, open_modality, refs_of
from mmcore.sources.reading import read_source
from mmcore.sources.references import is_list, words_of
from mmcore.sources.web import Fetcher, hosts_of, of_address
from mmcore.storage import sha256

INLINE = "(text in the manifest)"


@dataclass(frozen=True)
class Found:
    """What a cell came to: a member, with the reference and the hash of the bytes that it was made of."""

    member: Member
    source: str
    source_sha256: str


class _ReadError(Exception):
    """A source file could not be read; told apart from what codecs raise."""


class CellReader:
    """Makes members of a recipe's cells; collects what circumstances set back.

    Raises SourceChangedError where a file is not the one that was planned with, and StageError where a modality's
    code fails.
    """

    def __init__(self, job: ShardJob, body: dict[str, Json]) -> None:
        self._isolated = job.isolated
        self._media = body["media"]
        self._max_bytes = {name: recipe["max_bytes"] for name, recipe in body["modalities"].items()}
        self._excluded = {(key, name): Rejected(code, message) for key, name, code, message in body["excluded"]}
        self.modalities = {name: open_modality(recipe) for name, recipe in sorted(body["modalities"].items())}
        self.several = {name: modality.several for name, modality in self.modalities.items()}
        self.setbacks: list[Exclusion] = []
        self._fetcher = Fetcher(self._coming(len(body["keys"])), hosts_of(job.run))
        self.waiting: Callable[[], None] = lambda: None
        """Called while bytes are waited for, which is no decoding."""
        self.refused: Refused | None = None
        """The bytes of the cell that was read last, where they are unfit."""
        self._since = 0.0
        self._told: list[str] = []

    def close(self) -> None:
        self._fetcher.close()

    def _coming(self, rows: int) -> Iterator[tuple[str, int]]:
        """The addresses that will be asked for, in order."""
        files = {name: self._media[name]["files"] for name in self.modalities if "files" in self._media[name]}
        for row in range(rows):
            for name, refs in files.items():
                ref = refs[row]
                for one in ref[1:] if is_list(ref) else [ref]:
                    if address := of_address(one):
                        yield address, self._max_bytes[name]

    def begin(self) -> None:
        """A new sample begins."""
        self._since = time.monotonic()

    def read(self, row: int, key: str, name: str, root: str) -> Found | Rejected | None:
        """One cell's member, why there is none, or None where the cell is empty."""
        ref = refs_of(self._media[name])[row]
        self.refused = None
        if ref is None:
            return None
        if self._excluded and (excluded := self._excluded.get((key, name))):
            if excluded.code not in PASSING:
                self._keep_undecoded(row, name, root, ref)
            return excluded
        if self._isolated:
            self._told = [key, name]
            parallel.tell({"decoding": self._told, "since": self._since})
        try:
            found = self._made(row, name, root, ref)
            if isinstance(found, Rejected) and found.code in CIRCUMSTANTIAL:
                return self._set_back(key, name, row, found)
            return found
        except MmcoreError:
            raise
        except MemoryError:
            return self._set_back(key, name, row, Rejected("codec-died", "decoding ran out of memory"))
        except _ReadError as error:
            return self._set_back(key, name, row, Rejected("io-error", str(error)))
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            where = source_text(self._media[name], row)
            raise StageError(f"{name} of {key!r} ({where}): its modality failed: {what}") from error

    def reject(self, row: int, key: str, name: str, why: Rejected) -> Reject:
        """What the quarantine says of a cell."""
        return Reject(key, name, why.code, why.message, source_text(self._media[name], row), why.code in CIRCUMSTANTIAL)

    def _made(self, row: int, name: str, root: str, ref: Json) -> Found | Rejected:
        column, modality = self._media[name], self.modalities[name]
        if "texts" in column:
            data = str(ref).encode()
            member = self._processed(modality, data, "txt")
            return member if isinstance(member, Rejected) else Found(member, "", sha256(data))
        prints = column["fingerprints"][row]
        if not is_list(ref):
            found = self._bytes(root, ref, prints, name)
            if isinstance(found, Rejected):
                return found
            member = self._processed(modality, found, _ending(ref))
            return member if isinstance(member, Rejected) else Found(member, words_of(ref), sha256(found))
        members, hashes = [], []
        for position, one in enumerate(ref[1:]):
            found = self._bytes(root, one, prints[position] if prints else None, name)
            member = found if isinstance(found, Rejected) else self._processed(modality, found, _ending(one))
            if isinstance(member, Rejected):
                return Rejected(member.code, f"{words_of(one)}: {member.message}")
            members.append(member)
            hashes.append(sha256(found))  # type: ignore[arg-type]  # no Rejected gets here
        return Found(merged(members), words_of(ref), sha256(",".join(hashes).encode()))

    def _processed(self, modality: Modality[Any], data: bytes, ending: str) -> Member | Rejected:
        member = modality.process(data)
        if isinstance(member, Rejected):
            self.refused = Refused(data, ending)
        return member

    def _keep_undecoded(self, row: int, name: str, root: str, ref: Json) -> None:
        """The bytes of a cell that is excluded: of several files the first, for which of them it was is not known."""
        column = self._media[name]
        if "texts" in column:
            self.refused = Refused(str(ref).encode(), "txt")
            return
        prints = column["fingerprints"][row]
        if is_list(ref):
            ref, prints = ref[1], prints[0] if prints else None
        with suppress(_ReadError):
            found = self._bytes(root, ref, prints, name)
            if not isinstance(found, Rejected):
                self.refused = Refused(found, _ending(ref))

    def _bytes(self, root: str, ref: Json, fingerprint: str | None, name: str) -> bytes | Rejected:
        try:
            if address := of_address(ref):
                return self._fetcher.read(address, self._max_bytes[name], self._wait)
            return read_source(root, ref, fingerprint, self._max_bytes[name])
        except OSError as error:
            raise _ReadError(error.strerror or str(error) or type(error).__name__) from error

    def _wait(self) -> None:
        self._since = time.monotonic()
        self.waiting()
        if self._isolated and self._told:
            parallel.tell({"decoding": self._told, "since": self._since})

    def _set_back(self, key: str, name: str, row: int, why: Rejected) -> Rejected:
        source = source_of(self._media[name], row)
        self.setbacks.append(Exclusion(key, name, source, why.code, why.message))
        return why


def merged(members: Sequence[Member]) -> Member:
    """Several files of one modality as one member of several parts; the first one's signature stands for all."""
    facts = {"count": len(members), "parts": [dict(member.facts) for member in members]}
    return Member(tuple(part for member in members for part in member.parts), facts, members[0].signature)


def _ending(ref: Json) -> str:
    """How the name of a file's copy ends; what lies inside another file has no name."""
    return ending_of(ref) if isinstance(ref, str) else "bin"


def source_text(column: dict[str, Json], row: int) -> str:
    """Where a cell's bytes lie, in words."""
    return words_of(refs_of(column)[row]) if "files" in column else INLINE
