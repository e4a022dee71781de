"""Encoders of the user's own: a class that the YAML names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from mmcore.config.base import Settings
from mmcore.config.encoders.base import EncoderSettings
from mmcore.config.plugged import NAMED, plugged, source_hash
from mmcore.errors import ConfigError, Problem
from mmcore.records import Json

METHODS = ("ready", "encode")


class CustomSettings(EncoderSettings):
    """A class of yours with three methods: `__init__(**options)`, `ready(value)`, `encode(batch)`."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)
    implementation: ClassVar[str] = "mmcore.features.encoders.custom"
    kinds: ClassVar[frozenset[str]] = frozenset({"image", "audio", "text"})

    encoder: Literal["custom"] = "custom"
    class_: str = Field(alias="class", pattern=f"^{NAMED.pattern}$")
    """The class as `module:Class`. The module lies beside the YAML, or is installed; workers on other machines must be
    able to import it too. Its source is part of what names the features."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the class."""
    batch: int = Field(32, ge=1)
    """Samples that `encode` gets at a time at most."""

    def load(self) -> Any:
        """The encoder that calls the class; another one where it tells lengths."""
        return getattr(super().load(), "CustomByLength" if hasattr(plugged(self.class_), "length") else "CustomEncoder")

    def sources(self) -> Mapping[str, Json]:
        if what := self._fault():
            raise ConfigError(Problem("features", *what))
        return {self.class_: source_hash(self.class_)}

    def problems(self, name: str, modality: Settings) -> list[Problem]:
        what = self._fault()
        return [Problem(f"features.{name}.class", *what)] if what else []

    def _fault(self) -> tuple[str, str] | None:
        """What is wrong with the class, and what to do; None where it can be made."""
        try:
            found = plugged(self.class_)
        except Exception as error:  # importing runs the user's code
            fix = "Name it as module:Class; the module must lie beside the YAML or be installed."
            return f"{self.class_!r} cannot be imported ({type(error).__name__}: {error}).", fix
        if not isinstance(found, type):
            return f"{self.class_!r} is no class.", "Name a class with the methods ready and encode."
        if missing := [name for name in METHODS if not callable(getattr(found, name, None))]:
            return f"{self.class_!r} has no method {missing[0]!r}.", "It needs ready(value) and encode(batch)."
        try:
            inspect.signature(found).bind(**self.options)
        except TypeError as error:
            return f"{self.class_!r} does not take these options ({error}).", "Mend `options`."
        return None
