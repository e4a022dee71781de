"""What preparing would do: which shards are finished, what the others will hold, and why they must be made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor

from mmcore.config.run import RunConfig
from mmcore.errors import DamagedError
from mmcore.records import Json, ShardEntry, Step
from mmcore.shards.exclusions import PASSING
from mmcore.shards.plan import ShardPlan, plan_shards
from mmcore.shards.recipe import FOLDER, WRITER_VERSION, ShardRecipe
from mmcore.storage import Store

Receipt = Mapping[str, Json]

CONNECTIONS = 16
"""Receipts read at a time from a bucket."""


def foresee_shards(config: RunConfig, store: Store) -> tuple[ShardPlan, list[ShardEntry], list[Step]]:
    """The plan, its shards (finished, or as far as they can be foreseen) and a step for each, in order.

    Finished shards in which nothing was kept have a step, but no entry.
    A foreseen view rests on what an earlier run made of the same sources: rows that turn out to be rejected can
    still change it.
    """
    plan = plan_shards(config, store)
    shelf = Shelf(plan, store)
    # Only what must be made is compared with what was.
    history = _History([] if all(shelf.receipts) else shelf.all_receipts(), shelf.names)
    entries, steps = [], []
    numbers: dict[str, int] = {}
    for recipe, receipt in zip(plan.recipes, shelf.receipts, strict=True):
        numbers[recipe.split] = numbers.get(recipe.split, 0) + 1
        name = f"{recipe.split} {numbers[recipe.split]}"
        if receipt is not None:
            entries += entries_of(receipt)
            steps.append(Step("prepare", name, "reuse", "finished", recipe.digest, recipe.rows))
        else:
            wanted = _described(plan, recipe)
            entries.append(history.foreseen(wanted))
            steps.append(Step("prepare", name, "compute", history.reason(wanted), recipe.digest, recipe.rows))
    return plan, entries, steps


class Shelf:
    """The shards that lie in a store, in one listing, and the receipts that a plan asks for."""

    def __init__(self, plan: ShardPlan, store: Store) -> None:
        self._store = store
        self._listing = store.listing(FOLDER)
        self.names = {name.removesuffix(".json") for name in self._listing if name.endswith(".json")}
        planned = [recipe.digest for recipe in plan.recipes]
        there = [name for name in planned if name in self.names]
        self._read = dict(zip(there, read_receipts(store, there), strict=True))
        found = [self._read.get(name) for name in planned]
        self.receipts = [receipt if receipt and self._whole(receipt) else None for receipt in found]
        """Of each planned shard that is finished, its files there with their sizes; None for the others."""

    def all_receipts(self) -> list[Receipt]:
        """All receipts that can be read, of whatever run, and even where a file is missing."""
        rest = sorted(self.names - self._read.keys())
        found = (*self._read.values(), *read_receipts(self._store, rest))
        # Those of earlier writers have other words.
        return [receipt for receipt in found if receipt and "filters" in receipt]

    def _whole(self, receipt: Receipt) -> bool:
        files = [part[name] for part in receipt["files"] for name in ("tar", "index")]
        return all(self._listing.get(file["path"].rsplit("/", 1)[-1]) == file["size_bytes"] for file in files)


def entries_of(receipt: Receipt) -> list[ShardEntry]:
    """A finished shard as later stages see it: its parts, each a tar of its own, that hold samples."""
    names = ("samples", "views", "labels", "present", "tar", "index")
    return [
        ShardEntry.from_json(
            {"recipe": receipt["recipe"], "split": receipt["split"], **{name: part[name] for name in names}}
        )
        for part in receipt["files"]
        if part["samples"]
    ]


def read_receipts(store: Store, digests: Sequence[str]) -> list[Receipt | None]:
    """Receipts by their recipes' digests; None for one that is damaged or went meanwhile."""

    def read(name: str) -> Receipt | None:
        try:
            receipt = store.read_json(f"{FOLDER}/{name}.json")
        except (DamagedError, FileNotFoundError):
            return None
        return receipt if isinstance(receipt, dict) and receipt.get("recipe") == name else None

    if store.local:
        return [read(name) for name in digests]
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        return list(threads.map(read, digests))


def _described(plan: ShardPlan, recipe: ShardRecipe) -> Receipt:
    """A shard to be made, in those words of a receipt that are known beforehand."""
    return {
        "recipe": recipe.digest,
        "split": recipe.split,
        "rows": recipe.rows,
        "writer": WRITER_VERSION,
        "bad_modality": plan.bad_modality,
        "filters": plan.filters,
        "task": plan.task,
        "modalities": plan.modalities,
        "sources": recipe.sources,
    }


