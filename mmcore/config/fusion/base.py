"""What the fusion methods' settings have in common."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, ByteSize, Field, TypeAdapter, ValidationError, field_validator, model_validator

from mmcore.config.base import Settings
from mmcore.config.fusion import grid as grids
from mmcore.errors import Problem

Penalty = Literal["auto"] | Annotated[float, Field(gt=0)]

_size = TypeAdapter(ByteSize)


def _bytes(value: object) -> int:
    """`1GiB` as a number of bytes."""
    return int(_size.validate_python(value))


MemoryBytes = Annotated[int, BeforeValidator(_bytes, json_schema_input_type=int | str), Field(gt=0)]
"""A number of bytes, or as `1GiB`."""


DRAWING_HEADS = frozenset({"tree", "network"})
"""Heads that draw random numbers."""


class FusionMethod(Settings):
    """What all fusion methods have in common. The fields are the constructor's arguments, but for the grid."""

    outside_recipe: ClassVar[frozenset[str]] = frozenset({"grid"})
    draws: ClassVar[bool] = True
    """Whether the method itself draws random numbers; closed forms do not."""

    tasks: ClassVar[frozenset[str]] = frozenset({"classes", "multilabel", "regression"})
    """What the method can learn."""

    out_of_core: ClassVar[bool] = False
    """Whether its map follows from moments, so that the features need not fit in memory (`MomentsFusion`)."""

    in_epochs: ClassVar[bool] = False
    """Whether it learns in epochs: on the device that is set, with progress and checkpoints."""

    scaling: Literal["none", "standard", "l2"] = "standard"
    """How each view is scaled first, fitted on its present training rows."""
    modalities: list[str] | None = Field(None, min_length=1)
    """Only these; all when not given."""
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    """Values to try, as `{n_components: [8, 16, 32]}`: each combination, at most 4 of them, is a fit of its own, and
    validation chooses which of them stands for the method."""

    @property
    def name(self) -> str:
        """What models of it are called."""
        return str(self.method)  # type: ignore[attr-defined]

    @property
    def seeded(self) -> bool:
        """Whether a fit depends on the seed; one that does not is done once, whatever the number of seeds."""
        return self.draws

    @property
    def apart(self) -> str:
        """What tells it from the same method as it is by default: the words among its settings, and its modalities."""
        words = [
            value
            for name, value in self
            if isinstance(value, str) and value != type(self).model_fields[name].get_default()
        ]
        return "-".join([*words, "+".join(self.modalities or ())]).strip("-")

    def arguments(self) -> dict[str, Any]:
        """What the constructor is given."""
        return self.model_dump(exclude={"method", "grid"})

    def trusted(self) -> tuple[str, ...]:
        """Classes outside of this library, as `module:Class`, that the user has named: its models may be loaded."""
        return ()

    def problems(self, where: str) -> list[Problem]:
        """What only looking further than the settings shows; `where` is their place in the YAML."""
        return []

    def tried(self) -> list[tuple[str, Self]]:
        """Each setting of the grid under its label, as `n_components=8`; without a grid this one, under none."""
        return [(grids.label(values), self._with(values)) for values in grids.combinations(self.grid)] or [("", self)]

    def _with(self, values: dict[str, Any]) -> Self:
        """The same with other values. Raises ValidationError where one does not fit."""
        given = self.model_dump(exclude_unset=True, exclude={"grid"}, by_alias=True)
        return type(self).model_validate({**given, **values})

    def _in_grid(self) -> set[str]:
        """What a grid may hold values of."""
        return set(type(self).model_fields) - {"method", "modalities", "grid"}

    @model_validator(mode="after")
    def _grid_fits(self) -> Self:
        if what := grids.fault(self.grid, self._in_grid()):
            raise ValueError(f"grid: {what}")
        for values in grids.combinations(self.grid):
            try:
                self._with(values)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                message = str(first["msg"]).removeprefix("Value error, ")
                raise ValueError(f"grid: {grids.label(values)} does not fit: {message}") from None
        return self

    @field_validator("modalities")
    @classmethod
    def _each_once(cls, names: list[str] | None) -> list[str] | None:
        listed = names or []
        if twice := [name for name in listed if listed.count(name) > 1]:
            raise ValueError(f"{twice[0]!r} is listed {listed.count(twice[0])} times; list each modality once")
        return names


class Headed(FusionMethod):
    """What the methods have in common whose map is followed by a head that predicts."""

    head: Literal["linear", "kernel", "tree", "network"] = "linear"
    """What predicts from the fused vector: logistic (of numbers: ridge) regression, support vector machines with a
    Gaussian kernel, boosted trees (LightGBM, the extra `trees`), or a perceptron with one hidden layer."""
    C: Penalty = "auto"
    """Inverse strength of the head's penalty; `auto` takes the best of several on the validation split."""

    @field_validator("head")
    @classmethod
    def _installed(cls, head: str) -> str:
        if head == "tree" and find_spec("lightgbm") is None:
            raise ValueError("tree needs lightgbm, which is not installed: pip install 'mmcore[trees]'")
        return head

    @property
    def seeded(self) -> bool:
        return self.draws or self.head in DRAWING_HEADS


class NeuralFusion(FusionMethod):
    """What the methods trained by backpropagation have in common."""

    version: ClassVar[int] = 2
    in_epochs: ClassVar[bool] = True

    epochs: int = Field(100, ge=1)
    """At most this many passes over the training split."""
    patience: int = Field(20, ge=1)
    """Stop after this many epochs without a better validation loss."""
    batch_size: int = Field(128, ge=1)
    """Samples per training step."""
    learning_rate: float = Field(2e-3, gt=0)
    """The highest of the schedule."""
    weight_decay: float = Field(1e-2, ge=0)
    """How strongly AdamW pulls weights to zero."""
    modality_dropout: float = Field(0.5, ge=0, lt=1)
    """Share of present modalities hidden in training (one always stays), so that none is leaned on alone."""
