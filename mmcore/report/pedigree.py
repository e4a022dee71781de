"""Where a number comes from: run, evaluation, model, features, shards, manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmcore.records import SPLITS, Json, floor_of
from mmcore.report.gather import Findings
from mmcore.storage import Store

HOW = ("seed", "threads", "processes", "device", "precision")
"""What of a recipe says how something was computed."""
SHOWN_SHARDS = 100
"""Shards listed by name; the rest are in the data set's file."""


@dataclass(frozen=True)
class Item:
    """One output: what it is, its digest or place, and facts that open on demand."""

    name: str
    digest: str
    note: str = ""
    facts: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Link:
    """One step of the chain, and what it was made from below it."""

    title: str
    where: str
    """Its place in the store."""
    items: Sequence[Item]
    more: str = ""


def pedigree(store: Store, found: Findings) -> list[Link]:
    """The chain from the run down to the files that the user gave."""
    run = found.run
    chain = [Link("Run", "runs/", [Item(str(run.get("run_id", "")), store.root, "output root")])]
    if found.evaluations:
        models = {entry["name"]: f"models/{entry['digest']}" for entry in found.models}
        items = [
            Item(name, digest, _scored(found, name), [("model", models[name])] if name in models else ())
            for name, digest in found.evaluations.items()
        ]
        chain.append(Link("Evaluations", "evaluations/", items))
    if found.models:
        chain.append(Link("Fusion models", "models/", [_trained(entry, entry["method"]) for entry in found.models]))
    if found.encoders:
        chain.append(
            Link("Encoders and features", "encoders/, features/", [_encoder(entry) for entry in found.encoders])
        )
    if found.dataset is not None:
        chain += [_dataset(found), _shards(found)]
    chain.append(_manifest(run))
    return chain


def flattened(value: Json, where: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, value in words)."""
    if isinstance(value, Mapping) and value:
        return [pair for name, inner in value.items() for pair in flattened(inner, f"{where}.{name}".lstrip("."))]
    if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        return [
            pair for number, inner in enumerate(value) for pair in flattened(inner, f"{where}.{number}".lstrip("."))
        ]
    return [(where, _words(value))]


def _words(value: Json) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(_words(one) for one in value) or "none"
    return "none" if value == {} else str(value)


def _scored(found: Findings, model: str) -> str:
    scores = found.scores.get(model)
    return f"{scores['n']:,} test rows" if scores else "its scores are no longer stored"


def _trained(entry: Mapping[str, Any], note: str) -> Item:
    recipe = (entry["receipt"] or {}).get("recipe") or {}
    settings = flattened(recipe.get("settings") or {})
    other = [(name, recipe[name]) for name in HOW if recipe.get(name) is not None]
    read = [
        (f"features of {name}", f"encoders/{part['encoder']}, {_learned_from(part)}")
        for name, part in (recipe.get("features") or {}).items()
    ]
    if entry.get("modality") and entry["trained"]:
        read = [("learned from", _learned_from(recipe))]
    elif entry.get("modality"):
        read = [(f"model {name}", value) for name, value in flattened(recipe.get("sources") or {})]
    files = [(file["path"], f"sha256 {file['sha256']}") for file in (entry["receipt"] or {}).get("files") or ()]
    facts = [*settings, *((name, _words(value)) for name, value in other), *read, *files]
    note = f"{note}, baseline" if entry.get("baseline") else note
    if failed := (entry["receipt"] or {}).get("failed"):
        note = f"{note}, left out: {failed}"
    return Item(entry.get("name", ""), entry["digest"], note, facts)


def _learned_from(recipe: Mapping[str, Any]) -> str:
    """How many shards' views, as `views of 6 train and 2 val shards`."""
    train, val = (len(recipe.get(split) or ()) for split in ("train", "val"))
    return f"views of {train:,} train and {val:,} val shards"


def _encoder(entry: Mapping[str, Any]) -> Item:
    made = "trained here" if entry["trained"] else "not trained here"
    item = _trained(entry, f"{entry['name']}, {entry['dim']} wide, {made}")
    name = floor_of(entry["modality"]) if entry.get("floor") else entry["modality"]
    return Item(name, item.digest, item.note, item.facts)


def _dataset(found: Findings) -> Link:
    dataset = found.dataset
    assert dataset is not None
    facts = [pair for name, one in dataset.modalities.items() for pair in flattened(one, name)]
    note = f"{len(dataset.classes):,} classes, {dataset.rows:,} rows"
    return Link("Data set", "datasets/", [Item(", ".join(dataset.modalities), str(found.run["dataset"]), note, facts)])


def _shards(found: Findings) -> Link:
    dataset = found.dataset
    assert dataset is not None
    items = [
        Item(f"{split} {number}", shard.recipe, f"{shard.samples:,} samples", _files(shard.tar, shard.index))
        for split in SPLITS
        for number, shard in enumerate(dataset.of(split), 1)
    ]
    left = len(items) - SHOWN_SHARDS
    more = f"and {left:,} more, listed in datasets/{found.run['dataset']}.json" if left > 0 else ""
    return Link("Shards", "shards/", items[:SHOWN_SHARDS], more)


def _files(*files: Any) -> list[tuple[str, str]]:
    return [(file.path, f"{file.size_bytes:,} bytes, sha256 {file.sha256}") for file in files if file is not None]


def _manifest(run: Mapping[str, Any]) -> Link:
    data = (run.get("config") or {}).get("data") or {}
    named = data.get("manifest") or []
    files: Iterable[str] = [named] if isinstance(named, str) else named
    root = data.get("root")
    columns = flattened(data.get("columns") or {}, "columns")
    return Link(
        "Manifest", "your files", [Item("", str(file), f"root {root}" if root else "", columns) for file in files]
    )
