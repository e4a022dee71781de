"""Rows as a fusion method learns from them, and the checks on the way there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from mmcore.errors import FusionError
from mmcore.fusion.data import Array, View, Views
from mmcore.fusion.stored import parts_of
from mmcore.fusion.targets import Task

if TYPE_CHECKING:
    from mmcore.training.checkpoint import Checkpoints


@dataclass(frozen=True)
class FitRun:
    """Where and how a fit runs: its checkpoints, who hears of its epochs, and what computes it."""

    checkpoints: Checkpoints | None = None
    on_epoch: Callable[[int, int, dict[str, float]], None] | None = None
    threads: int = 1
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    """What a network's forward pass is computed in while it learns."""
    processes: int = 1
    """How many train a network together."""


@dataclass(frozen=True)
class Rows:
    """Prepared rows as a method's `_fit` gets them: scaled views (absent rows zero), targets, weights."""

    views: Views
    targets: Array
    """Classes: (n,) positions in `classes_`; several labels: (n, L) of 0 and 1; numbers: (n,)."""
    weights: Array
    """(n,) not negative; ones where none were given."""
    labelled: Array
    """(n,) whether `targets` mean anything; all true for methods that do not use unlabelled rows."""

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, rows: Array) -> Rows:
        return Rows(self.views[rows], self.targets[rows], self.weights[rows], self.labelled[rows])


def present_counts(views: Views) -> Array:
    """How many modalities each row has: (n,)."""
    return np.asarray(np.sum([view.present for _, view in views.items()], axis=0))


def any_present(views: Views) -> Array:
    """Which rows have at least one modality: booleans (n,)."""
    return np.asarray(present_counts(views) > 0)


def check_finite(name: str, view: View) -> None:
    for part, values in parts_of(view.values):
        finite = np.isfinite(values[view.present[part]]).all(axis=1)
        if not finite.all():
            row = part.start + int(np.flatnonzero(view.present[part])[~finite][0])
            raise FusionError(f"view {name}: row {row} is marked present but holds NaN or infinity")


def source_labels(y: Any, domain: npt.ArrayLike | None, rows: int, task: Task) -> Any:
    """Labels, with those of rows of the target domain taken out."""
    if domain is None:
        return y
    domains = np.asarray(domain)
    if domains.shape != (rows,) or not np.isin(domains, ("source", "target")).all():
        raise FusionError(f'domain: needs "source" or "target" for each of the {rows} rows')
    hidden = domains == "target"
    if task == "regression":
        return np.where(hidden, np.nan, np.asarray(y, dtype=np.float64))
    hid = [None if gone else one for gone, one in zip(hidden, list(y), strict=True)]
    if task == "multilabel":
        return np.where(hidden[:, None], np.nan, y) if isinstance(y, np.ndarray) and y.ndim == 2 else hid
    return np.array(hid, dtype=object)


def checked_weights(sample_weight: npt.ArrayLike | None, rows: int) -> Array:
    weights = np.ones(rows) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (rows,) or not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
        raise FusionError(f"sample_weight: needs {rows} numbers, none negative and not all zero")
    return weights
