"""Which shards a run needs: the manifest, cut and described, with nothing decoded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa

from mmcore.config.data import DataConfig
from mmcore.config.media import TextSettings
from mmcore.config.run import RunConfig
from mmcore.records import SPLITS, Json, Reject
from mmcore.shards.cuts import cut, shuffled
from mmcore.shards.exclusions import excluded_in, read_exclusions
from mmcore.shards.filters import recipe_of
from mmcore.shards.quarantine import DEFAULT_LIMITS
from mmcore.shards.recipe import WRITER_VERSION, ShardRecipe
from mmcore.shards.sizes import row_bytes
from mmcore.sources.fingerprints import fingerprints
from mmcore.sources.manifest import Manifest, read_manifest
from mmcore.sources.paths import inside, leads_out
from mmcore.sources.references import Reference, file_of, is_list, unpack, with_paths, words_of
from mmcore.sources.targets import shared, targets
from mmcore.sources.web import FINGERPRINT, is_address, of_address
from mmcore.storage import Store

LARGEST_PART = 4
"""A shard that grows beyond so many times `shards.bytes` is written as several tars."""


@dataclass(frozen=True)
class ShardPlan:
    """The shards of a data set in order, and the rows that are in none."""

    recipes: tuple[ShardRecipe, ...]
    roots: tuple[tuple[tuple[str, int], ...], ...]
    """Per shard, where its references start from: see `ShardJob.roots`."""
    rejects: tuple[Reject, ...]
    rows: int
    classes: tuple[str, ...]
    """Sorted distinct labels of the rows of train."""
    modalities: Mapping[str, Json]
    """Settings of each modality, as recipes hold them."""
    bad_modality: str
    filters: list[Json]
    """As recipes hold them: see `filters.recipe_of`."""
    task: str
    learnable: bool
    """Whether the data must be such that classes can be learned."""
    where: str
    """The manifest, for messages."""


def plan_shards(config: RunConfig, store: Store) -> ShardPlan:
    """The shards that this configuration needs, from the manifest, its files' fingerprints and the exclusions.

    Raises SourceError and DataError as `read_manifest` does.
    """
    data = config.data
    filters = recipe_of(data.filters)
    # Where nothing is learned, whatever can be packed is fine.
    manifest = read_manifest(data, learnable=config.learnable)
    # What Arrow keeps for later is a quarter of a large plan's memory.
    pa.default_memory_pool().release_unused()
    keys, partitions = (manifest.table[name].to_pylist() for name in ("key", "partition"))
    splits = shared(manifest.table["split"])
    labels = targets(manifest.table["label"], data.task)
    media = {name: _media(manifest, data, name, partitions, data.fingerprint) for name in sorted(data.modalities)}
    modalities = {name: data.modalities[name].recipe() for name in sorted(data.modalities)}
    frame = {
        "kind": "shard",
        "writer": WRITER_VERSION,
        "task": data.task,
        "bad_modality": data.bad_modality,
        "filters": filters,
        "modalities": modalities,
        "part_bytes": None if config.shards.bytes is None else LARGEST_PART * config.shards.bytes,
    }
    if (limits := data.quarantine.model_dump()) != DEFAULT_LIMITS:
        frame["quarantine"] = limits
    extras = {name: _extra(manifest, name) for name in manifest.extras}
    exclusions = read_exclusions(store)
    costs = _costs(manifest, config, media, partitions)
    recipes, roots = [], []
    for split in SPLITS:
        rows = [row for row, found in enumerate(splits) if found == split]
        if config.shards.order == "hashed":
            rows = [rows[place] for place in shuffled([keys[row] for row in rows])]
        of_rows = None if costs is None else [costs[row] for row in rows]
        mean = config.shards.samples if config.shards.bytes is None else config.shards.bytes
        for start, stop in cut([keys[row] for row in rows], mean, of_rows):
            picked = rows[start:stop]
            columns = {
                name: {part: [values[row] for row in picked] for part, values in column.items()}
                for name, column in media.items()
            }
            picked_keys = [keys[row] for row in picked]
            excluded = excluded_in(picked_keys, columns, exclusions)
            body = {
                **frame,
                "split": split,
                "keys": picked_keys,
                "labels": [labels[row] for row in picked],
                "extras": {name: [values[row] for row in picked] for name, values in extras.items()},
                "media": columns,
                "excluded": excluded,
            }
            recipes.append(ShardRecipe.of(body))
            runs = groupby(manifest.roots[partitions[row]] for row in picked)
            roots.append(tuple((root, sum(1 for _ in run)) for root, run in runs))
    trained = (label for label, split in zip(labels, splits, strict=True) if split == "train" and label is not None)
    if data.task == "multilabel":
        trained = (name for label in trained for name in label)
    classes = sorted(set(trained)) if data.task != "regression" else []
    where = data.manifest if isinstance(data.manifest, str) else ", ".join(list(dict.fromkeys(data.manifest))[:3])
    return ShardPlan(
        tuple(recipes),
        tuple(roots),
        manifest.rejects,
        manifest.rows,
        tuple(classes),
        modalities,
        data.bad_modality,
        filters,
        data.task,
        config.learnable,
        where,
    )


def absent_files(plan: ShardPlan) -> tuple[list[str], int]:
    """What names a file that is not there (key, modality and path, in words), and how many references there are."""
    absent, count = [], 0
    for recipe in plan.recipes:
        body = recipe.body
        for name, column in body["media"].items():
            if "files" not in column:
                continue
            for key, ref, found in zip(body["keys"], column["files"], column["fingerprints"], strict=True):
                if ref is None:
                    continue
                ones = list(zip(ref[1:], found, strict=True)) if is_list(ref) else [(ref, found)]
                count += len(ones)
                absent += [f"{name} of {key!r} ({words_of(one)})" for one, there in ones if there is None]
    return absent, count


def _extra(manifest: Manifest, name: str) -> list[Json]:
    cells = manifest.table[name].to_pylist()
    return [float(cell) if cell else None for cell in cells] if name == "weight" else cells


def _costs(
    manifest: Manifest, config: RunConfig, media: Mapping[str, dict[str, list[Json]]], partitions: Sequence[int]
) -> list[int] | None:
    """Source bytes of each row, at least as many as make up its share of `shards.samples`; None without `bytes`."""
    if config.shards.bytes is None:
        return None
    if config.data.fingerprint != "stat":
        media = {name: _media(manifest, config.data, name, partitions, "stat") for name in media}
    least = -(-config.shards.bytes // config.shards.samples)
    return [max(least, size) for size in row_bytes(media, partitions)]


def _media(
    manifest: Manifest, data: DataConfig, name: str, partitions: Sequence[int], how: str
) -> dict[str, list[Json]]:
    """One modality's column of all rows: texts, or files with their fingerprints."""
    cells: list[str | None] = manifest.table[f"media.{name}"].to_pylist()
    settings = data.modalities[name]
    if isinstance(settings, TextSettings) and settings.inline:
        return {"texts": cells}
    files: list[Reference | None] = []
    found: list[Json] = []
    start = 0
    for partition, run in groupby(partitions):
        stop = start + sum(1 for _ in run)
        root = manifest.roots[partition]
        refs = [_within(root, cell, several=settings.several) for cell in cells[start:stop]]
        if data.allow_remote:
            refs = [_addressed(ref) for ref in refs]
        files += refs
        found += _prints(root, refs, how)
        start = stop
    return {"files": files, "fingerprints": found}


