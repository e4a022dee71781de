"""Which models a run trains, and the recipes that name them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from mmcore.config.fusion import BASELINES, FusionMethod, LateSettings, NeuralFusion, Subspace, WeightedSettings
from mmcore.config.run import RunConfig
from mmcore.errors import ConfigError, Problem
from mmcore.fusion.streamed import HEAD_ROWS, SAMPLE_VERSION
from mmcore.fusion.streamed import VERSION as MOMENTS_VERSION
from mmcore.records import EncoderEntry, Json, ModelEntry, ShardEntry, labels_change, titled
from mmcore.training.device import device_of, processes_of

LEARNED_FROM = ("train", "val")
"""The splits that a model sees: it learns from the first, and is stopped, tuned and calibrated by the second."""

NUMBER_BYTES = 4
"""Of one number of a feature as it is read."""

Shards = Mapping[str, Sequence[ShardEntry]]
"""The shards of each split in `LEARNED_FROM`."""


@dataclass(frozen=True)
class ModelPlan:
    """One model that a run trains: a method with one setting."""

    name: str
    """Unique in a table; the settings of one grid share it."""
    settings: Any
    modalities: tuple[str, ...]
    baseline: bool
    floor: bool = False
    """Whether it reads the classical encoder that has its name."""
    setting: str = ""
    """Which of the method's grid it is; empty where there is no grid."""

    @property
    def method(self) -> str:
        return str(self.settings.method)

    @property
    def title(self) -> str:
        return titled(self.name, self.setting)


def plan_models(config: RunConfig) -> list[ModelPlan]:
    """The configured methods under unique names, then the baselines: late fusion, each single modality, each floor.

    A method with a grid is there once for each setting, under one name. Late fusion is no baseline where the same is
    one of the methods. Raises ConfigError for a method that does not fit.
    """
    there = tuple(config.data.modalities)
    problems, plans = [], list[ModelPlan]()
    given = "methods" in config.fusion.model_fields_set
    for position, settings in enumerate(config.fusion.methods):
        where = f"fusion.methods.{position}"
        used = tuple(settings.modalities or there)
        if unknown := [name for name in used if name not in there]:
            known = f"There are: {', '.join(there)}."
            problems.append(Problem(f"{where}.modalities", f"no modality {unknown[0]!r}.", known))
        if isinstance(settings, WeightedSettings) and settings.fixed and set(settings.fixed) != set(used):
            needed = f"Give one number to each of: {', '.join(used)}."
            problems.append(Problem(f"{where}.fixed", f"weights of {', '.join(settings.fixed)}.", needed))
        if isinstance(settings, Subspace) and len(used) < 2:
            if given:
                problems.append(
                    Problem(where, f"{settings.name} needs at least two modalities.", "Take it off the list.")
                )
            continue
        if found := settings.problems(where):
            problems += found
            continue
        name = _unique(settings, {plan.name for plan in plans})
        # Those that look at no value are never chosen.
        baseline = isinstance(settings, BASELINES)
        plans += [ModelPlan(name, one, used, baseline=baseline, setting=setting) for setting, one in settings.tried()]
    if problems:
        raise ConfigError(problems)
    if len(there) > 1 and not any(_is_plain_late(plan, there) for plan in plans):
        name = _unique(LateSettings(), {plan.name for plan in plans})
        plans.append(ModelPlan(name, LateSettings(), there, baseline=True))
    for kind in BASELINES:
        if kind() not in [plan.settings for plan in plans]:
            plans.append(ModelPlan(_unique(kind(), {plan.name for plan in plans}), kind(), there, baseline=True))
    plans += [ModelPlan(f"only-{name}", LateSettings(modalities=[name]), (name,), baseline=True) for name in there]
    floors = [(view, name) for view, (name, _) in config.encoders.items() if view != name]
    plans += [
        ModelPlan(view, LateSettings(modalities=[name]), (name,), baseline=True, floor=True) for view, name in floors
    ]
    return plans


def _unique(settings: FusionMethod, taken: Collection[str]) -> str:
    """The method's name, with what tells it from the method by default, and a number if need be."""
    name = f"{settings.name}-{settings.apart}" if settings.apart else settings.name
    numbered = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(one for one in numbered if one not in taken)


def _is_plain_late(plan: ModelPlan, there: Sequence[str]) -> bool:
    """Whether it is late fusion of all modalities with nothing set otherwise."""
    plain = LateSettings(modalities=plan.settings.modalities)
    return bool(plan.settings == plain) and not plan.setting and set(plan.modalities) == set(there)


def may_read(model: ModelPlan | ModelEntry, view: str, modality: str) -> bool:
    """Whether a view is for this model: a floor reads the one of its name, the others the configured encoders'."""
    return view == (model.name if model.floor else modality)


def read_by(model: ModelPlan | ModelEntry, encoders: Iterable[EncoderEntry]) -> dict[str, EncoderEntry]:
    """The encoders whose views are for this model, by modality."""
    return {entry.modality: entry for entry in encoders if may_read(model, entry.view, entry.modality)}


def learned_shards(entries: Sequence[ShardEntry]) -> dict[str, list[ShardEntry]]:
    return {split: [entry for entry in entries if entry.split == split] for split in LEARNED_FROM}


