"""Fusion methods of the user's own: a class that the YAML names."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field

from mmcore.config.fusion.base import FusionMethod
from mmcore.config.plugged import NAMED, plugged, source_hash
from mmcore.errors import ConfigError, Problem
from mmcore.records import Json

BASE = "mmcore.fusion.base:FusionModel"
BY_CALLER = ("random_state", "task")
"""Arguments of every method that no YAML gives."""


class CustomFusionSettings(FusionMethod):
    """A class of yours, a subclass of FusionModel or of HeadedFusion: `{method: custom, class: my.module:MyFusion}`."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)
    implementation: ClassVar[str] = BASE

    method: Literal["custom"] = "custom"
    class_: str = Field(alias="class", pattern=f"^{NAMED.pattern}$")
    """The class as `module:Class`. The module lies beside the YAML, or is installed; workers on other machines must be
    able to import it too. Its source is part of what names the model."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the class. A grid holds values of these."""

    @property
    def apart(self) -> str:
        return ""

    @property
    def name(self) -> str:
        """The class's own."""
        return self.class_.partition(":")[2]

    @property
    def seeded(self) -> bool:
        """A class may say that it draws no random numbers: `draws = False`."""
        return bool(getattr(plugged(self.class_), "draws", True))

    def arguments(self) -> dict[str, Any]:
        return {**self.options, "scaling": self.scaling, "modalities": self.modalities}

    def load(self) -> Any:
        return plugged(self.class_)

    def trusted(self) -> tuple[str, ...]:
        return (self.class_,)

    def recipe(self) -> dict[str, Json]:
        """Raises ConfigError where there is no such class."""
        if what := self._fault():
            raise ConfigError(Problem("fusion.methods", *what))
        return {**super().recipe(), "source": source_hash(self.class_)}

    def problems(self, where: str) -> list[Problem]:
        what = self._fault()
        return [Problem(f"{where}.class", *what)] if what else []

    def _with(self, values: dict[str, Any]) -> Self:
        return self.model_copy(update={"options": {**self.options, **values}, "grid": {}})

    def _in_grid(self) -> set[str]:
        return set(self.grid) - {*BY_CALLER, "scaling", "modalities"}

    def _fault(self) -> tuple[str, str] | None:
        """What is wrong with the class, and what to do; None where it can be made with every setting."""
        try:
            found = plugged(self.class_)
        except Exception as error:  # importing runs the user's code
            fix = "Name it as module:Class; the module must lie beside the YAML or be installed."
            return f"{self.class_!r} cannot be imported ({type(error).__name__}: {error}).", fix
        if not isinstance(found, type) or BASE not in (f"{one.__module__}:{one.__qualname__}" for one in found.__mro__):
            return f"{self.class_!r} is no fusion method.", "Make it a subclass of FusionModel or of HeadedFusion."
        if missing := sorted(getattr(found, "__abstractmethods__", ())):
            return f"{self.class_!r} has no {', '.join(missing)}.", "Write what its base leaves open."
        for _, one in self.tried():
            try:
                inspect.signature(found).bind(**one.arguments(), **dict.fromkeys(BY_CALLER))
            except TypeError as error:
                fix = "Mend `options`, or take scaling, modalities, random_state and task as every method does."
                return f"{self.class_!r} does not take these arguments ({error}).", fix
        return None
