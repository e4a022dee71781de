"""What the user plugs in, named as `module:name`: found, and hashed by its source."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

NAMED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
"""How it is named."""


def make_importable(folder: Path) -> None:
    """Let modules in this folder be found, after all that are installed; processes started here find them too."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def plugged(text: str) -> Callable[..., Any]:
    """The function or class. Raises ImportError, AttributeError or TypeError where there is none."""
    module, _, name = text.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    if not callable(found):
        raise TypeError(f"{name} is no function")
    return found


def source_hash(text: str) -> str:
    """Of the whole module, for a function may call others in it: of what this process imported, not of later edits."""
    return _source_hash(text, inspect.getmodule(plugged(text)))


@lru_cache(maxsize=256)
def _source_hash(text: str, module: ModuleType | None) -> str:
    try:
        source = inspect.getsource(module) if module else text
    except OSError:
        source = text
    return hashlib.sha256(source.encode()).hexdigest()[:32]