def _within(root: str, cell: str | None, *, several: bool) -> Reference | None:
    """The reference in a cell, relative to `root`.

    A path that leads out stays as it is: it has no fingerprint, and the shard's maker sees that it does.
    """
    if cell is None:
        return None
    ref = ["list", *json.loads(cell)] if several else unpack(cell)
    return with_paths(ref, lambda path: inside(root, path) or path)


def _addressed(ref: Reference | None) -> Reference | None:
    """Addresses as such; without `data.allow_remote` they are paths that lead out of the root."""
    if ref is not None and is_list(ref):
        return ["list", *(_addressed(one) for one in ref[1:])]
    return ["web", ref] if isinstance(ref, str) and is_address(ref) else ref


def _prints(root: str, refs: Sequence[Reference | None], how: str) -> list[Json]:
    """The fingerprint of each reference's file, or of each file of a list; None where it leads out or is not there."""
    flat = [one for ref in refs if ref is not None for one in (ref[1:] if is_list(ref) else [ref])]
    addresses = {address: FINGERPRINT for one in flat if (address := of_address(one))}
    paths = dict.fromkeys(path for one in flat if (path := file_of(one)) not in addresses)
    known = dict(
        zip(paths, fingerprints(root, [None if leads_out(path) else path for path in paths], how), strict=True)
    )
    known |= addresses
    return [
        None if ref is None else [known[file_of(one)] for one in ref[1:]] if is_list(ref) else known[file_of(ref)]
        for ref in refs
    ]
