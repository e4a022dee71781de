"""From the manifest to the data set that is learned from: prepared, looked through, and rid of what is to go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mmcore.config.run import RunConfig
from mmcore.errors import ConfigError, DataError, Problem
from mmcore.parallel import Pool
from mmcore.progress import Progress
from mmcore.quality.duplicates import find_duplicates, finished, name_of, removals
from mmcore.records import Dataset, Json, ShardEntry, Step, count_by
from mmcore.shards.plan import ShardPlan
from mmcore.shards.prepare import make_shards, publish_dataset
from mmcore.shards.read import read_index
from mmcore.storage import Store


def curate(config: RunConfig, store: Store, pool: Pool, progress: Progress, plan: ShardPlan | None = None) -> Dataset:
    """Prepare, look for duplicates, and publish the data set with what was found and what is left out.

    `facts["duplicates"]` is the report of `find_duplicates`. Raises what `prepare` does, ConfigError for a modality
    in `data.duplicates.modalities` that there is none of, and DataError where train loses all samples of a class.
    """
    wanted, kinds = config.data.duplicates, _kinds(config)
    dataset = make_shards(config, store, pool, progress, plan)
    if not (wanted.exact or wanted.near):
        return publish_dataset(dataset, store)
    report = find_duplicates(dataset.shards, kinds, store, wanted)
    gone = removals(store, report, wanted) if wanted.remove != "none" else {}
    reasons = {key: reason for of_shard in gone.values() for key, reason in of_shard.items()}
    if reasons:
        _demand_classes(dataset, gone, store)
    found = {**report, "removed": count_by(reasons.values())}
    shards = _without(dataset.shards, gone)
    curated = replace(dataset, shards=shards, removed=reasons, facts={**dataset.facts, "duplicates": found})
    return publish_dataset(curated, store)


def foresee_removed(
    config: RunConfig, entries: Sequence[ShardEntry], store: Store
) -> tuple[list[ShardEntry], list[Step]]:
    """The foreseen shards without what will be removed, and the step of removing, where the settings ask for it.

    Labels of train stay unknown where duplicates were not looked for yet.
    """
    wanted, kinds = config.data.duplicates, _kinds(config)
    if wanted.remove == "none" or not (wanted.exact or wanted.near):
        return list(entries), []
    name = name_of(entries, kinds, wanted)
    report = finished(store, name) if name else None
    if report is not None:
        return list(_without(entries, removals(store, report, wanted))), []
    unknown = [replace(entry, labels=None) if entry.split == "train" else entry for entry in entries]
    reason = "not looked for among these samples yet"
    return unknown, [Step("prepare", "duplicates", "compute", reason)]


def leakage(dataset: Dataset) -> dict[str, int]:
    """Per pair of splits, as `train+test`, the clusters that both share, over all modalities, as they were found."""
    found: dict[str, int] = {}
    duplicates = dataset.facts.get("duplicates") or {"modalities": {}}
    for one in duplicates["modalities"].values():
        for pair, counts in one["pairs"].items():
            found[pair] = found.get(pair, 0) + counts["clusters"]
    return found


def duplicates_line(dataset: Dataset) -> str:
    """What was found and done about duplicates, in a line; empty where there are none."""
    duplicates = dataset.facts.get("duplicates")
    if not duplicates or not any(one["clusters"] for one in duplicates["modalities"].values()):
        return ""
    counts = ", ".join(f"{n['samples']:,} of {name}" for name, n in duplicates["modalities"].items() if n["samples"])
    parts = [f"samples with a duplicate: {counts}"]
    across = [f"{pair.replace('+', ' and ')} share {clusters:,}" for pair, clusters in leakage(dataset).items()]
    parts += [", ".join(across)] if across else []
    removed = [f"{reason} {count:,}" for reason, count in duplicates["removed"].items()]
    return " · ".join(parts + (["removed from train: " + ", ".join(removed)] if removed else []))


def _kinds(config: RunConfig) -> dict[str, str]:
    chosen, there = config.data.duplicates.modalities, config.data.modalities
    for name in chosen or ():
        if name not in there:
            raise ConfigError(
                Problem(
                    "data.duplicates.modalities", f"there is no modality {name!r}.", f"Choose of {', '.join(there)}."
                )
            )
    return {name: settings.kind for name, settings in there.items() if chosen is None or name in chosen}


def _without(shards: Sequence[ShardEntry], gone: Mapping[int, Mapping[str, str]]) -> tuple[ShardEntry, ...]:
    return tuple(shard.without(sorted(gone.get(number, ()))) for number, shard in enumerate(shards))


def _demand_classes(dataset: Dataset, gone: Mapping[int, Mapping[str, str]], store: Store) -> None:
    """Raise DataError where nothing of a class is left in train."""
    left: dict[str, int] = dict(dataset.facts["splits"]["train"].get("classes") or {})
    for number, keys in gone.items():
        index = read_index(store, dataset.shards[number]).select(["key", "label"])
        labels: list[Json] = [row["label"] for row in index.to_pylist() if row["key"] in keys]
        for label in labels:
            for one in label if isinstance(label, list) else [label]:
                if one in left:
                    left[one] -= 1
    if empty := [name for name, count in left.items() if count <= 0]:
        what = f"removing duplicates leaves no sample of {', '.join(map(repr, empty[:10]))} in train."
        fix = "Set it to none, raise the thresholds, or move the samples of val and test to train."
        raise DataError(Problem("data.duplicates.remove", what, fix))
