"""Encoders, and the vectors that they make of samples.

To read: `open_features` gives the `Features` of one modality, by row, as arrays or tensors.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcore.features.opening import open_features
    from mmcore.features.reading import Features

__all__ = ["Features", "open_features"]

_HOMES = {"Features": "reading", "open_features": "opening"}


def __getattr__(name: str) -> Any:
    """Load what is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
