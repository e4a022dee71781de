"""Filters: which samples are wanted, by expressions over their facts or by functions of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mmcore.config.expressions import AbsentError, Expression, Facts
from mmcore.config.plugged import NAMED, plugged, source_hash
from mmcore.errors import ConfigError, Problem, StageError
from mmcore.records import Json

FILTERED = "filtered"
"""The reason code of what is not wanted."""
Filter = Callable[[Facts], str | None]
"""Why a sample is not wanted; None for one that is."""


def recipe_of(filters: Sequence[str]) -> list[Json]:
    """What a recipe holds: each filter, and of a function its module's hash, so that another one is noticed.

    Raises ConfigError for functions that cannot be found.
    """
    entries, problems = [], []
    for position, text in enumerate(filters):
        try:
            entries.append([text, source_hash(text)] if NAMED.fullmatch(text) else text)
        except (ImportError, AttributeError, TypeError) as error:
            fix = "Name a function as module:function; this command and the workers must be able to import it."
            problems.append(Problem(f"data.filters.{position}", f"{text!r}: {error}.", fix))
    if problems:
        raise ConfigError(problems)
    return entries


class Filters:
    """The filters of a recipe. Raises StageError where a function here is another one than was planned with."""

    def __init__(self, recipe: Sequence[Json], modalities: Sequence[str]) -> None:
        self._filters = [_of_expression(entry, modalities) for entry in recipe if isinstance(entry, str)]
        for text, planned in (entry for entry in recipe if not isinstance(entry, str)):
            if source_hash(text) != planned:
                raise StageError(f"filter {text}: its source is not the one that was planned with. Run again.")
            self._filters.append(_of_function(text))

    def __bool__(self) -> bool:
        return bool(self._filters)

    def why_not(self, facts: Facts) -> str | None:
        """The first filter that a sample fails; None where it passes all.

        Raises StageError where a filter cannot be applied to the sample.
        """
        for judge in self._filters:
            try:
                why = judge(facts)
            except Exception as error:
                what = error.args[0] if isinstance(error, KeyError) and error.args else error
                raise StageError(f"data.filters fails on sample {facts['key']!r}: {what}.") from error
            if why:
                return why
        return None


def _of_expression(text: str, modalities: Sequence[str]) -> Filter:
    expression = Expression(text, modalities)

    def judge(facts: Facts) -> str | None:
        try:
            return None if expression(facts) else text
        except AbsentError:
            # A sample cannot fail by what it does not have; `image is not None` asks for that.
            return None

    return judge


def _of_function(text: str) -> Filter:
    function = plugged(text)

    def judge(facts: Facts) -> str | None:
        result = function(facts)
        if isinstance(result, str):
            return result or None
        return None if result else text

    return judge


def facts_of(
    head: Mapping[str, Json], extras: Mapping[str, Json], media: Mapping[str, Mapping[str, Json] | None]
) -> dict[str, Json]:
    """A sample as filters see it: `head` has key, label and split; columns `meta.x` become `meta["x"]`."""
    meta = {name.partition(".")[2]: value for name, value in extras.items() if name.startswith("meta.")}
    plain = {name: value for name, value in extras.items() if not name.startswith("meta.")}
    return {**head, **plain, "meta": meta, **media}
