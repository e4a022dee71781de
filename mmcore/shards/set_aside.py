"""All that was set aside of a data set, each with what is kept of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mmcore.records import Dataset, Json, Reject
from mmcore.shards.budget import rejects_of
from mmcore.shards.foresee import Receipt, read_receipts
from mmcore.shards.quarantine import Quarantined, kept_bytes, read_quarantine
from mmcore.shards.recipe import FOLDER
from mmcore.storage import Store


@dataclass(frozen=True)
class SetAside:
    """One reject; `cell` and `receipt` where a shard's table has it."""

    reject: Reject
    cell: Quarantined | None = None
    receipt: Receipt | None = None

    @property
    def kept(self) -> bool:
        """Whether its bytes were put aside too."""
        return self.cell is not None and self.cell.offset is not None

    @property
    def size_bytes(self) -> int | None:
        """Size of the source where it was read."""
        return None if self.cell is None else self.cell.size_bytes

    def bytes(self, store: Store) -> tuple[str, bytes] | None:
        """The name and bytes that are kept; None where there are none (any more). Raises DamagedError."""
        return kept_bytes(store, self.receipt, self.cell) if self.receipt and self.cell else None

    def as_json(self) -> dict[str, Json]:
        sha256 = None if self.cell is None else self.cell.sha256
        return {**self.reject.as_json(), "size_bytes": self.size_bytes, "sha256": sha256, "kept": self.kept}


def set_aside(store: Store, dataset: Dataset) -> list[SetAside]:
    """What is not in the data set's shards, in its order. Raises DamagedError where a table is damaged."""
    cells = _cells(store, _receipts(store, dict.fromkeys(entry.recipe for entry in dataset.shards)))
    if any(reject.modality and reject not in cells for reject in dataset.rejects):
        # Shards of which nothing was kept are not named in a data set.
        cells = _cells(store, every_receipt(store))
    return [cells.get(reject, SetAside(reject)) for reject in dataset.rejects]


def set_aside_by_shards(store: Store, receipts: Sequence[Receipt]) -> list[SetAside]:
    """The same of single shards, where no run has come to its data set yet."""
    cells = _cells(store, receipts)
    rejects = dict.fromkeys(reject for receipt in receipts for reject in rejects_of(receipt))
    return [cells.get(reject, SetAside(reject)) for reject in rejects]


def every_receipt(store: Store) -> list[Receipt]:
    """The receipts of all finished shards below a root, of whatever run."""
    names = sorted(name.removesuffix(".json") for name in store.listing(FOLDER) if name.endswith(".json"))
    return _receipts(store, names)


def _receipts(store: Store, digests: Iterable[str]) -> list[Receipt]:
    return [receipt for receipt in read_receipts(store, list(digests)) if receipt]


def _cells(store: Store, receipts: Iterable[Receipt]) -> dict[Reject, SetAside]:
    found = {}
    for receipt in receipts:
        tables = {(cell.key, cell.modality): cell for cell in read_quarantine(store, receipt)}
        for reject in rejects_of(receipt):
            if cell := tables.get((reject.key, reject.modality)):
                found[reject] = SetAside(reject, cell, receipt)
    return found
