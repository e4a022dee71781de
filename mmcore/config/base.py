"""What every part of the configuration has in common."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from mmcore.records import Json


class Part(BaseModel):
    """A part of the YAML: an unknown key is an error, and a value once read does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Settings(Part):
    """Settings of something that decides bytes: a modality, an encoder, a fusion method."""

    implementation: ClassVar[str]
    """`module:Class` that does the work; imported only when there is work to do."""
    version: ClassVar[int] = 1
    """Raised by hand when the implementation gives other bytes for the same settings and input."""
    outside_recipe: ClassVar[frozenset[str]] = frozenset()
    """Fields that cannot affect the bytes."""

    def recipe(self) -> dict[str, Json]:
        """What of these settings determines the bytes, as JSON."""
        return {**self.model_dump(mode="json", exclude=set(self.outside_recipe)), "version": self.version}

    def load(self) -> Any:
        """The class (or module) that implements these settings."""
        module, _, name = self.implementation.partition(":")
        found = importlib.import_module(module)
        return getattr(found, name) if name else found
