"""Heads: what predicts from one vector per row. One file per kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, Self

from mmcore.fusion.data import Array
from mmcore.fusion.heads.linear import LinearHead
from mmcore.fusion.targets import Target
from mmcore.records import Json

HeadKind = Literal["linear"]
HEADS = {"linear": LinearHead}
Strength = float | Literal["auto"]


class Head(Protocol):
    """Learns from vectors (n, d) and encoded targets, and gives outputs as `Target` describes them."""

    tried: dict[str, Json]
    """What was tried while fitting, as JSON."""

    def fit(self, X: Array, targets: Array, weights: Array, validation: tuple[Array, Array] | None = None) -> Self: ...

    def outputs(self, X: Array) -> Array: ...

    def arrays(self, prefix: str) -> dict[str, Array]:
        """What was learned, to be saved under names that begin with `prefix`."""


def make_head(kind: HeadKind, target: Target, *, C: Strength = "auto", random_state: int | None = None) -> Head:
    """A head of this kind, not fitted yet."""
    return HEADS[kind](target, C=C, random_state=random_state)


def restored_head(kind: HeadKind, target: Target, arrays: Mapping[str, Array], prefix: str) -> Head:
    """The head that was saved as `arrays`."""
    return HEADS[kind].restored(target, arrays, prefix)
