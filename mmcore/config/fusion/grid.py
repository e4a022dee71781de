"""A few settings of one thing, of which validation chooses one."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

MAX_SETTINGS = 4
"""More is a search, which a validation split of some hundred rows cannot judge."""


def combinations(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Each choice of one value per key, the last key changing fastest; none for an empty grid."""
    if not grid:
        return []
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def label(values: Mapping[str, Any]) -> str:
    """A combination in a person's words: `n_components=8, shrinkage=0.1`."""
    return ", ".join(f"{name}={_word(value)}" for name, value in values.items())


def fault(grid: Mapping[str, Sequence[Any]], known: Collection[str]) -> str:
    """What is wrong with a grid over the keys `known`, and what to do; empty where nothing is."""
    for name, values in grid.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            fix = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known)) or 'nothing'}"
            return f"no setting {name!r} to try values of; {fix}"
        if not values:
            return f"{name} lists no values; give at least one"
        if twice := [value for number, value in enumerate(values) if value in values[:number]]:
            return f"{name} lists {twice[0]!r} twice"
    if (count := len(combinations(grid))) > MAX_SETTINGS:
        sizes = " × ".join(str(len(values)) for values in grid.values())
        what = f"{sizes} = {count} settings" if len(grid) > 1 else f"{count} settings"
        return f"{what} are too many: at most {MAX_SETTINGS}, for validation to choose one of"
    return ""


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(map(_word, value))
    if isinstance(value, Mapping):
        return "{" + label(value) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)