def model_recipe(
    plan: ModelPlan,
    config: RunConfig,
    encoders: Mapping[str, EncoderEntry],
    shards: Shards,
    seed: int | None = None,
) -> Json:
    """All that determines a model's bytes; `seed` in place of the configured one, none where a fit depends on none."""
    settings: FusionMethod = plan.settings
    recipe: dict[str, Json] = {
        "kind": "model",
        "settings": settings.recipe(),
        "task": config.data.task,
        "seed": (config.fusion.seed if seed is None else seed) if settings.seeded else None,
        "threads": config.compute.threads,
        "device": device_of(config.compute) if settings.in_epochs else "cpu",
        "features": {
            name: {
                "encoder": encoders[name].digest,
                **{split: [shard.views[name] for shard in shards[split]] for split in LEARNED_FROM},
            }
            for name in plan.modalities
        },
        "labels": {split: [shard.labels for shard in shards[split]] for split in LEARNED_FROM},
        "order": list(plan.modalities),
    }
    if isinstance(settings, NeuralFusion):
        # In the recipe where they are not what they always were: they change the last bits.
        if (processes := processes_of(config.compute, recipe["device"])) > 1:
            recipe["processes"] = processes
        if (precision := config.compute.training_precision) != "float32":
            recipe["precision"] = precision
    if rows := head_rows(plan, config, encoders, shards):
        recipe["streamed"] = {"rows": rows, "moments": MOMENTS_VERSION, "sample": SAMPLE_VERSION}
    # Told apart from the model of the same modality, with which it is not compared to say what changed.
    return {**recipe, "floor": True} if plan.floor else recipe


def exceeds_memory(plan: ModelPlan, config: RunConfig, encoders: Mapping[str, EncoderEntry], shards: Shards) -> bool:
    """Whether a model's features are more than is kept in memory."""
    rows = sum(shard.samples for split in LEARNED_FROM for shard in shards[split])
    return NUMBER_BYTES * _width(plan, encoders) * rows > config.fusion.memory_bytes


def head_rows(plan: ModelPlan, config: RunConfig, encoders: Mapping[str, EncoderEntry], shards: Shards) -> int | None:
    """How many rows of a split the head of a model sees that learns out of core; None where all fit in memory."""
    if not plan.settings.out_of_core or not exceeds_memory(plan, config, encoders, shards):
        return None
    # Those of train and of val, and once more while they are put together.
    return max(1, min(HEAD_ROWS, config.fusion.memory_bytes // (4 * NUMBER_BYTES * _width(plan, encoders))))


def _width(plan: ModelPlan, encoders: Mapping[str, EncoderEntry]) -> int:
    return sum(encoders[name].dim or 0 for name in plan.modalities)


def unknown_because(
    plan: ModelPlan, encoders: Mapping[str, EncoderEntry], shards: Shards, history: Callable[[], Sequence[Json]]
) -> str:
    """Why a model's digest cannot be known yet; empty where it can. `history` gives the receipts of all models."""
    every = [shard for split in LEARNED_FROM for shard in shards[split]]
    relabelled = any(shard.labels is None for shard in every)
    new = [
        name
        for name in plan.modalities
        if name not in encoders or any(shard.views.get(name) is None for shard in every)
    ]
    if not relabelled and not new:
        return ""
    if not _alike(plan.method, plan.modalities, plan.floor, history()):
        return "its features are made first"
    return "its training data change" if relabelled else f"the features of {', '.join(new)} change"


def why_new(recipe: Json, history: Sequence[Json]) -> str:
    """Why a model must be trained, told by what differs from the most similar one there is."""
    alike = _alike(recipe["settings"]["method"], recipe["order"], "floor" in recipe, history)
    return min(("; ".join(_differences(recipe, old)) for old in alike), key=len, default="not trained yet")


def _alike(method: str, modalities: Sequence[str], floor: bool, history: Sequence[Json]) -> list[Json]:
    """The recipes of the models there are that do the same with the same modalities."""
    wanted = (method, list(modalities), floor)
    recipes = [receipt["recipe"] for receipt in history]
    return [old for old in recipes if (old["settings"]["method"], old["order"], "floor" in old) == wanted]


def _differences(new: Json, old: Json) -> list[str]:
    said = []
    changed = [key for key, value in new["settings"].items() if old["settings"].get(key, value) != value]
    if "version" in changed:
        said.append("its code changed")
    if settings := [key for key in changed if key != "version"]:
        said.append(f"changed settings: {', '.join(settings)}")
    how = ("seed", "threads", "device", "processes", "precision")
    said += [f"{key} changed" for key in how if new.get(key) != old.get(key)]
    streamed = [recipe.get("streamed") or {} for recipe in (new, old)]
    if streamed[0].get("rows") != streamed[1].get("rows"):
        said.append("the memory for features changed")
    elif streamed[0] != streamed[1] and "its code changed" not in said:
        said.append("its code changed")
    if encoders := [
        name for name, part in new["features"].items() if part["encoder"] != old["features"][name]["encoder"]
    ]:
        said.append(f"new encoder of {', '.join(encoders)}")
    if any(
        part[split] != old["features"][name][split] for name, part in new["features"].items() for split in LEARNED_FROM
    ):
        said.append("its training data changed")
    elif change := labels_change(
        *([name for split in LEARNED_FROM for name in r["labels"][split]] for r in (old, new))
    ):
        said.append(change)
    return said or ["not trained yet"]
