"""Samples set aside for circumstances: a time limit, a codec that died, a disk that failed.

Each is a file of its own, so that runs that share a root never overwrite one another's. It holds only for the
source it was met with: an edited file gets a new chance, and removing the file gives the old one another.
What may pass by itself is excluded for one run only, and has no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from mmcore.records import Json, digest
from mmcore.shards.recipe import ShardRecipe
from mmcore.storage import Store

FOLDER = "exclusions"
PASSING = frozenset({"io-error"})
"""Codes that the next run tries again: a file's rights or a disk are mended without a change of the file."""


@dataclass(frozen=True)
class Exclusion:
    """One modality of one sample that is not decoded any more."""

    key: str
    modality: str
    source: str
    """Digest of the reference and fingerprint (or text) that it was met with."""
    code: str
    message: str

    @property
    def lasting(self) -> bool:
        """Whether later runs keep to it."""
        return self.code not in PASSING

    @property
    def path(self) -> str:
        return f"{FOLDER}/{digest([self.key, self.modality, self.source])}.json"

    def publish(self, store: Store) -> None:
        store.publish_json(self.path, asdict(self))


def source_of(column: Mapping[str, Json], row: int) -> str:
    """The source of one cell of a recipe's media column."""
    return digest({name: values[row] for name, values in sorted(column.items())})


def read_exclusions(store: Store) -> dict[tuple[str, str], list[Exclusion]]:
    """All exclusions of a store by key and modality."""
    found: dict[tuple[str, str], list[Exclusion]] = {}
    for name in sorted(store.listing(FOLDER)):
        if name.endswith(".json"):
            exclusion = Exclusion(**store.read_json(f"{FOLDER}/{name}"))
            found.setdefault((exclusion.key, exclusion.modality), []).append(exclusion)
    return found


def excluded_in(
    keys: Iterable[str], media: Mapping[str, Mapping[str, Json]], exclusions: Mapping[tuple[str, str], list[Exclusion]]
) -> list[list[str]]:
    """[key, modality, code, message] of what is excluded among these rows, for a recipe."""
    if not exclusions:
        return []
    return [
        [key, modality, exclusion.code, exclusion.message]
        for row, key in enumerate(keys)
        for modality, column in media.items()
        for exclusion in exclusions.get((key, modality), ())
        if exclusion.source == source_of(column, row)
    ]


def with_exclusions(recipe: ShardRecipe, added: Sequence[Exclusion]) -> ShardRecipe:
    """The recipe of the same shard once more is excluded."""
    body = recipe.body
    by_cell: dict[tuple[str, str], list[Exclusion]] = {}
    for exclusion in added:
        by_cell.setdefault((exclusion.key, exclusion.modality), []).append(exclusion)
    # In the order in which a plan made afresh would list them.
    codes = {(key, modality): [code, message] for key, modality, code, message in body["excluded"]}
    codes |= {(k, m): [c, why] for k, m, c, why in excluded_in(body["keys"], body["media"], by_cell)}
    body["excluded"] = [
        [key, modality, *codes[key, modality]]
        for key in body["keys"]
        for modality in body["media"]
        if (key, modality) in codes
    ]
    return ShardRecipe.of(body)
