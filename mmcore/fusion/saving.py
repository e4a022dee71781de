"""Fusion models on disk: safetensors for numbers, JSON for the rest. Reading executes nothing of the file."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from mmcore.config.fusion import IMPLEMENTATIONS
from mmcore.errors import FusionError
from mmcore.fusion.data import Array
from mmcore.records import Json

FORMAT = 1
ARRAYS = "model.safetensors"
FACTS = "model.json"
CARD = "card.md"


@dataclass(frozen=True)
class SavedModel:
    """What was read back: the class (one that may be loaded) and all it needs."""

    kind: type[Any]
    settings: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    arrays: dict[str, Array]
    facts: dict[str, Json]


def write_model(
    folder: Path,
    kind: type[Any],
    *,
    settings: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    arrays: Mapping[str, Array],
    facts: Mapping[str, Json],
) -> None:
    """Write the two files that are read back, and a card for people, into an existing folder."""
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    (folder / ARRAYS).write_bytes(safetensors.numpy.save(plain))
    described = {
        "format": FORMAT,
        "class": _name_of(kind),
        "settings": {name: _plain(value) for name, value in settings.items()},
        # A list: the order of the views is part of the model.
        "views": [{"name": name, "shape": list(shape)} for name, shape in shapes.items()],
        "facts": facts,
    }
    text = json.dumps(described, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / FACTS).write_text(text + "\n", encoding="utf-8")
    (folder / CARD).write_text(_card(kind, described), encoding="utf-8")


def read_model(folder: Path, expected: type[Any], *, base: bool, trusted: Sequence[type[Any]] = ()) -> SavedModel:
    """Read both files. With `base` any method of this library and any class `trusted` is taken, else `expected` alone.

    Raises FusionError for another class, a newer format, or files that are no such model.
    """
    try:
        described = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        name, version = described["class"], described["format"]
        if version != FORMAT:
            raise FusionError(f"{folder}: the model has format {version}, and this mmcore reads {FORMAT}")
        kind = _known(name, trusted) if base else expected
        if kind is None or name != _name_of(kind):
            wanted = "a fusion method of this library" if base else _name_of(expected)
            raise FusionError(
                f"{folder}: holds a {name}, not {wanted}; load it with its own class, Class.load(folder), or say that "
                "you trust it: FusionModel.load(folder, trusted=[Class])"
            )
        return SavedModel(
            kind=kind,
            settings=described["settings"],
            shapes={view["name"]: tuple(view["shape"]) for view in described["views"]},
            arrays=safetensors.numpy.load((folder / ARRAYS).read_bytes()),
            facts=described["facts"],
        )
    except FileNotFoundError as error:
        raise FusionError(f"{folder}: no saved model ({Path(error.filename).name} is not there)") from None
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        if isinstance(error, FusionError):
            raise
        raise FusionError(f"{folder}: not a saved model ({error})") from error


def _card(kind: type[Any], described: Mapping[str, Any]) -> str:
    """What a person should know of a model who was handed it."""
    facts, target = described["facts"], described["facts"]["target"]
    what = {"classes": "one of {} classes", "multilabel": "any of {} labels", "regression": "a number"}[target["task"]]
    views = [f"{one['name']} ({' x '.join(map(str, one['shape']))})" for one in described["views"]]
    rows = (
        "**This file contains rows of the training data** (its kernel needs them): hand it on as you would those."
        if facts["contains_training_rows"]
        else "It holds no rows of the training data, only what was computed from them."
    )
    missing = {
        "native": "It learned from whatever views its rows had, and predicts from whatever is present.",
        "imputed": "Absent views are filled in before it reads them, in learning and in predicting.",
        "complete-only": "It learned from rows that have every view; absent views are filled in when it predicts.",
    }[kind.handles_missing]
    lines = [
        f"# {kind.__name__}",
        (kind.__doc__ or "").strip().partition("\n")[0],
        f"It predicts {what.format(len(target['classes']))} from {', '.join(views)}.",
        missing,
        rows,
        "Settings: " + json.dumps(described["settings"], sort_keys=True, ensure_ascii=False),
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def _plain(value: Any) -> Any:
    """A setting as JSON has it; slices as `[start, stop, step]`."""
    if isinstance(value, slice):
        return [value.start, value.stop, value.step]
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.item() if isinstance(value, np.generic) else value


def _name_of(kind: type[Any]) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _known(name: str, trusted: Sequence[type[Any]]) -> type[Any] | None:
    """The class of this name, where it is one of the methods that a YAML can name, or one of those."""
    for kind in trusted:
        if name == _name_of(kind):
            return kind
    if name not in IMPLEMENTATIONS:
        return None
    module, _, attribute = name.partition(":")
    found: type[Any] = getattr(importlib.import_module(module), attribute)
    return found
