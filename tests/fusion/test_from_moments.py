"""A map from moments and a head from rows, against one fit from the same rows."""

from __future__ import annotations

import numpy as np
import pytest

from mmcore.errors import FusionError
from mmcore.fusion import from_moments
from mmcore.fusion.cca import CcaFusion
from mmcore.fusion.data import View, Views
from mmcore.fusion.from_moments import MomentsFusion
from mmcore.fusion.gcca import GccaFusion
from mmcore.fusion.moments import Moments
from mmcore.fusion.pls import PlsFusion
from mmcore.fusion.shared_factor import SharedFactorFusion
from tests.fusion.conftest import made

TRAIN, VAL = made(150, 0, 0.3), made(90, 1, 0.3)
EACH = pytest.mark.parametrize("make", [CcaFusion, GccaFusion, PlsFusion, SharedFactorFusion])
TARGETS = {
    "classes": lambda data: data.labels,
    "multilabel": lambda data: np.stack([data.labels == "a", data.labels != "b"], axis=1).astype(int),
    "regression": lambda data: np.array([{"a": 0.5, "b": 2.0, "c": -1.0}[label] for label in data.labels]),
}


@EACH
@pytest.mark.parametrize("task", TARGETS)
def test_with_all_rows_for_the_head_it_is_the_same_model(
    make: type[MomentsFusion], task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(from_moments, "ROWS_AT_ONCE", 17)
    y, held = TARGETS[task](TRAIN), (VAL.views, TARGETS[task](VAL))
    plain = make(n_components=3, C=1.0, task=task).fit(TRAIN.views, y, validation=held)
    found = make(n_components=3, C=1.0, task=task)
    found.fit_from_moments(Moments.of(TRAIN.views), TRAIN.views, y, validation=held)
    np.testing.assert_allclose(found.fuse(VAL.views), plain.fuse(VAL.views), atol=1e-7)
    outputs = [m.predict(VAL.views) if task == "regression" else m.predict_proba(VAL.views) for m in (found, plain)]
    np.testing.assert_allclose(*outputs, atol=1e-4)
    np.testing.assert_allclose(found.prior_, plain.prior_)


@EACH
def test_weights_count_in_the_map_and_in_the_head(make: type[MomentsFusion]) -> None:
    weights = np.random.default_rng(0).uniform(0.2, 2.0, len(TRAIN))
    plain = make(n_components=3, C=1.0).fit(TRAIN.views, TRAIN.labels, sample_weight=weights)
    found = make(n_components=3, C=1.0).fit_from_moments(
        Moments.of(TRAIN.views, weights), TRAIN.views, TRAIN.labels, sample_weight=weights
    )
    np.testing.assert_allclose(found.predict_proba(VAL.views), plain.predict_proba(VAL.views), atol=1e-4)


@EACH
def test_a_head_from_some_rows_reads_the_map_of_all(make: type[MomentsFusion]) -> None:
    labels = np.where(np.arange(len(TRAIN)) % 2, TRAIN.labels, None)
    plain = make(n_components=3, C=1.0).fit(TRAIN.views, labels)
    some = TRAIN[1::2]
    found = make(n_components=3, C=1.0).fit_from_moments(Moments.of(TRAIN.views), some.views, some.labels)
    np.testing.assert_allclose(found.predict_proba(VAL.views), plain.predict_proba(VAL.views), atol=1e-4)


def test_what_does_not_fit_is_refused() -> None:
    model = CcaFusion(n_components=2, C=1.0)
    moments = Moments.of(TRAIN.views)
    with pytest.raises(FusionError, match="unknown view 'video'"):
        model.fit_from_moments(moments, {"video": np.zeros((3, 2))}, ["a", "b", "a"])
    with pytest.raises(FusionError, match="view text: present in no training row"):
        model.fit_from_moments(Moments.of(TRAIN.views.without("text")), TRAIN.views, TRAIN.labels)
    values = TRAIN.views["audio"].values.copy()
    values[np.flatnonzero(TRAIN.views["audio"].present)[0], 1] = np.inf
    broken = Views({**dict(TRAIN.views.items()), "audio": View(values, TRAIN.views["audio"].present)})
    with np.errstate(invalid="ignore"), pytest.raises(FusionError, match="view audio: a row is marked present but"):
        model.fit_from_moments(Moments.of(broken), TRAIN.views, TRAIN.labels)
    with pytest.raises(FusionError, match="every labelled row lacks all views"):
        model.fit_from_moments(moments, TRAIN.views.without(*TRAIN.views), TRAIN.labels)
