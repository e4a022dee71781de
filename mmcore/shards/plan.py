"""Which shards a run needs: the manifest, cut and described, with nothing decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from mmcore.config.data import DataConfig
from mmcore.config.media import TextSettings
from mmcore.config.run import RunConfig
from mmcore.records import SPLITS, Json, Reject
from mmcore.shards.cuts import cut
from mmcore.shards.exclusions import Exclusion, excluded_in, read_exclusions
from mmcore.shards.recipe import WRITER_VERSION, ShardRecipe
from mmcore.sources.fingerprints import fingerprints
from mmcore.sources.manifest import Manifest, read_manifest
from mmcore.sources.paths import inside
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
    task: str
    where: str
    """The manifest, for messages."""


def plan_shards(config: RunConfig, store: Store) -> ShardPlan:
    """The shards that this configuration needs, from the manifest, its files' fingerprints and the exclusions.

    Raises SourceError and DataError as `read_manifest` does.
    """
    data = config.data
    manifest = read_manifest(data)
    keys, labels, splits, partitions = (
        manifest.table[name].to_pylist() for name in ("key", "label", "split", "partition")
    )
    media = {name: _media(manifest, data, name, partitions) for name in sorted(data.modalities)}
    modalities = {name: data.modalities[name].recipe() for name in sorted(data.modalities)}
    frame = {
        "kind": "shard",
        "writer": WRITER_VERSION,
        "task": data.task,
        "bad_modality": data.bad_modality,
        "modalities": modalities,
        "part_bytes": None if config.shards.bytes is None else LARGEST_PART * config.shards.bytes,
    }
    extras = {name: manifest.table[name].to_pylist() for name in manifest.extras}
    exclusions = read_exclusions(store)
    recipes, roots = [], []
    for split in SPLITS:
        rows = [row for row, found in enumerate(splits) if found == split]
        for start, stop in cut([keys[row] for row in rows], config.shards.samples):
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
    classes = sorted({label for label, split in zip(labels, splits, strict=True) if split == "train"})
    where = data.manifest if isinstance(data.manifest, str) else ", ".join(data.manifest[:3])
    return ShardPlan(
        tuple(recipes),
        tuple(roots),
        manifest.rejects,
        manifest.rows,
        tuple(classes),
        modalities,
        data.bad_modality,
        data.task,
        where,
    )


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


def _media(manifest: Manifest, data: DataConfig, name: str, partitions: Sequence[int]) -> dict[str, list[Json]]:
    """One modality's column of all rows: texts, or files with their fingerprints."""
    cells: list[str | None] = manifest.table[f"media.{name}"].to_pylist()
    settings = data.modalities[name]
    if isinstance(settings, TextSettings) and settings.inline:
        return {"texts": cells}
    files: list[str | None] = []
    found: list[str | None] = []
    start = 0
    for partition, run in groupby(partitions):
        stop = start + sum(1 for _ in run)
        root = manifest.roots[partition]
        refs = [None if cell is None else inside(root, cell) for cell in cells[start:stop]]
        # A path that leads out stays as it is, without a fingerprint: the shard's maker sees that it does.
        files += [ref if ref is not None else cell for ref, cell in zip(refs, cells[start:stop], strict=True)]
        found += fingerprints(root, refs, data.fingerprint)
        start = stop
    return {"files": files, "fingerprints": found}
