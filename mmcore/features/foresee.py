"""What extracting would do: which encoders and vectors are there, and why the others must be made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mmcore.config import EncoderSettings, RunConfig, TrainedEncoder
from mmcore.errors import DamagedError
from mmcore.features.standing import UNKNOWN, choose_standing
from mmcore.features.store import finished_views
from mmcore.records import DataFile, EncoderEntry, Json, ShardEntry, Step, digest, labels_change
from mmcore.storage import Store
from mmcore.training.device import device_of, precision_of

Receipt = Mapping[str, Json]

FOLDER = "encoders"


@dataclass(frozen=True)
class EncoderPlan:
    """One modality's encoder: there already (`receipt`), or to be trained or opened from `recipe`, and why."""

    settings: EncoderSettings
    recipe: Json | None
    """None where the shards it follows from are not made yet."""
    receipt: Receipt | None
    reason: str

    @property
    def digest(self) -> str | None:
        recipe = self.receipt["recipe"] if self.receipt else self.recipe
        return digest(recipe) if recipe else None

    @property
    def doing(self) -> str:
        """What is to be done where there is no receipt."""
        return "training the encoder" if self.settings.learns else "opening the encoder"

    def entry(self, view: str, modality: str, classes: int) -> EncoderEntry | None:
        if (name := self.digest) is None:
            return None
        dim = self.receipt["dim"] if self.receipt else self.settings.dim(classes)
        floor = view != modality
        return EncoderEntry(modality, name, self.settings.encoder, dim, self.settings.learns, floor=floor)


def foresee_encoders(
    config: RunConfig,
    dataset_entries: Sequence[ShardEntry],
    classes: Sequence[str],
    modalities: Mapping[str, Json],
    store: Store,
) -> list[tuple[EncoderEntry | None, list[Step]]]:
    """Per view of `config.encoders` its encoder (None: unknown before the shards are made) and the steps.

    The first step is the encoder's, the others those of each shard's vectors, in order. `modalities` are the
    settings that members are stored with. Reads receipts and listings only, and indexes where rows have groups.
    """
    found = []
    for view, (modality, _) in config.encoders.items():
        plan = plan_encoder(config, dataset_entries, classes, view, modalities[modality], store)
        steps = _steps(plan, dataset_entries, view, modality, store)
        found.append((plan.entry(view, modality, len(classes)), steps))
    return found


def plan_encoder(  # noqa: PLR0917
    config: RunConfig,
    entries: Sequence[ShardEntry],
    classes: Sequence[str],
    view: str,
    stored: Json,
    store: Store,
) -> EncoderPlan:
    """The encoder that `view` gets: the one trained on just these data, one that `refit` lets stand, or a new one."""
    modality, settings = config.encoders[view]
    recipe = _recipe(config, entries, classes, view, stored, store)
    exact = _receipt(store, digest(recipe)) if recipe else None
    if exact is not None and _whole(store, exact):
        return EncoderPlan(settings, recipe, exact, "trained here already" if settings.learns else "opened before")
    receipts = [other for name in store.folders(FOLDER) if (other := _receipt(store, name))]
    others = [other for other in receipts if other["recipe"].get("name") == view]
    wanted = recipe or _recipe(config, [], classes, view, stored, store)
    samples = sum(_samples(entry, modality) for entry in entries if entry.split == "train")
    whole = [other for other in others if _whole(store, other)]
    standing, why_not = None, ""
    if isinstance(settings, TrainedEncoder):
        standing, why_not = choose_standing(settings, wanted, entries, modality, samples, whole, store)
    if standing and isinstance(settings, TrainedEncoder):
        reason = "kept" if settings.refit == "never" else f"kept: {_grown(standing, samples)}"
        return EncoderPlan(settings, recipe, standing, f"{reason} (refit: {_refit(settings)})")
    if why_not == UNKNOWN:
        return EncoderPlan(settings, None, None, UNKNOWN)
    if exact is not None:
        return EncoderPlan(settings, recipe, None, "file missing or truncated")
    alike = [other["recipe"] for other in others]
    if not alike:
        reason = "new"
    elif recipe is None:
        reason = UNKNOWN
    else:
        reason = why_not or min(("; ".join(_differences(old, recipe, modality)) for old in alike), key=len)
    return EncoderPlan(settings, recipe, None, reason)


def checkpoints_of(encoder: str) -> str:
    """The folder in which the trainings of the encoder with this digest leave their states."""
    return f"{FOLDER}/{encoder}/checkpoints"


def held_out_views(settings: EncoderSettings, entries: Sequence[ShardEntry], modality: str) -> dict[str, bool]:
    """The views that are known, each with whether it is to be scores of models that did not learn from its rows."""
    views = {entry.views[modality]: settings.holds_out and entry.split == "train" for entry in entries}
    return {view: held_out for view, held_out in views.items() if view is not None}


def weights_of(receipt: Receipt | None) -> str:
    """The hash that names an encoder's weights, whatever they were learned from; all that learn nothing have one."""
    return digest([file["sha256"] for file in receipt["files"]] if receipt else [])