class _History:
    """What earlier runs made, to compare with."""

    def __init__(self, receipts: Iterable[Receipt], names: AbstractSet[str]) -> None:
        self._names = names
        self._by_keys: dict[str, list[Receipt]] = {}
        self._ends: set[tuple[str, str]] = set()
        for receipt in receipts:
            sources = receipt["sources"]
            self._by_keys.setdefault(sources["keys"], []).append(receipt)
            self._ends |= {(receipt["split"], sources["first_key"]), (receipt["split"], sources["last_key"])}

    def foreseen(self, wanted: Receipt) -> ShardEntry:
        """The entry of a shard to be made, as far as it can be known."""
        alike = [r for r in self._by_keys.get(wanted["sources"]["keys"], []) if len(r["files"]) == 1]
        views: dict[str, str | None] = {}
        present = dict(wanted["sources"]["present"])
        for name in wanted["modalities"]:
            known = next((receipt for receipt in alike if _same_view(receipt, wanted, name)), None)
            views[name] = known["files"][0]["views"][name] if known else None
            if known:
                present[name] = known["present"][name]
        same = next((receipt for receipt in alike if _same_labels(receipt, wanted)), None)
        samples = same["samples"] if same else wanted["rows"]
        labels = same["files"][0]["labels"] if same else None
        return ShardEntry(wanted["recipe"], wanted["split"], samples, views, labels, present)

    def reason(self, wanted: Receipt) -> str:
        """Why a shard must be made, in a person's words."""
        if wanted["recipe"] in self._names:
            return "file missing or truncated"
        alike = self._by_keys.get(wanted["sources"]["keys"], [])
        if alike:
            differences = sorted((_differences(receipt, wanted) for receipt in alike), key=len)
            return "; ".join(differences[0]) or "settings of shards or quarantine changed"
        ends = {(wanted["split"], wanted["sources"][end]) for end in ("first_key", "last_key")}
        return "rows added or removed" if ends & self._ends else "new"


def _same_view(one: Receipt, other: Receipt, modality: str) -> bool:
    """Whether both decode this modality of the same rows in the same way."""
    return bool(
        _same_choice(one, other)
        and one["sources"]["keys"] == other["sources"]["keys"]
        and one["sources"]["media"].get(modality) == other["sources"]["media"].get(modality)
        and one["modalities"].get(modality) == other["modalities"].get(modality)
    )


def _same_labels(one: Receipt, other: Receipt) -> bool:
    """Whether both keep the same rows with the same labels."""
    return bool(_same_choice(one, other) and one["sources"]["labels"] == other["sources"]["labels"])


def _same_choice(one: Receipt, other: Receipt) -> bool:
    """Whether both keep the same rows, as far as that does not follow from one modality alone."""
    if any(one[name] != other[name] for name in ("writer", "bad_modality", "filters")):
        return False
    # Whatever is in a row may decide about all of it.
    together = one["filters"] or one["bad_modality"] == "drop"
    return not together or (one["sources"] == other["sources"] and one["modalities"] == other["modalities"])


def _differences(old: Receipt, new: Receipt) -> list[str]:
    """What is not the same about two shards of the same rows."""
    found = ["mmcore's writer changed"] if old["writer"] != new["writer"] else []
    for name, settings in new["modalities"].items():
        before = old["modalities"].get(name)
        if before is None:
            found.append(f"{name} added")
        elif {**before, "version": 0} != {**settings, "version": 0}:
            found.append(f"settings of {name} changed")
        elif before != settings:
            found.append(f"mmcore's code for {name} changed")
        elif old["sources"]["media"][name] != new["sources"]["media"][name]:
            unread = any(one["modality"] == name and one["code"] in PASSING for one in old["rejects"])
            found.append(f"{name} could not all be read, and is tried again" if unread else f"{name} changed")
    found += [f"{name} removed" for name in old["modalities"] if name not in new["modalities"]]
    if old["bad_modality"] != new["bad_modality"]:
        found.append("data.bad_modality changed")
    if old["filters"] != new["filters"]:
        found.append("data.filters changed")
    if old["sources"]["labels"] != new["sources"]["labels"]:
        found.append("labels changed")
    if old["task"] != new["task"]:
        found.append("data.task changed")
    if old["split"] != new["split"]:
        found.append("split changed")
    return found
