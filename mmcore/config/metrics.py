"""What models are scored by, per task: names, directions, and words for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Task = Literal["classes", "multilabel", "regression"]

MetricName = Literal[
    "accuracy",
    "macro_f1",
    "log_loss",
    "sample_f1",
    "subset_accuracy",
    "label_accuracy",
    "micro_f1",
    "mean_average_precision",
    "r2",
    "rmse",
    "mae",
]

METRICS: Mapping[str, tuple[MetricName, ...]] = {
    "classes": ("accuracy", "macro_f1", "log_loss"),
    "multilabel": (
        "sample_f1",
        "subset_accuracy",
        "label_accuracy",
        "micro_f1",
        "macro_f1",
        "mean_average_precision",
        "log_loss",
    ),
    "regression": ("r2", "rmse", "mae"),
}
"""The first of each task is its headline: the mean of one score per row, so that it has an interval, paired tests and
curves, and higher is better."""

CHOSEN_BY: Mapping[str, MetricName] = {"classes": "log_loss", "multilabel": "log_loss", "regression": "rmse"}
"""What the best method is chosen by, on the validation split, where nothing else is set."""

LOWER_IS_BETTER = frozenset({"log_loss", "rmse", "mae"})

METRIC_WORDS: Mapping[str, str] = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "log_loss": "log loss",
    "sample_f1": "F1 per row",
    "subset_accuracy": "exact match",
    "label_accuracy": "label accuracy",
    "micro_f1": "micro F1",
    "mean_average_precision": "mAP",
    "r2": "R\N{SUPERSCRIPT TWO}",
    "rmse": "RMSE",
    "mae": "MAE",
}


def headline(task: str) -> MetricName:
    """The metric of this task that intervals, comparisons and curves are about."""
    return METRICS[task][0]