def _recipe(  # noqa: PLR0917
    config: RunConfig,
    entries: Sequence[ShardEntry],
    classes: Sequence[str],
    view: str,
    stored: Json,
    store: Store,
) -> Json | None:
    """All that determines the encoder's weights; None where a view or label is not known yet."""
    modality, settings = config.encoders[view]
    splits = ("train", "val") if settings.learns and settings.validates else ("train",) if settings.learns else ()
    of_split = {split: [entry for entry in entries if entry.split == split] for split in splits}
    learned_from = [entry for found in of_split.values() for entry in found]
    if any(entry.views[modality] is None for entry in learned_from):
        return None
    if settings.reads_labels and any(entry.labels is None for entry in learned_from):
        return None
    # Which rows are held out together follows from groups; only then is it worth reading the indexes.
    grouped = of_split["train"] if settings.holds_out and config.data.columns.group is not None else None
    if any(entry.index is None for entry in grouped or ()):
        return None
    # The others run on the CPU, and their sums do not depend on how many threads there are.
    device = device_of(config.compute) if settings.on_device else None
    recipe: dict[str, Json] = {
        "kind": "encoder",
        "settings": settings.recipe(),
        "name": view,
        "modality": stored,
        "sources": dict(settings.sources()),
        "classes": list(classes) if settings.reads_labels else [],
        "threads": config.compute.threads if device else None,
        "device": device,
        "precision": precision_of(config.compute, device) if device and settings.half_precision else None,
    }
    if settings.learns:
        recipe |= {split: [entry.views[modality] for entry in found] for split, found in of_split.items()}
    if settings.reads_labels:
        recipe["labels"] = [entry.labels for entry in learned_from]
    elif settings.learns:
        # Labels would tell which keys nothing is learned from.
        recipe["removed"] = [digest(list(entry.removed)) if entry.removed else "" for entry in learned_from]
    if settings.holds_out:
        recipe["groups"] = None if grouped is None else [name_groups(store, entry) for entry in grouped]
    return recipe


def name_groups(store: Store, entry: ShardEntry) -> str:
    """Names which group each row of a shard is of."""
    from mmcore.shards.read import read_index

    index = read_index(store, entry)
    return digest(index["group"].to_pylist() if "group" in index.column_names else None)


def _grown(standing: Receipt, samples: int) -> str:
    before = standing["samples"]["train"]
    return f"{samples - before:+,} of {before:,} training samples"


def _refit(settings: TrainedEncoder) -> str:
    return settings.refit if isinstance(settings.refit, str) else f"{settings.refit:.0%}"


def _differences(old: Json, new: Json, modality: str) -> list[str]:
    """What is not the same about two recipes, in a person's words."""
    before, after = old["settings"], new["settings"]
    found = []
    if before["encoder"] != after["encoder"]:
        found.append(f"encoder changed: {before['encoder']} -> {after['encoder']}")
    else:
        changed = [name for name in after if name != "version" and before.get(name) != after[name]]
        found += [f"settings changed: {name} {before.get(name)} -> {after[name]}" for name in changed]
        if not changed and before != after:
            found.append(f"mmcore's code for {after['encoder']} changed")
    if old["modality"] != new["modality"]:
        found.append(f"how {modality} is stored changed")
    if old["classes"] != new["classes"]:
        found.append("classes changed")
    if old["threads"] != new["threads"]:
        found.append(f"compute.threads changed: {old['threads']} -> {new['threads']}")
    if old["device"] != new["device"]:
        found.append(f"device changed: {old['device']} -> {new['device']}")
    if old["precision"] != new["precision"]:
        found.append(f"precision changed: {old['precision']} -> {new['precision']}")
    if old["sources"] != new["sources"]:
        found.append("the model's files changed")
    found += [f"{modality} of {split} changed" for split in ("train", "val") if old.get(split) != new.get(split)]
    if old.get("groups") != new.get("groups"):
        found.append("groups changed")
    if old.get("removed") != new.get("removed"):
        found.append("other duplicates removed")
    labels, now = old.get("labels", []), new.get("labels", [])
    if old["classes"] == new["classes"] and len(labels) == len(now):
        found += filter(None, [labels_change(labels, now)])
    return found or ["labels changed"]


def _steps(plan: EncoderPlan, entries: Sequence[ShardEntry], of: str, modality: str, store: Store) -> list[Step]:
    samples = sum(_samples(entry, modality) for entry in entries if entry.split == "train")
    action: Literal["reuse", "compute"] = "reuse" if plan.receipt else "compute"
    steps = [Step("extract", f"{of} encoder", action, plan.reason, plan.digest, samples)]
    known = held_out_views(plan.settings, entries, modality)
    settled = plan.digest if plan.receipt or not plan.settings.learns else None
    states = finished_views(store, settled, known, weights_of(plan.receipt)) if settled else {}
    reasons = {
        "damaged": "file missing or truncated",
        "stale": "made by other weights",
        "moved": "made for another split",
    }
    numbers: dict[str, int] = {}
    for entry in entries:
        numbers[entry.split] = numbers.get(entry.split, 0) + 1
        name, view = f"{of} {entry.split} {numbers[entry.split]}", entry.views[modality]
        state, _ = states.get(view or "", ("", None))
        if state == "finished":
            steps.append(Step("extract", name, "reuse", "finished", view, entry.samples))
            continue
        if view is None:
            reason = "follows from a shard that is not made yet"
        elif settled is None:
            reason = f"the {of} encoder is trained first"
        else:
            reason = reasons.get(state, "new")
        steps.append(Step("extract", name, "compute", reason, view, entry.samples))
    return steps


def _samples(entry: ShardEntry, modality: str) -> int:
    return entry.present.get(modality, entry.samples)


def _receipt(store: Store, encoder: str) -> Receipt | None:
    """The receipt of a finished encoder; None where there is none that can be read."""
    try:
        receipt = store.read_json(f"{FOLDER}/{encoder}/receipt.json")
    except (FileNotFoundError, DamagedError):
        return None
    return receipt if isinstance(receipt, dict) and digest(receipt.get("recipe")) == encoder else None


def _whole(store: Store, receipt: Receipt) -> bool:
    return all(store.intact(DataFile(**file)) for file in (*receipt["files"], *receipt["keys"].values()))
