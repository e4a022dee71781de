"""What a shard's bytes follow from, and the job that makes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter

from mmcore.config.media import ModalitySettings
from mmcore.errors import StageError
from mmcore.modalities.base import Modality
from mmcore.records import DIGEST_LENGTH, Json, canonical_json, digest
from mmcore.storage import Store, sha256

WRITER_VERSION = 5
"""Raised by hand when this room gives other bytes for the same recipe."""

FOLDER = "shards"


@dataclass(frozen=True)
class ShardRecipe:
    """All that decides a shard's bytes, as canonical JSON; the rest of the fields follow from it.

    The body holds columns, one entry per row: `keys`, `labels` and, per modality, `media` with `files` and
    `fingerprints` (or `texts`, where the manifest holds them); the modalities' settings; what is excluded.
    """

    split: str
    rows: int
    """Rows planned; those that turn out to be unfit are not kept."""
    json: bytes
    sources: Mapping[str, Json]
    """Digests of the columns, by which a plan tells what changed: see `sources_of`."""

    @classmethod
    def of(cls, body: Mapping[str, Json]) -> ShardRecipe:
        return cls(body["split"], len(body["keys"]), canonical_json(body), sources_of(body))

    @cached_property
    def digest(self) -> str:
        return sha256(self.json)[:DIGEST_LENGTH]

    @property
    def body(self) -> dict[str, Json]:
        body: dict[str, Json] = json.loads(self.json)
        return body

    @property
    def receipt(self) -> str:
        """Where the receipt lies in the store."""
        return f"{FOLDER}/{self.digest}.json"


@dataclass(frozen=True)
class ShardJob:
    """A shard to make: the recipe, and beside it what cannot affect the bytes."""

    recipe: ShardRecipe
    store: Store
    roots: tuple[tuple[str, int], ...]
    """Where references start from: (root, number of rows) in row order."""
    sample_timeout_s: float
    """Decoding a sample may take this long, or the process ends; held where the job has a process to itself."""
    isolated: bool = False
    """Tell each sample before it is decoded."""
    run: str = ""
    """Tells one run from another: in each, a host that gave nothing gets a new chance."""


def sources_of(body: Mapping[str, Json]) -> dict[str, Json]:
    """What of a recipe a later plan compares with.

    Digests of its columns, its first and last key, and how many cells are not empty.
    """
    keys = digest(body["keys"])
    return {
        "keys": keys,
        "first_key": body["keys"][0],
        "last_key": body["keys"][-1],
        "labels": digest([keys, body["labels"]]),
        "present": {name: sum(ref is not None for ref in refs_of(column)) for name, column in body["media"].items()},
        "media": {
            name: digest([column, [entry for entry in body["excluded"] if entry[1] == name]])
            for name, column in body["media"].items()
        },
    }


def refs_of(column: Mapping[str, Json]) -> list[Json]:
    """One reference, or text, per row of a modality; None where it is missing."""
    found: list[Json] = column["files" if "files" in column else "texts"]
    return found


_SETTINGS: TypeAdapter[Any] = TypeAdapter(ModalitySettings)


def open_modality(recipe: Mapping[str, Json]) -> Modality[Any]:
    """The modality whose settings a recipe or data set holds (`Settings.recipe()`).

    Raises StageError where it was written by another version of that modality's code.
    """
    values = {name: value for name, value in recipe.items() if name != "version"}
    settings = _SETTINGS.validate_python({**values, "column": ""})
    if settings.version != recipe["version"]:
        raise StageError(
            f"{recipe['kind']}: the recipe is of version {recipe['version']}, and this process has {settings.version}: "
            "all processes of a run need the same mmcore."
        )
    found: Modality[Any] = settings.load()(settings)
    return found
