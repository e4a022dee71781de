"""What the indexes say about samples: facts of each shard, and all that is known of one sample."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmcore.errors import ConfigError, Problem
from mmcore.records import Dataset, Json, ShardEntry, count_by
from mmcore.shards.catalogue import fields_of
from mmcore.shards.read import read_index
from mmcore.storage import Store

MOST_VALUES = 4
"""Distinct words of a fact that a summary names."""


def summaries(store: Store, shards: Iterable[ShardEntry]) -> dict[str, dict[str, str]]:
    """Per modality and fact, smallest, median and largest number, or the most frequent words; `applied` counts."""
    numbers: dict[tuple[str, str], list[float]] = {}
    words: dict[tuple[str, str], list[str]] = {}
    for entry in shards:
        index = read_index(store, entry)
        for name in fields_of(index):
            for text in index[f"{name}.facts"].to_pylist():
                for fact, value in _plain(json.loads(text) if text else {}):
                    if isinstance(value, (int, float)) and not isinstance(value, bool):
                        numbers.setdefault((name, fact), []).append(value)
                    elif value is not None:
                        words.setdefault((name, fact), []).append(str(value))
    found: dict[str, dict[str, str]] = {}
    for (name, fact), values in numbers.items():
        spread = (min(values), statistics.median(values), max(values))
        found.setdefault(name, {})[fact] = " / ".join(f"{value:,.6g}" for value in spread)
    for (name, fact), several in words.items():
        counts = list(count_by(several).items())
        shown = [f"{word} {count:,}" for word, count in counts[:MOST_VALUES]]
        more = [f"and {len(counts) - MOST_VALUES:,} more"] if len(counts) > MOST_VALUES else []
        found.setdefault(name, {})[fact] = ", ".join(shown + more)
    return found


@dataclass(frozen=True)
class Found:
    """One sample: its shard, its row there, and its row of the index."""

    shard: ShardEntry
    row: int
    values: Mapping[str, Any]


def find_sample(store: Store, dataset: Dataset, key: str) -> Found:
    """Where the sample of this key is. Raises ConfigError where there is none, or says why it was set aside."""
    near: list[str] = []
    for entry in dataset.shards:
        index = read_index(store, entry)
        keys = index["key"].to_pylist()
        if key in keys:
            row = keys.index(key)
            return Found(entry, row, {name: index[name][row].as_py() for name in index.column_names})
        near += [one for one in keys if key in one][: 5 - len(near)]
    rejects = [f"{reject.code} ({reject.message})" for reject in dataset.rejects if reject.key == key]
    if rejects:
        raise ConfigError(Problem("key", f"{key!r} was set aside: {', '.join(rejects)}."))
    fix = f"There are: {', '.join(near)}." if near else "See the keys: mmcore shards export … --to parquet."
    raise ConfigError(Problem("key", f"no sample {key!r} in {sum(s.samples for s in dataset.shards):,}.", fix))


def _plain(facts: Json) -> Iterator[tuple[str, Json]]:
    """Facts with a name each; lists of words count word by word."""
    for name, value in facts.items():
        if isinstance(value, list):
            yield from ((name, one) for one in value if isinstance(one, (str, int, float)))
        elif not isinstance(value, dict):
            yield name, value
