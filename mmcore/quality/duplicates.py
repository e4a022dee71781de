"""The duplicates among a data set's samples: found once per content of its shards, and kept in the store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import parquet

from mmcore.config.quality import DuplicatesConfig
from mmcore.errors import DamagedError
from mmcore.quality.clusters import Clusters, find_clusters
from mmcore.records import SPLITS, DataFile, Json, ShardEntry, canonical_json, digest
from mmcore.shards.read import read_index
from mmcore.storage import Store, sha256

VERSION = 2
"""Raised by hand when other duplicates are found with the same settings in the same shards."""
FOLDER = "quality"
SHOWN_CLUSTERS = 12
SHOWN_KEYS = 6
HASHES = ("sha256", "source_sha256")
"""Index columns whose equal values are exact duplicates: bytes as stored, and as they came."""


def name_of(entries: Sequence[ShardEntry], kinds: Mapping[str, str], wanted: DuplicatesConfig) -> str | None:
    """The digest of what determines the duplicates; None where a shard is only foreseen."""
    if any(entry.index is None for entry in entries):
        return None
    shards = [[entry.split, entry.index.sha256] for entry in entries if entry.index]
    return digest({"version": VERSION, "settings": wanted.finding(), "kinds": dict(kinds), "shards": shards})


def finished(store: Store, name: str) -> Json | None:
    """The report of this digest where it and its table are there; else None."""
    try:
        report = store.read_json(f"{FOLDER}/{name}.json")
        return report if store.intact(DataFile(**report["table"])) else None
    except (FileNotFoundError, DamagedError, KeyError, TypeError):
        return None


def find_duplicates(
    entries: Sequence[ShardEntry], kinds: Mapping[str, str], store: Store, wanted: DuplicatesConfig
) -> Json:
    """The report on duplicates among these finished shards, published unless it is there; `kinds` by modality.

    `modalities` has, per modality, `clusters`, `samples` in them, how many of these have an `exact` twin, `pairs` (as
    `train+test`: clusters that both splits share, and each one's samples in them) and some `examples`. `table` is the
    Parquet file of all clustered samples: `key`, `label`, `split`, `modality`, `cluster`, `exact`, `shard` (its
    number among `entries`, whose recipes may change while their contents stay).
    """
    name = name_of(entries, kinds, wanted)
    if name is None:
        raise ValueError("duplicates can be found only among shards that are made")
    if report := finished(store, name):
        return report
    samples = _read(entries, kinds, store)
    tables, report = [], {"modalities": {}}
    for modality, kind in kinds.items():
        columns = [samples[f"{modality}.{part}"] for part in HASHES]
        clusters = find_clusters(kind, columns, samples[f"{modality}.signature"], wanted)
        report["modalities"][modality] = _summary(clusters, samples)
        tables.append(_clustered(modality, clusters, samples))
    with store.scratch() as folder:
        parquet.write_table(pa.concat_tables(tables), folder / "table", compression="zstd")
        report["table"] = store.publish_file(folder / "table", f"{FOLDER}/{name}.parquet").as_json()
    store.publish_json(f"{FOLDER}/{name}.json", report)
    return report


def removals(store: Store, report: Json, wanted: DuplicatesConfig) -> dict[int, dict[str, str]]:
    """Per shard (its number) the keys to leave out, with the reason. Raises DamagedError for a table that changed."""
    file = DataFile(**report["table"])
    data = store.read_bytes(file.path)
    if sha256(data) != file.sha256:
        raise DamagedError(f"{store.url(file.path)} is not the table that its report names; remove it and run again.")
    # Without Arrow's threads, as everywhere: see `shards.read.table_of`.
    table = parquet.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    found: dict[int, dict[str, str]] = {}
    for shard, key, reason in _removed(table.to_pylist(), wanted):
        found.setdefault(shard, {}).setdefault(key, reason)
    return found


def _removed(rows: Sequence[Mapping[str, Json]], wanted: DuplicatesConfig) -> Iterator[tuple[int, str, str]]:
    if wanted.remove == "none":
        return
    shared = {(row["modality"], row["cluster"]) for row in rows if row["split"] != "train"}
    train = [row for row in rows if row["split"] == "train"]
    gone = {row["key"] for row in train if (row["modality"], row["cluster"]) in shared}
    kept: set[tuple[str, int]] = set()
    for row in train:
        if row["key"] in gone:
            yield row["shard"], row["key"], "duplicate-across-splits"
    if wanted.remove != "all":
        return
    for row in train:
        cluster = row["modality"], row["cluster"]
        if row["key"] in gone:
            continue
        if cluster in kept:
            gone.add(row["key"])
            yield row["shard"], row["key"], "duplicate"
        else:
            kept.add(cluster)


def _read(entries: Sequence[ShardEntry], kinds: Mapping[str, str], store: Store) -> dict[str, pa.Array]:
    """The columns to compare, over all shards in order; null throughout where an index has none."""
    parts = [(f"{modality}.{part}", part) for modality in kinds for part in (*HASHES, "signature")]
    chunks: dict[str, list[pa.Array]] = {name: [] for name in ("key", "label", "split", "shard", *dict(parts))}
    for number, entry in enumerate(entries):
        index = read_index(store, entry)
        rows = len(index)
        chunks["key"] += index["key"].chunks
        chunks["label"].append(pa.array([_word(label) for label in index["label"].to_pylist()], pa.string()))
        chunks["shard"].append(pa.array(np.full(rows, number, np.int32)))
        chunks["split"].append(
            pa.DictionaryArray.from_arrays(
                pa.array(np.full(rows, SPLITS.index(entry.split), np.int8)), pa.array(SPLITS)
            )
        )
        for name, part in parts:
            wanted = pa.binary() if part == "signature" else pa.string()
            chunks[name] += _column(index, name, wanted)
    empty = {name: pa.array([], pa.string()) for name in chunks}
    return {name: pa.concat_arrays(found) if found else empty[name] for name, found in chunks.items()}


def _column(index: pa.Table, name: str, wanted: pa.DataType) -> list[pa.Array]:
    if name not in index.column_names:
        return [pa.nulls(len(index), wanted)]
    column = index[name]
    if pa.types.is_list(column.type):
        # Several members are one thing: its name is the list of theirs.
        column = pa.chunked_array([pc.binary_join(chunk, ",") for chunk in column.chunks], pa.string())
    return list(column.cast(wanted).chunks)


def _word(label: Json) -> str | None:
    """A label in words: classes as they are, several or numbers as JSON."""
    return label if label is None or isinstance(label, str) else canonical_json(label).decode()


def _clustered(modality: str, clusters: Clusters, samples: Mapping[str, pa.Array]) -> pa.Table:
    rows = np.flatnonzero(clusters.cluster >= 0)
    rows = rows[np.argsort(clusters.cluster[rows], kind="stable")]
    taken = {name: samples[name].take(pa.array(rows)).cast(pa.string()) for name in ("key", "label", "split")}
    return pa.table(
        {
            **taken,
            "shard": samples["shard"].take(pa.array(rows)).cast(pa.int32()),
            "modality": pa.array([modality] * len(rows), pa.string()),
            "cluster": pa.array(clusters.cluster[rows]),
            "exact": pa.array(clusters.exact[rows]),
        }
    )


def _summary(clusters: Clusters, samples: Mapping[str, pa.Array]) -> dict[str, Json]:
    rows = np.flatnonzero(clusters.cluster >= 0)
    numbers = clusters.cluster[rows]
    count = int(numbers.max(initial=-1)) + 1
    splits = samples["split"].take(pa.array(rows)).cast(pa.string()).to_numpy(zero_copy_only=False)
    of_split = {split: np.bincount(numbers[splits == split], minlength=count) for split in SPLITS}
    pairs = {}
    for one, other in combinations(SPLITS, 2):
        both = (of_split[one] > 0) & (of_split[other] > 0)
        if both.any():
            held = {split: int(of_split[split][both].sum()) for split in (one, other)}
            pairs[f"{one}+{other}"] = {"clusters": int(both.sum()), "samples": held}
    return {
        "clusters": count,
        "samples": len(rows),
        "exact": int(clusters.exact[rows].sum()),
        "pairs": pairs,
        "examples": _examples(rows, numbers, sum((of_split[split] > 0).astype(int) for split in SPLITS), samples),
    }


def _examples(
    rows: NDArray[np.int64], numbers: NDArray[np.int64], reach: NDArray[np.int64] | int, samples: Mapping[str, pa.Array]
) -> list[Json]:
    """Some clusters, those in most splits first, with the first of their keys."""
    chosen = np.argsort(-np.asarray(reach), kind="stable")[:SHOWN_CLUSTERS]
    # Grouped once: one look through all rows per example would take long where there are millions.
    ordered = np.argsort(numbers, kind="stable")
    starts = np.searchsorted(numbers[ordered], chosen)
    ends = np.searchsorted(numbers[ordered], chosen, side="right")
    return [
        {
            "size": int(end - start),
            "samples": [
                {name: samples[name][row].as_py() for name in ("key", "split", "label", "shard")}
                for row in rows[_spread(ordered[start:end], samples["split"], rows)].tolist()
            ],
        }
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]


def _spread(members: NDArray[np.int64], splits: pa.Array, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most `SHOWN_KEYS` of a cluster's members, some of each split."""
    names = splits.take(pa.array(rows[members[: 100 * SHOWN_KEYS]])).to_pylist()
    turn = dict.fromkeys(SPLITS, 0)
    ranked = []
    for place, name in enumerate(names):
        ranked.append((turn[name], place))
        turn[name] += 1
    return members[sorted(place for _, place in sorted(ranked)[:SHOWN_KEYS])]
