"""Reading a run's YAML, with every problem found at once and the nearest known key named."""

from __future__ import annotations

import difflib
import os
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from mmcore.config.plugged import make_importable
from mmcore.config.run import RunConfig
from mmcore.errors import ConfigError, Problem

PATH_FIELDS = (
    ("data", "manifest"),
    ("data", "root"),
    ("features", "*", "file"),
    ("features", "*", "model"),
    ("output",),
)
"""Fields that hold paths, `*` for any name: relative ones start from the YAML's folder, those of overrides from where
one stands."""


def load(file: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration in the YAML `file`, with `key.path=value` overrides applied.

    From then on, modules beside the file can be imported: filters and encoders of the user's own may lie there.
    Raises ConfigError with all problems of the file and the overrides.
    """
    path = Path(file)
    values = _read(path)
    make_importable(path.resolve().parent)
    _absolute(values, path.resolve().parent)
    problems = [problem for text in overrides if (problem := _override(values, text))]
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError([*problems, *problems_of(error, str(file))]) from None
    if problems:
        raise ConfigError(problems)
    return config


def problems_of(error: ValidationError, file: str) -> list[Problem]:
    """Pydantic's findings in a user's words."""
    return [_problem(dict(found), file) for found in error.errors(include_url=False)]


def _read(path: Path) -> dict[str, Any]:
    def fault(what: str, fix: str) -> ConfigError:
        return ConfigError(Problem(str(path), what, fix))

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        # A path has lost the second slash of an address.
        if ":/" in str(path):
            what = "this is an address, and settings are read from a file."
            raise fault(what, "Give the path of a pipeline YAML, and output=ADDRESS behind it.") from None
        raise fault("there is no such file.", "Give the path of a pipeline YAML.") from None
    except IsADirectoryError:
        raise fault("this is a folder.", "Give the path of the YAML in it.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise fault(f"cannot be read ({error}).", "It must be a readable UTF-8 text file.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "it cannot be parsed"
        raise fault(f"not valid YAML{line}: {reason}.", "Mind indentation and quotes.") from None
    if not isinstance(values, dict):
        raise fault("holds no settings.", "It must be a mapping that starts with `name:` and `data:`.")
    return values


def _absolute(values: dict[str, Any], base: Path) -> None:
    """Make the path fields of `values` absolute, starting from `base`."""
    for *parents, name in PATH_FIELDS:
        parts: list[Any] = [values]
        for parent in parents:
            mappings = [part for part in parts if isinstance(part, dict)]
            parts = [one for part in mappings for key, one in part.items() if parent in ("*", key)]
        for part in (part for part in parts if isinstance(part, dict)):
            if isinstance(part.get(name), str):
                if name != "model" or _is_folder(base, part[name]):
                    part[name] = _from(base, part[name])
            elif isinstance(part.get(name), list):
                part[name] = [_from(base, item) if isinstance(item, str) else item for item in part[name]]
    if "output" not in values:
        values["output"] = _from(base, RunConfig.model_fields["output"].default)


def _is_folder(base: Path, model: str) -> bool:
    """Whether a model is given by its folder, rather than by its name on the hub."""
    return model.startswith((".", "~", "/")) or (base / model).is_dir()


def _from(base: Path, path: str) -> str:
    return path if "://" in path else os.path.normpath(base / os.path.expanduser(path))


def _override(values: dict[str, Any], text: str) -> Problem | None:
    """Put one `key.path=value` into `values`; the problem if it cannot be."""
    name, equals, value_text = text.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        return Problem(text, "not an override.", "Write key.path=value, as data.limit=100.")
    try:
        value = yaml.safe_load(value_text)
    except yaml.YAMLError:
        return Problem(text, "the value is not valid YAML.", "Put quotes around it.")
    one: dict[str, Any] = {keys[-1]: value}
    for key in reversed(keys[:-1]):
        one = {key: one}
    if value is not None:
        _absolute_only(one, Path.cwd())
    part = values
    for depth, key in enumerate(keys[:-1]):
        one = one[key]
        inner = part.setdefault(key, {})
        if not isinstance(inner, dict):
            return Problem(text, f"{'.'.join(keys[: depth + 1])} is not a mapping.", "Override it as a whole.")
        part = inner
    part[keys[-1]] = one[keys[-1]]
    return None


def _absolute_only(values: dict[str, Any], base: Path) -> None:
    had_output = "output" in values
    _absolute(values, base)
    if not had_output:
        values.pop("output", None)


_UNION = re.compile(r"constrained-\w+|tuple\[.*|list\[.*|int|float|str|bool").fullmatch
"""How pydantic names the choices of a union in the place of a fault; a person has not written it."""


def _problem(found: Mapping[str, Any], file: str) -> Problem:
    loc = tuple(part for part in found["loc"] if not _UNION(str(part)))
    extra = found["type"] == "extra_forbidden"
    written, known = _walk(loc[:-1] if extra else loc)
    where = ".".join([*written, str(loc[-1])] if extra else written)
    here = f"{file}: {where}" if where else file
    if extra:
        near = difflib.get_close_matches(str(found["loc"][-1]), known, n=1, cutoff=0.5)
        fix = f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(sorted(known))}."
        return Problem(here, "unknown key.", fix)
    if found["type"] == "missing":
        return Problem(here, "this key is required.", "Add it.")
    if found["type"] == "union_tag_invalid":
        context = found["ctx"]
        known = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
        near = difflib.get_close_matches(str(context["tag"]), known, n=1, cutoff=0.4)
        fix = f"Did you mean {near[0]!r}?" if near else ""
        name = str(context["discriminator"]).strip("'")
        fix = f"{fix} Known: {', '.join(known)}.".strip()
        return Problem(f"{here}.{name}", f"unknown {name} {context['tag']!r}.", fix)
    if found["type"] == "union_tag_not_found":
        name = str(found["ctx"]["discriminator"]).strip("'")
        return Problem(here, f"needs {name!r}.", "Say which kind it is.")
    if found["type"] in {"model_attributes_type", "model_type", "dict_type"}:
        return Problem(
            here, f"settings are needed here, got {_short(found['input'])}.", "Write them as {name: value, …}."
        )
    message = str(found["msg"]).removeprefix("Value error, ")
    got = "" if found["type"] == "value_error" else f", got {_short(found['input'])}"
    return Problem(here, f"{message}{got}.")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _walk(where: Iterable[str | int]) -> tuple[list[str], list[str]]:
    """A place of the configuration as a person would write it, and the names of the fields that it has.

    Pydantic puts the tag of a union into the place (`modalities.photo.image.size`); a person does not.
    """
    here: Any = RunConfig
    written: list[str] = []
    for part in where:
        models = _models_in(here)
        entered = [model.model_fields[str(part)].annotation for model in models if part in model.model_fields]
        container = _container(here)
        if container is not None:
            here = container
        elif entered:
            here = entered[0]
        elif tagged := [model for model in models if _has_tag(model, part)]:
            here = tagged[0]
            continue
        written.append(str(part))
    return written, sorted({name for model in _models_in(here) for name in model.model_fields})


def _container(annotation: Any) -> Any:
    """What a list or dict holds; None for anything else."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _container(typing.get_args(annotation)[0])
    return typing.get_args(annotation)[-1] if origin in (list, dict) else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in typing.get_args(annotation) for found in _models_in(argument)]


def _has_tag(model: type[BaseModel], tag: str | int) -> bool:
    return any(tag in typing.get_args(field.annotation) for field in model.model_fields.values())
