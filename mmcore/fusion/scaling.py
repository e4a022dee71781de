"""The scaling that every fusion method begins with, fitted on present training rows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np

from mmcore.fusion.data import Array, View, Views
from mmcore.fusion.stored import StoredRows, parts_of

Scaling = Literal["none", "standard", "l2"]

CONSTANT = 1e-12
"""A column whose deviation is a smaller share of its largest value, or of 1, is taken as constant."""


class Scaler:
    """Scales each view's present rows and puts zeros where a row is absent, in float64.

    `standard` takes off the training mean and divides by the training deviation (a constant column is only centred),
    so that zero is the training mean. `l2` gives every row unit length. `none` leaves the values as they are.
    """

    def __init__(self, kind: Scaling) -> None:
        self.kind = kind
        self.moments: dict[str, tuple[Array, Array]] = {}

    def fit(self, views: Views, weights: Array, *, in_parts: bool = False) -> Scaler:
        """Learn from present rows; `weights` (n,) say how much each counts.

        `in_parts` holds few rows at a time in memory; of many rows it gives other last bits.
        """
        if self.kind == "standard":
            learn = _moments_in_parts if in_parts else _moments
            self.moments = {name: learn(view, weights) for name, view in views.items()}
        return self

    def transform(self, views: Views) -> Views:
        """The scaled views: (n, d) float64 each, absent rows zero."""
        return Views({name: self._scaled(name, view) for name, view in views.items()})

    def _scaled(self, name: str, view: View) -> View:
        if isinstance(view.values, StoredRows):
            stored: Any = view.values.scaled(partial(self._scaled_rows, name))
            return View(stored, view.present)
        return View(self._scaled_rows(name, view.values, view.present), view.present)

    def _scaled_rows(self, name: str, values: Array, present: Array) -> Array:
        scaled = np.zeros(values.shape)
        rows = values[present].astype(np.float64)
        if self.kind == "standard":
            mean, deviation = self.moments[name]
            rows = (rows - mean) / deviation
        elif self.kind == "l2":
            length = np.linalg.norm(rows, axis=1, keepdims=True)
            rows = rows / np.where(length > 0, length, 1.0)
        scaled[present] = rows
        return scaled

    def undone(self, name: str, rows: Array) -> Array:
        """Scaled rows (n, d) of one view in its own units; unit lengths (l2) stay."""
        if self.kind != "standard":
            return rows
        mean, deviation = self.moments[name]
        return np.asarray(rows * deviation + mean)

    def arrays(self) -> dict[str, Array]:
        """What was fitted, to be saved."""
        named = {f"scaling.{name}.mean": mean for name, (mean, _) in self.moments.items()}
        return named | {f"scaling.{name}.deviation": deviation for name, (_, deviation) in self.moments.items()}

    @classmethod
    def restored(cls, kind: Scaling, arrays: Mapping[str, Array], names: list[str]) -> Scaler:
        scaler = cls(kind)
        if kind == "standard":
            scaler.moments = {
                name: (arrays[f"scaling.{name}.mean"], arrays[f"scaling.{name}.deviation"]) for name in names
            }
        return scaler


def _moments_in_parts(view: View, weights: Array) -> tuple[Array, Array]:
    counted = view.present & (weights > 0)
    weights = np.where(counted, weights, 0.0) / weights[counted].sum()
    sums, squares, largest = (np.zeros(view.shape) for _ in range(3))
    for part, values in parts_of(view.values):
        rows = values[counted[part]].astype(np.float64)
        sums += weights[part][counted[part]] @ rows
        largest = np.maximum(largest, np.abs(rows).max(axis=0, initial=0.0))
    for part, values in parts_of(view.values):
        rows = values[counted[part]].astype(np.float64)
        squares += weights[part][counted[part]] @ (rows - sums) ** 2
    return sums, _deviation(squares, largest)


def _moments(view: View, weights: Array) -> tuple[Array, Array]:
    counted = view.present & (weights > 0)
    rows = view.values[counted].astype(np.float64)
    weights = weights[counted] / weights[counted].sum()
    mean = weights @ rows
    return mean, _deviation(weights @ (rows - mean) ** 2, np.abs(rows).max(axis=0))


def _deviation(variance: Array, largest: Array) -> Array:
    deviation = np.sqrt(variance)
    # Rounding leaves a constant column with a tiny deviation; dividing by it would make noise of it.
    tiny = CONSTANT * np.maximum(1.0, largest)
    return np.where(deviation > tiny, deviation, 1.0)
