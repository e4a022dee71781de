"""What a model said of each test row: the table of it, and reading back what comparisons need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmcore.evaluation.robustness import MISSING_SHARES
from mmcore.evaluation.whole import read_whole
from mmcore.records import Dataset
from mmcore.shards.read import read_index
from mmcore.storage import Store

if TYPE_CHECKING:
    import pyarrow as pa

    from mmcore.evaluation.intervals import Array
    from mmcore.evaluation.scores import Scored
    from mmcore.fusion.data import LabelledViews


COMPARED_SHARES = (0.3, 0.5, 0.7)
"""Shares of missing modalities at which each row's score is kept, so that models can be compared there."""


@dataclass(frozen=True)
class RowScores:
    """The score of each test row by one model."""

    keys: list[str]
    scores: Array
    """(n,)"""
    groups: Array | None
    """(n,) of int: rows with the same number belong together."""
    missing: Mapping[float, Array]
    """By share of missing modalities (of `COMPARED_SHARES`) the scores (n,) then; NaN for rows that were not probed."""


def read_row_scores(store: Store, evaluation: str) -> RowScores:
    """What the evaluation of this digest found of each row. Raises DamagedError as `read_whole` does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(read_whole(store, f"evaluations/{evaluation}", "predictions.parquet")))
    groups = numbered(table["group"].to_pylist()) if "group" in table.column_names else None
    missing = {
        share: table[_column(share)].to_numpy() for share in COMPARED_SHARES if _column(share) in table.column_names
    }
    return RowScores(table["key"].to_pylist(), table["score"].to_numpy(), groups, missing)


def _column(share: float) -> str:
    return f"score at {share:.0%} missing"


def predictions_table(rows: LabelledViews, scored: Scored, groups: Sequence[str | None] | None) -> pa.Table:
    """One row per labelled test sample: `key`, `group` where there are groups, `label`, `predicted`, and `score`, whose
    mean is the headline metric, as it is and with modalities missing; of classes also `correct`.

    Of classes and of several labels also float32 `proba <name>` each; several labels are lists of names.
    """
    import numpy as np
    import pyarrow as pa

    task, classes = scored.scores["task"], scored.scores["classes"]
    names, predictions = np.asarray(classes, dtype=np.str_), scored.predictions
    columns: dict[str, pa.Array] = {"key": pa.array(rows.keys.tolist(), pa.string())}
    if groups is not None:
        columns["group"] = pa.array(groups, pa.string())
    if task == "regression":
        columns["label"], columns["predicted"] = pa.array(rows.labels), pa.array(predictions)
    elif task == "multilabel":
        of_row = [names[row].tolist() for row in predictions > 0.5]
        columns["label"] = pa.array([sorted(label) for label in rows.labels], pa.list_(pa.string()))
        columns["predicted"] = pa.array(of_row, pa.list_(pa.string()))
    else:
        columns["label"] = pa.array(rows.labels.tolist(), pa.string())
        columns["predicted"] = pa.array(names[predictions.argmax(axis=1)].tolist(), pa.string())
        columns["correct"] = pa.array(scored.row_scores == 1)
    columns["score"] = pa.array(scored.row_scores)
    if scored.missing_scores is not None:
        of_share = dict(zip(MISSING_SHARES, scored.missing_scores, strict=True))
        columns |= {_column(share): pa.array(of_share[share]) for share in COMPARED_SHARES}
    for number, name in enumerate(classes):
        columns[f"proba {name}"] = pa.array(predictions[:, number].astype(np.float32))
    return pa.table(columns)


def read_groups(store: Store, dataset: Dataset, keys: Sequence[str]) -> list[str | None]:
    """The group of each of these samples, None where it has none."""
    found: dict[str, str | None] = {}
    for shard in dataset.of("test"):
        index = read_index(store, shard)
        if "group" in index.column_names:
            found |= dict(zip(index["key"].to_pylist(), index["group"].to_pylist(), strict=True))
    return [found.get(key) or None for key in keys]


def numbered(groups: Sequence[str | None]) -> Array:
    """A number per row (n,), the same for rows of one group; a row without one has its own."""
    import numpy as np

    numbers: dict[object, int] = {}
    return np.array(
        [numbers.setdefault(row if name is None else name, len(numbers)) for row, name in enumerate(groups)]
    )
