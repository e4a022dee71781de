"""The one place that knows how shards are planned, written and read.

To read: open samples with `open_dataset`, `open_pairs` or `open_tars`, then give them to `ShardDataset`,
`ShardStream` or `ShardLoader`, which load torch, or read them directly with `Shards.read`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcore.shards.cache import ShardCache
    from mmcore.shards.datasets import ShardDataset, ShardLoader, ShardStream
    from mmcore.shards.opening import open_dataset, open_pairs, open_tars
    from mmcore.shards.reader import Shards

__all__ = [
    "ShardCache",
    "ShardDataset",
    "ShardLoader",
    "ShardStream",
    "Shards",
    "open_dataset",
    "open_pairs",
    "open_tars",
]

_HOMES = {
    "ShardCache": "cache",
    "ShardDataset": "datasets",
    "ShardLoader": "datasets",
    "ShardStream": "datasets",
    "Shards": "reader",
    "open_dataset": "opening",
    "open_pairs": "opening",
    "open_tars": "opening",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for, and torch only with that which needs it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
