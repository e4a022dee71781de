"""Heads: what predicts from one vector per row. One file per kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, Self

from mmcore.fusion.data import Array
from mmcore.fusion.heads.kernel import KernelHead
from mmcore.fusion.heads.linear import LinearHead
from mmcore.fusion.heads.network import NetworkHead
from mmcore.fusion.heads.tree import TreeHead
from mmcore.fusion.targets import Target
from mmcore.records import Json

HeadKind = Literal["linear", "kernel", "tree", "network"]
Strength = float | Literal["auto"]


class Head(Protocol):
    """Learns from vectors (n, d) and encoded targets, and gives outputs as `Target` describes them."""

    tried: dict[str, Json]
    """What was tried while fitting, as JSON."""

    def fit(self, X: Array, targets: Array, weights: Array, validation: tuple[Array, Array] | None = None) -> Self: ...

    def outputs(self, X: Array) -> Array: ...

    def arrays(self, prefix: str) -> dict[str, Array]:
        """What was learned, to be saved under names that begin with `prefix`."""


HEADS: dict[HeadKind, Any] = {"linear": LinearHead, "kernel": KernelHead, "tree": TreeHead, "network": NetworkHead}


def make_head(
    kind: HeadKind, target: Target, *, C: Strength = "auto", random_state: int | None = None, threads: int = 1
) -> Head:
    """A head of this kind, not fitted yet. Trees are grown by `threads`, whose number does not decide the bits."""
    settings = {"threads": threads} if kind == "tree" else {}
    head: Head = HEADS[kind](target, C=C, random_state=random_state, **settings)
    return head


def restored_head(kind: HeadKind, target: Target, arrays: Mapping[str, Array], prefix: str) -> Head:
    """The head that was saved as `arrays`."""
    head: Head = HEADS[kind].restored(target, arrays, prefix)
    return head


def holds_training_rows(kind: HeadKind) -> bool:
    """Whether a model with this head contains rows that it learned from."""
    return bool(HEADS[kind].contains_training_rows)
