"""All scores of one fusion model on labelled rows: what `scores.json` holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from mmcore.config.metrics import headline
from mmcore.evaluation.intervals import group_note
from mmcore.evaluation.judge import Judge
from mmcore.evaluation.masking import Masked, ScoreRows
from mmcore.evaluation.metrics import Array, calibration, confusion_matrix
from mmcore.evaluation.retrieval import MAX_QUERIES, retrieval_by_class, retrieval_by_instance
from mmcore.evaluation.robustness import missing_curve, missing_scores, noise_curve
from mmcore.evaluation.uses import shapley_shares, shuffle_loss, shuffled_scores
from mmcore.fusion.data import LabelledViews, Views
from mmcore.records import Json

if TYPE_CHECKING:
    from mmcore.fusion.base import FusionModel, SharedSpace

RECALL_AT = (1, 5, 10)

MOST_PROBED = 2_000
"""Of more rows than this, so many evenly spaced ones are shuffled, hidden and disturbed: each is predicted dozens of
times."""

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


@dataclass(frozen=True)
class Scored:
    """A model's scores as JSON, what it predicted, and what that took."""

    scores: dict[str, Json]
    predictions: Array
    """Probabilities (n, classes) or (n, labels) in the order of `classes_`, or numbers (n,)."""
    row_scores: Array
    """(n,), whose mean is the headline metric."""
    missing_scores: Array | None
    """(shares, n): of `robustness.missing_scores`, NaN for rows not probed; None where nothing can go missing."""
    costs: dict[str, Json]
    """`predicted_rows` and `predict_seconds` as measured: no part of the scores."""


def score_model(model: FusionModel, rows: LabelledViews, *, instances: bool, groups: Array | None = None) -> Scored:
    """The scores of `model` on `rows`, all of them labelled.

    With `instances` a row's modalities are one thing, so that retrieval is also scored by instance. `groups` (n,) of
    int: rows of one group are drawn together where an interval draws rows.
    Raises FusionError for a label that the model did not learn.
    """
    judge = Judge(model, rows, groups)
    predictions = judge.predictions(rows.views)
    per_row = judge.row_scores(predictions)
    uses, missing = _uses(judge)
    scores: dict[str, Json] = {
        "task": judge.task,
        "headline": headline(judge.task),
        "n": len(judge),
        "classes": [str(name) for name in model.classes_],
        "modalities": list(model.modalities_),
        "handles_missing": model.handles_missing,
        "contains_training_rows": bool(model.contains_training_rows),
        "overall": {**judge.summary(predictions), **judge.headline(per_row)},
        "nothing_present": int(model.unknown(rows.views.only(list(model.view_shapes_))).sum()),
        "groups": None if groups is None else {"n": len(np.unique(groups)), "note": group_note(groups)},
        "alone": _alone(judge),
        "without": _without(judge),
        "patterns": _by_pattern(judge, per_row),
        "uses": uses,
        "retrieval": _retrieval(model, judge, instances=instances),
        **(_of_classes(judge, predictions) if judge.task == "classes" else {}),
    }
    costs = {"predicted_rows": judge.predicted_rows, "predict_seconds": round(judge.seconds, 4)}
    return Scored(scores, predictions, per_row, missing, costs)


def _of_classes(judge: Judge, proba: Array) -> dict[str, Json]:
    """What only makes sense of rows that each have one class."""
    truth = judge.truth
    error, bins = calibration(truth, proba)
    return {
        "most_common_class": float(np.bincount(truth).max() / len(truth)),
        "confusion": confusion_matrix(truth, proba.argmax(axis=1), proba.shape[1]).tolist(),
        "calibration": {"expected_error": error, "bins": [asdict(one) for one in bins]},
    }


def _alone(judge: Judge) -> dict[str, Json]:
    """Each modality with the others hidden: on all rows, and on those that have it (None where none has)."""
    found: dict[str, Json] = {}
    views = judge.rows.views
    for name in judge.model.modalities_:
        predictions = judge.predictions(views.without(*(other for other in views if other != name)))
        has = views[name].present
        found[name] = {
            "all": judge.summary(predictions),
            "present": judge.summary(predictions, has) if has.any() else None,
        }
    return found


