"""Every fusion method is asked everything, with modalities missing in train and test: no crash, no NaN."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from mmcore.config.metrics import METRICS
from mmcore.evaluation.robustness import MISSING_SHARES, NOISE_LEVELS
from mmcore.evaluation.scores import score_model
from mmcore.fusion.data import LabelledViews, View, Views
from tests.fusion.conftest import METHODS, made


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict | list):
        return [number for one in (value.values() if isinstance(value, dict) else value) for number in _numbers(one)]
    return [value] if isinstance(value, float) else []


def _with_labels(rows: LabelledViews, task: str) -> LabelledViews:
    """The same rows for another task, told by the same class."""
    codes = np.unique(rows.labels, return_inverse=True)[1]
    labels = {
        "classes": rows.labels,
        "multilabel": np.stack([codes == 0, codes != 1], axis=1).astype(int),
        "regression": 3.0 * codes - 40,
    }[task]
    return LabelledViews(rows.views, labels, rows.keys)


@pytest.mark.parametrize("task", METRICS)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_asked_everything(name: str, task: str) -> None:
    model = METHODS[name]()
    if task not in model.tasks:
        pytest.skip(f"{name} does not learn {task}")
    model.set_params(task=task)
    train, val, test = (_with_labels(made(n, seed, missing=0.3), task) for n, seed in ((120, 0), (45, 1), (45, 2)))
    # A row with nothing, and a modality that no row has.
    nothing = {n: View(v.values, v.present & (np.arange(45) != 7)) for n, v in test.views.items()}
    model.fit(train.views, train.labels, validation=val)
    for views in (Views(nothing), Views(nothing).without("text")):
        scored = score_model(model, LabelledViews(views, test.labels, test.keys), instances=True)
        uses = scored.scores["uses"]
        assert len(uses["missing"]["scores"]) == len(MISSING_SHARES)
        assert len(uses["noise"]["scores"]) == len(NOISE_LEVELS)
        assert all(math.isfinite(number) for number in _numbers(scored.scores))
        assert np.isfinite(scored.missing_scores).all()
        assert uses["missing"]["scores"][0] == pytest.approx(scored.scores["overall"]["score"], abs=1e-5)
        assert uses["noise"]["scores"][0] == pytest.approx(scored.scores["overall"]["score"], abs=1e-5)
        shares = uses["shapley"]
        assert sum(shares["values"].values()) == pytest.approx(shares["full"] - shares["nothing"], abs=1e-5)
        json.dumps(scored.scores, allow_nan=False)
