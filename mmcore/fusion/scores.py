"""The scores that a model is chosen by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import f1_score

from mmcore.fusion.data import LabelledViews

if TYPE_CHECKING:
    from mmcore.fusion.base import FusionModel


def validation_scores(model: FusionModel, rows: LabelledViews) -> dict[str, float]:
    """`log_loss` (natural), `accuracy`, and `macro_f1` over the classes among labels or predictions."""
    codes = model.label_codes(rows.labels)
    log_proba = model.predict_log_proba(rows.views)
    predicted = log_proba.argmax(axis=1)
    return {
        "log_loss": float(-log_proba[np.arange(len(codes)), codes].mean()),
        "accuracy": float((predicted == codes).mean()),
        "macro_f1": float(f1_score(codes, predicted, average="macro", zero_division=0.0)),
    }
