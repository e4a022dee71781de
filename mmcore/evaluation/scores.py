"""All scores of one fusion model on labelled rows: what `scores.json` holds."""

from __future__ import annotations

from dataclasses import asdict
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from mmcore.evaluation.metrics import (
    Array,
    accuracy,
    calibration,
    confusion_matrix,
    log_loss,
    macro_f1,
    wilson_interval,
)
from mmcore.evaluation.retrieval import MAX_QUERIES, retrieval_by_class, retrieval_by_instance
from mmcore.records import Json

if TYPE_CHECKING:
    from mmcore.fusion.base import FusionModel, SharedSpace
    from mmcore.fusion.data import LabelledViews, Views

RECALL_AT = (1, 5, 10)

BY_CLASS = (
    f"Every test row that has the first modality asks (of more than {MAX_QUERIES:,}, so many evenly spaced ones), "
    "every test row that has the second one is an item, the asking row's own other half included; near means cosine "
    "similarity in the shared space. Recall@k is the share of queries with at least one item of their class among "
    "the k nearest; mAP is the mean over queries of average precision over all items. Chance is the Recall@1 of a "
    "random order."
)
BY_INSTANCE = (
    "Only the asking row's own other half is right; equally near items share the mean of their ranks. "
    "Rows that have both modalities ask."
)


def score_model(model: FusionModel, rows: LabelledViews, *, instances: bool) -> tuple[dict[str, Json], Array]:
    """The scores of `model` on `rows` as JSON, and its probabilities (n, classes) in the order of `classes_`.

    With `instances` a row's modalities are one thing, so that retrieval is also scored by instance.
    Raises FusionError for a label that the model did not learn.
    """
    views = rows.views.only(list(model.view_shapes_))
    truth = model.label_codes(rows.labels)
    proba = model.predict_proba(views)
    error, bins = calibration(truth, proba)
    scores: dict[str, Json] = {
        "n": len(truth),
        "classes": [str(name) for name in model.classes_],
        "modalities": list(model.modalities_),
        "overall": summary(truth, proba),
        "most_common_class": float(np.bincount(truth).max() / len(truth)),
        "nothing_present": int(model.unknown(views).sum()),
        "confusion": confusion_matrix(truth, proba.argmax(axis=1), len(model.classes_)).tolist(),
        "alone": _alone(model, views, truth),
        "without": _without(model, views, truth),
        "patterns": _by_pattern(rows.views, truth, proba),
        "calibration": {"expected_error": error, "bins": [asdict(one) for one in bins]},
        "retrieval": None,
    }
    if hasattr(model, "transform") and len(model.modalities_) > 1:
        scores["retrieval"] = _retrieval(model, views, truth, instances=instances)
    return scores, proba


def summary(truth: Array, proba: Array) -> dict[str, Json]:
    """n, accuracy with its 95% Wilson interval, macro F1 and log loss of some rows (at least one)."""
    predicted = proba.argmax(axis=1)
    low, high = wilson_interval(int(np.sum(truth == predicted)), len(truth))
    return {
        "n": len(truth),
        "accuracy": accuracy(truth, predicted),
        "low": low,
        "high": high,
        "macro_f1": macro_f1(confusion_matrix(truth, predicted, proba.shape[1])),
        "log_loss": log_loss(truth, proba),
    }


def _alone(model: FusionModel, views: Views, truth: Array) -> dict[str, Json]:
    """Each modality with the others hidden: on all rows, and on those that have it (None where none has)."""
    found: dict[str, Json] = {}
    for name in model.modalities_:
        proba = model.predict_proba(views.without(*(other for other in views if other != name)))
        has = views[name].present
        found[name] = {
            "all": summary(truth, proba),
            "present": summary(truth[has], proba[has]) if has.any() else None,
        }
    return found


def _without(model: FusionModel, views: Views, truth: Array) -> dict[str, Json]:
    """All rows with one modality hidden; nothing for a model of one modality."""
    if len(model.modalities_) < 2:
        return {}
    return {name: summary(truth, model.predict_proba(views.without(name))) for name in model.modalities_}


def _by_pattern(views: Views, truth: Array, proba: Array) -> list[dict[str, Json]]:
    """Accuracy for every set of modalities that rows have, most frequent first."""
    # Not in the order of the configuration, which is no part of what names these scores.
    names = sorted(views)
    present = np.stack([views[name].present for name in names], axis=1)
    patterns, which, counts = np.unique(present, axis=0, return_inverse=True, return_counts=True)
    found = []
    for p in np.argsort(-counts, kind="stable"):
        mine = which.reshape(-1) == p
        one = summary(truth[mine], proba[mine])
        has = [name for name, there in zip(names, patterns[p], strict=True) if there]
        found.append({"present": has, **{field: one[field] for field in ("n", "accuracy", "low", "high")}})
    return found


def _retrieval(model: SharedSpace, views: Views, truth: Array, *, instances: bool) -> dict[str, Json]:
    points = model.transform(views)
    rows = np.arange(len(truth))
    pairs = []
    for asked, sought in permutations(model.modalities_, 2):
        q, i = views[asked].present, views[sought].present
        by_class = retrieval_by_class(points[asked][q], truth[q], points[sought][i], truth[i], RECALL_AT)
        pair: dict[str, Json] = {"query": asked, "item": sought, "class": asdict(by_class) if by_class else None}
        if instances:
            own = retrieval_by_instance(points[asked][q], rows[q], points[sought][i], rows[i], RECALL_AT)
            pair["instance"] = asdict(own) if own else None
        pairs.append(pair)
    definition = {"class": BY_CLASS} | ({"instance": BY_INSTANCE} if instances else {})
    return {"ks": list(RECALL_AT), "max_queries": MAX_QUERIES, "definition": definition, "pairs": pairs}