def _without(judge: Judge) -> dict[str, Json]:
    """All rows with one modality hidden; nothing for a model of one modality."""
    names = judge.model.modalities_
    if len(names) < 2:
        return {}
    return {name: judge.summary(judge.predictions(judge.rows.views.without(name))) for name in names}


def _by_pattern(judge: Judge, scores: Array) -> list[dict[str, Json]]:
    """The mean score for every set of modalities that rows have, most frequent first."""
    # Not in the order of the configuration, which is no part of what names these scores.
    views = judge.rows.views
    names = sorted(views)
    present = np.stack([views[name].present for name in names], axis=1)
    patterns, which, counts = np.unique(present, axis=0, return_inverse=True, return_counts=True)
    found = []
    for p in np.argsort(-counts, kind="stable"):
        has = [name for name, there in zip(names, patterns[p], strict=True) if there]
        found.append({"present": has, **judge.headline(scores, which.reshape(-1) == p)})
    return found


def _uses(judge: Judge) -> tuple[dict[str, Json], Array | None]:
    """What the model makes of each modality, and how it bears their loss (of each row too) and noise."""
    n = len(judge)
    rows = np.arange(n) if n <= MOST_PROBED else np.linspace(0, n - 1, MOST_PROBED).round().astype(int)
    views, reads = judge.rows.views[rows], judge.model.modalities_

    def score(changed: Views, mine: Array) -> Array:
        return judge(changed, rows[mine])

    masked = Masked(score, views, reads)
    # Where the rows have one modality only, there is none to lose beside the one that stays.
    missing = missing_scores(masked) if len(masked.names) > 1 else None
    of_all = None
    if missing is not None:
        of_all = np.full((len(missing), n), np.nan)
        of_all[:, rows] = missing
    return {
        "n": len(rows),
        "shuffled": _shuffled(judge, masked, score, rows),
        "shapley": asdict(shapley_shares(masked, reads)),
        "missing": None if missing is None else asdict(missing_curve(missing)),
        "noise": asdict(noise_curve(score, views, reads)),
    }, of_all


def _shuffled(judge: Judge, masked: Masked, score: ScoreRows, rows: Array) -> dict[str, Json]:
    """Per modality the mean score with it shuffled across rows, and what that costs; None where it cannot be."""
    as_they_are = masked(np.ones((1, len(masked.names)), bool))
    groups = None if judge.groups is None else judge.groups[rows]
    found: dict[str, Json] = {}
    for name in judge.model.modalities_:
        scores = shuffled_scores(score, masked.views, name)
        found[name] = (
            scores
            if scores is None
            else {
                "score": float(scores.mean()),
                "loss": asdict(shuffle_loss(as_they_are, scores, groups)),
            }
        )
    return found


def _retrieval(model: FusionModel, judge: Judge, *, instances: bool) -> Json:
    """How one modality finds another in the model's shared space, if it has one: by class, by instance."""
    by_class, views = judge.task == "classes", judge.rows.views.only(list(model.view_shapes_))
    if not hasattr(model, "transform") or len(model.modalities_) < 2 or not (by_class or instances):
        return None
    space: SharedSpace = model
    points = space.transform(views)
    truth, rows = judge.truth, np.arange(len(judge))
    pairs = []
    for asked, sought in permutations(model.modalities_, 2):
        q, i = views[asked].present, views[sought].present
        pair: dict[str, Json] = {"query": asked, "item": sought, "class": None}
        if by_class:
            found = retrieval_by_class(points[asked][q], truth[q], points[sought][i], truth[i], RECALL_AT)
            pair["class"] = asdict(found) if found else None
        if instances:
            own = retrieval_by_instance(points[asked][q], rows[q], points[sought][i], rows[i], RECALL_AT)
            pair["instance"] = asdict(own) if own else None
        pairs.append(pair)
    definition = ({"class": BY_CLASS} if by_class else {}) | ({"instance": BY_INSTANCE} if instances else {})
    return {"ks": list(RECALL_AT), "max_queries": MAX_QUERIES, "definition": definition, "pairs": pairs}
