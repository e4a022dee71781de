"""A whole run made by hand: real fusion models and scores on random features, and every record beside them."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mmcore.config import RunConfig
from mmcore.evaluation.evaluate import leaderboard, publish_evaluation
from mmcore.evaluation.metrics import accuracy, confusion_matrix, log_loss, macro_f1
from mmcore.fusion.base import FusionModel
from mmcore.fusion.concat import ConcatFusion
from mmcore.fusion.data import LabelledViews, View, Views
from mmcore.fusion.late import LateFusion
from mmcore.records import DataFile, Dataset, EvaluationEntry, ModelEntry, Reject, ShardEntry, count_by, digest
from mmcore.storage import Store

KINDS = {"image": "cnn", "audio": "logmel-cnn", "text": "ngram"}
DIGITS = ("eight", "five", "four", "nine", "one", "seven", "six", "three", "two", "zero")
ENCODER_ACCURACY = {
    "image": {"train": 0.99, "val": 0.98},
    "audio": {"train": 1.0, "val": 0.81},
    "text": {"train": 0.9, "train_held_out": 0.86, "val": 0.85},
}
STRENGTH = {"image": 1.6, "audio": 0.55, "text": 0.95}


def make_rows(seed: int, n: int, classes: tuple[str, ...], modalities: tuple[str, ...], share: float) -> LabelledViews:
    """Random views around one centre per class; each modality is present in `share` of the rows."""
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(len(classes)), rng.integers(len(classes), size=max(0, n - len(classes)))])
    views = {}
    for number, name in enumerate(modalities):
        centres = np.random.default_rng(100 + number).normal(size=(len(classes), 8)) * STRENGTH[name]
        present = rng.random(len(codes)) < share
        views[name] = View((centres[codes] + rng.normal(size=(len(codes), 8))).astype(np.float32), present)
    keys = np.array([f"row-{i:05d}" for i in range(len(codes))])
    return LabelledViews(Views(views), np.array(classes)[codes], keys)


def make_run(
    store: Store,
    *,
    classes: tuple[str, ...] = DIGITS,
    modalities: tuple[str, ...] = ("image", "audio", "text"),
    rejects: tuple[Reject, ...] = (),
    pairing: str = "class",
    shared_space: bool = True,
    n: int = 400,
    name: str = "digits",
) -> dict[str, Any]:
    """Publish what a finished run leaves behind; the record that the flow would write."""
    config = RunConfig.model_validate(
        {
            "name": name,
            "data": {
                "manifest": "manifest.csv",
                "pairing": pairing,
                "modalities": {m: {"kind": m, "column": m} for m in modalities},
            },
            "features": {m: {"encoder": KINDS[m]} for m in modalities},
            "fusion": {"methods": ["concat", "late"] if shared_space else ["concat"]},
            "output": store.root,
        }
    )
    train, val, test = (make_rows(s, n, classes, modalities, 0.92) for s in (1, 2, 3))
    dataset = _dataset(config, classes, {"train": train, "val": val, "test": test}, rejects)
    store.publish_json(f"datasets/{dataset.digest}.json", dataset.as_json())
    models: list[tuple[str, str, bool, FusionModel]] = [("concat", "concat", False, ConcatFusion(C=0.1))]
    if len(modalities) > 1:
        models += [(f"only-{m}", "late", True, LateFusion(C=0.1, modalities=[m])) for m in modalities]
        models += [("late", "late", True, LateFusion(C=0.1))] if shared_space else []
    entries, evaluations = [], []
    for model_name, method, baseline, model in models:
        model.fit(train.views, train.labels, validation=val)
        entry = _model(store, model_name, method, model, (dataset.digest, val), baseline=baseline)
        recipe = {"model": entry.digest, "instances": pairing == "instance"}
        publish_evaluation(store, recipe, model, test)
        entries.append(entry)
        evaluations.append(EvaluationEntry(model_name, digest(recipe)))
    return {
        "run_id": f"{name}-9f31c2",
        "name": name,
        "state": "finished",
        "config": config.model_dump(mode="json"),
        "started": "2026-11-23T21:30:04+00:00",
        "finished": "2026-11-23T21:31:12+00:00",
        "seconds": {"prepare": 6.1, "extract": 31.4, "train": 24.8, "evaluate": 2.2},
        "counts": {s: {"computed": 8 + 3 * i, "reused": i} for i, s in enumerate(("prepare", "extract", "train"))},
        "dataset": dataset.digest,
        "encoders": [_encoder(store, m) for m in modalities],
        "models": [{**asdict(entry), "val_scores": dict(entry.val_scores)} for entry in entries],
        "evaluations": [asdict(entry) for entry in evaluations],
        "leaderboard": leaderboard(config, entries, evaluations, store),
        "versions": {"python": "3.11.7", "mmcore": "0.1.0", "torch": "2.13.0"},
        "host": {"name": "lab-3", "pid": 4711, "platform": "Linux"},
        "ui_url": None,
    }


def _model(
    store: Store, name: str, method: str, model: FusionModel, data: tuple[str, LabelledViews], *, baseline: bool
) -> ModelEntry:
    learned_from, val = data
    settings = {**model.get_params(), "version": 1}
    recipe = {"kind": "model", "settings": settings, "data": learned_from, "seed": 0, "threads": 1}
    recipe["features"] = {m: {"encoder": f"encoder-of-{m}", "train": ["a"], "val": ["b"]} for m in val.views}
    folder = f"models/{digest(recipe)}"
    with tempfile.TemporaryDirectory() as saved:
        model.save(saved)
        files = [store.publish_file(f, f"{folder}/{f.name}") for f in sorted(Path(saved).iterdir())]
    sizes = {"parameters": 1_310, "size_bytes": sum(f.size_bytes for f in files), "handles_missing": "native"}
    store.publish_json(f"{folder}/receipt.json", {"recipe": recipe, "files": [f.as_json() for f in files], **sizes})
    store.publish_json(f"{folder}/costs.json", {"fit_seconds": 1.25, "peak_bytes": 12_000_000, "resumed": False})
    proba, truth = model.predict_proba(val.views), model.label_codes(val.labels)
    predicted = proba.argmax(axis=1)
    scores = {
        "log_loss": log_loss(truth, proba),
        "accuracy": accuracy(truth, predicted),
        "macro_f1": macro_f1(confusion_matrix(truth, predicted, len(model.classes_))),
    }
    return ModelEntry(name, method, digest(recipe), scores, baseline)


def _encoder(store: Store, modality: str) -> dict[str, Any]:
    recipe = {"kind": "encoder", "settings": {"encoder": KINDS[modality], "dim": 64}, "seed": 0, "threads": 1}
    name = digest({**recipe, "modality": modality})
    epochs = np.arange(24)
    rng = np.random.default_rng(len(modality))
    curves = {
        "train_loss": (2.2 * np.exp(-epochs / 4) + 0.03 + 0.01 * rng.random(24)).tolist(),
        "val_loss": (1.9 * np.exp(-epochs / 5) + 0.25 + 0.012 * epochs + 0.05 * rng.random(24)).tolist(),
        "best_epoch": 14,
        "stopped_early": True,
    }
    scores = {split: {"accuracy": accuracy} for split, accuracy in ENCODER_ACCURACY[modality].items()}
    receipt = {"recipe": recipe, "curves": curves if modality != "text" else {}, "scores": scores, "files": []}
    store.publish_json(f"encoders/{name}/receipt.json", receipt)
    return {"modality": modality, "digest": name, "name": KINDS[modality], "dim": 64, "trained": True}


def _dataset(
    config: RunConfig, classes: tuple[str, ...], splits: dict[str, LabelledViews], rejects: tuple[Reject, ...]
) -> Dataset:
    shards, facts = [], {}
    for split, rows in splits.items():
        present = {name: int(view.present.sum()) for name, view in rows.views.items()}
        name = digest([split, config.name])
        file = DataFile(f"shards/{name}.tar", name, 1_234_567)
        shards.append(ShardEntry(name, split, len(rows), dict.fromkeys(present, name), name, present, file, file))
        facts[split] = {"samples": len(rows), "classes": count_by(rows.labels.tolist()), "present": present}
    kept = sum(len(rows) for rows in splits.values())
    whole = sum(int(np.all([v.present for _, v in rows.views.items()], axis=0).sum()) for rows in splits.values())
    lost = sum(not reject.modality for reject in rejects)
    return Dataset(
        tuple(shards),
        rejects,
        kept + lost,
        tuple(sorted(classes)),
        {name: settings.recipe() for name, settings in config.data.modalities.items()},
        {"kept_whole": whole, "kept_partly": kept - whole, "rejected": lost, "splits": facts},
    )
