"""What a data set's indexes say about its samples, per split: labels, what is missing, and the spread of each fact."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from mmcore.errors import DamagedError
from mmcore.records import SPLITS, Json, ShardEntry, canonical_json, digest
from mmcore.shards.read import read_index
from mmcore.storage import Store

VERSION = 1
"""Raised by hand when a profile of the same shards changes."""
MOST_VALUES = 512
"""A fact's sorted values are kept, or so many of them at equal steps: enough to tell distributions apart by 1/512."""
MOST_WORDS = 20


def profile(entries: Sequence[ShardEntry], modalities: Sequence[str], store: Store) -> Json:
    """Per split `samples`, `labels` (counts) and per modality `present`, `numbers` and `words`; kept in the store.

    `numbers` has per fact its `count` and sorted `values`; `words` counts of the most frequent ones. Raises
    DamagedError for an index that is not what its receipt names.
    """
    shards = [[entry.split, entry.index.sha256 if entry.index else ""] for entry in entries]
    path = f"quality/{digest({'version': VERSION, 'modalities': list(modalities), 'shards': shards})}.profile.json"
    try:
        return store.read_json(path)
    except (FileNotFoundError, DamagedError):
        pass
    found = {}
    for split in SPLITS:
        of_split = _Split(modalities)
        for entry in entries:
            if entry.split == split:
                of_split.add(entry, store)
        if of_split.samples:
            found[split] = of_split.summary()
    store.publish_json(path, found)
    return found


class _Split:
    """One split's columns, collected shard by shard."""

    def __init__(self, modalities: Sequence[str]) -> None:
        self.samples = 0
        self._labels: dict[str, int] = {}
        self._present = dict.fromkeys(modalities, 0)
        self._numbers: dict[tuple[str, str], list[float]] = {}
        self._words: dict[tuple[str, str], dict[str, int]] = {}

    def add(self, entry: ShardEntry, store: Store) -> None:
        index = read_index(store, entry)
        self.samples += len(index)
        for label in index["label"].to_pylist():
            for one in label if isinstance(label, list) else [label]:
                if isinstance(one, str):
                    self._labels[one] = self._labels.get(one, 0) + 1
        for name in self._present:
            self._present[name] += sum(index[f"{name}.present"].to_pylist())
            for text in index[f"{name}.facts"].to_pylist():
                self._add_facts(name, json.loads(text) if text else {})

    def _add_facts(self, modality: str, facts: Mapping[str, Json]) -> None:
        for fact, value in facts.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._numbers.setdefault((modality, fact), []).append(float(value))
                continue
            counts = self._words.setdefault((modality, fact), {})
            for word in value if isinstance(value, list) else [value]:
                name = word if isinstance(word, str) else canonical_json(word).decode()
                counts[name] = counts.get(name, 0) + 1

    def summary(self) -> dict[str, Json]:
        modalities: dict[str, Json] = {
            name: {"present": present, "numbers": {}, "words": {}} for name, present in self._present.items()
        }
        for (name, fact), values in self._numbers.items():
            modalities[name]["numbers"][fact] = {"count": len(values), "values": _thinned(values)}
        for (name, fact), counts in self._words.items():
            ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
            modalities[name]["words"][fact] = dict(ranked[:MOST_WORDS])
        labels = dict(sorted(self._labels.items()))
        return {"samples": self.samples, "labels": labels, "modalities": modalities}


def _thinned(values: Sequence[float]) -> list[float]:
    """The sorted values, or `MOST_VALUES` of them at equal steps from the smallest to the largest."""
    ordered = np.sort(np.asarray(values, np.float64))
    if len(ordered) > MOST_VALUES:
        ordered = ordered[np.linspace(0, len(ordered) - 1, MOST_VALUES).round().astype(int)]
    return [float(f"{value:.6g}") for value in ordered]
