"""Which rows of train are held out together, so that each gets scores of a model that did not learn from it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mmcore.features.encoders.base import Array


@dataclass(frozen=True)
class Folds:
    """`count` folds: a row without a group follows its key's hash, so that no other row moves it."""

    count: int
    of_group: Mapping[str, int] = field(default_factory=dict)
    """The fold of each group that was in train."""

    @classmethod
    def dealt(cls, keys: Sequence[str], groups: Sequence[str | None] | None, count: int) -> Folds:
        """Groups, the largest first, each to the fold of fewest rows so far, as in scikit-learn's GroupKFold."""
        if groups is None:
            return cls(count)
        rows = [0] * count
        for key, group in zip(keys, groups, strict=True):
            if group is None:
                rows[_hash(key) % count] += 1
        sizes = Counter(group for group in groups if group is not None)
        of_group = {}
        for group in sorted(sizes, key=lambda group: (-sizes[group], _hash(group), group)):
            of_group[group] = rows.index(min(rows))
            rows[of_group[group]] += sizes[group]
        return cls(count, of_group)

    def of(self, keys: Sequence[str], groups: Sequence[str | None] | None) -> Array:
        """The fold (n,) of each row; a group that train did not have goes by its own hash."""
        found = [
            _hash(key) % self.count if group is None else self.of_group.get(group, _hash(group) % self.count)
            for key, group in zip(keys, groups or [None] * len(keys), strict=True)
        ]
        return np.array(found, dtype=np.int64)


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8], "big")
