"""Several labels, numbers, rows without a label, other domains; and methods of the user's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from mmcore.errors import FusionError
from mmcore.fusion.base import FitRun, FusionModel, Rows
from mmcore.fusion.concat import ConcatFusion
from mmcore.fusion.data import View, Views
from mmcore.fusion.impute import side_by_side
from mmcore.fusion.late import LateFusion
from tests.fusion.conftest import METHODS, UNINFORMED, made

TRAIN, VAL, TEST = made(240, 0, 0.3), made(120, 1, 0.3), made(120, 2)


def labels_of(rows) -> np.ndarray:
    """Two labels: not class a; class b or c with a view missing from neither."""
    return np.stack([rows.labels != "a", rows.labels == "b"], axis=1).astype(int)


def numbers_of(rows) -> np.ndarray:
    return 100.0 + 10 * (rows.labels == "b") + 30 * (rows.labels == "c")


def learned(name: str, task: str, target: Any) -> FusionModel:
    method = METHODS[name]().set_params(task=task)
    if task not in method.tasks:
        pytest.skip(f"{name} does not learn {task}")
    return method.fit(TRAIN.views, target(TRAIN), validation=(VAL.views, target(VAL)))


@pytest.mark.parametrize("name", METHODS)
def test_several_labels_are_predicted(name: str, tmp_path) -> None:
    model = learned(name, "multilabel", labels_of)
    truth, proba = labels_of(TEST), model.predict_proba(TEST.views)
    assert proba.shape == truth.shape
    assert ((proba >= 0) & (proba <= 1)).all()
    if name not in UNINFORMED:
        assert model.score(TEST.views, truth) > 0.7
        assert (model.predict(TEST.views) == truth).mean() > 0.85
    np.testing.assert_array_equal(model.predict(TEST.views), proba > 0.5)
    nothing = TEST.views.without(*TEST.views)
    np.testing.assert_allclose(model.predict_proba(nothing)[0], labels_of(TRAIN).mean(axis=0))
    model.save(tmp_path)
    np.testing.assert_array_equal(type(model).load(tmp_path).predict_proba(TEST.views), proba)


@pytest.mark.parametrize("name", METHODS)
def test_numbers_are_predicted_in_their_own_units(name: str, tmp_path) -> None:
    model = learned(name, "regression", numbers_of)
    predicted = model.predict(TEST.views)
    assert predicted.shape == (len(TEST),)
    if name not in UNINFORMED:
        assert model.score(TEST.views, numbers_of(TEST)) > 0.6
    nothing = TEST.views.without(*TEST.views)
    np.testing.assert_allclose(model.predict(nothing), numbers_of(TRAIN).mean())
    assert not hasattr(model, "predict_proba")
    model.save(tmp_path)
    np.testing.assert_array_equal(type(model).load(tmp_path).predict(TEST.views), predicted)


def test_named_labels_are_columns_in_the_order_of_their_names() -> None:
    names = [[name for name, there in (("zebra", row[0]), ("ant", row[1])) if there] for row in labels_of(TRAIN)]
    model = ConcatFusion(C=0.1, task="multilabel").fit(TRAIN.views, names)
    assert model.classes_.tolist() == ["ant", "zebra"]
    same = ConcatFusion(C=0.1, task="multilabel").fit(TRAIN.views, labels_of(TRAIN)[:, ::-1])
    np.testing.assert_array_equal(model.predict_proba(TEST.views), same.predict_proba(TEST.views))
    with pytest.raises(FusionError, match=r"\['wolf'\].*\['ant', 'zebra'\]"):
        model.score(TEST.views, [["wolf"]] * len(TEST))


@pytest.mark.parametrize(
    ("task", "y", "said"),
    [
        ("multilabel", ["a"] * 240, "list of names"),
        ("multilabel", np.full((240, 2), 3), "needs 0 and 1"),
        ("multilabel", np.zeros((2, 2)), "needs 0 and 1 of shape"),
        ("regression", ["a"] * 240, "needs numbers"),
        ("regression", np.full(240, np.inf), "infinity"),
        ("regression", np.zeros((240, 2)), "one number per row"),
        ("several", np.zeros(240), "several"),
    ],
)
def test_targets_that_do_not_fit_the_task_are_refused(task, y, said) -> None:
    with pytest.raises(FusionError, match=said):
        ConcatFusion(task=task).fit(TRAIN.views, y)


# Rows without a label


@pytest.mark.parametrize("name", ["late", "weighted"])
def test_rows_without_a_label_change_nothing_for_supervised_methods(name: str) -> None:
    hidden = np.arange(len(TRAIN)) % 4 == 0
    some = METHODS[name]().fit(TRAIN.views, np.where(hidden, None, TRAIN.labels))
    fewer = METHODS[name]().fit(TRAIN.views[~hidden], TRAIN.labels[~hidden])
    assert some.classes_.tolist() == ["a", "b", "c"]
    # The scaling sees them; what follows does not.
    np.testing.assert_allclose(some.predict_proba(TEST.views), fewer.predict_proba(TEST.views), atol=0.15)
    assert some.score(TEST.views, TEST.labels) > 0.85


def test_maps_learn_from_rows_without_a_label() -> None:
    labels = np.where(np.arange(len(TRAIN)) % 8 == 0, TRAIN.labels, None)
    few = METHODS["cca"]().fit(TRAIN.views, labels)
    every = METHODS["cca"]().fit(TRAIN.views, TRAIN.labels)
    np.testing.assert_allclose(few.correlations_, every.correlations_)


def test_labels_of_the_target_domain_are_not_looked_at() -> None:
    domain = np.where(np.arange(len(TRAIN)) % 2, "source", "target")
    wrong = np.where(domain == "target", "b", TRAIN.labels)
    first = LateFusion(C=0.1).fit(TRAIN.views, TRAIN.labels, domain=domain)
    second = LateFusion(C=0.1).fit(TRAIN.views, wrong, domain=domain)
    np.testing.assert_array_equal(first.predict_proba(TEST.views), second.predict_proba(TEST.views))
    with pytest.raises(FusionError, match="domain"):
        LateFusion().fit(TRAIN.views, TRAIN.labels, domain=["here"] * len(TRAIN))


# A method of the user's own, which learns from complete rows only


class NearestMean(FusionModel):
    """Classes by the nearest mean of all columns, in nine lines."""

    handles_missing = "complete-only"
    tasks = frozenset({"classes"})

    def __init__(
        self, *, impute="ridge", scaling="standard", modalities=None, random_state=0, task="classes", columns=None
    ):
        self.impute, self.scaling, self.modalities = impute, scaling, modalities
        self.random_state, self.task, self.columns = random_state, task, columns

    def _fit(self, train: Rows, validation: Rows | None, run: FitRun) -> None:
        self.rows_ = len(train)
        X, _ = side_by_side(train.views)
        self.means_ = np.stack([X[train.targets == code].mean(axis=0) for code in range(len(self.classes_))])

    def _outputs(self, views: Views) -> np.ndarray:
        X, _ = side_by_side(views)
        return -((X[:, None, :] - self.means_) ** 2).sum(axis=2)

    def _state(self):
        return {"means": self.means_}, {}

    def _restore(self, arrays, facts):
        self.means_ = arrays["means"]


def test_a_method_for_complete_rows_learns_from_those_and_predicts_all() -> None:
    complete = np.all([view.present for _, view in TRAIN.views.items()], axis=0)
    model = NearestMean().fit(TRAIN.views, TRAIN.labels)
    assert model.rows_ == complete.sum() < len(TRAIN)
    X = np.concatenate([view.values[complete] for _, view in TRAIN.views.items()], axis=1)
    codes = TRAIN.labels[complete] == "b"
    np.testing.assert_allclose(
        np.concatenate([model.scaler_.undone("image", model.means_[1:2, :5])]),
        X[codes][:, :5].mean(axis=0)[None],
        rtol=1e-5,
    )
    assert model.score(TEST.views, TEST.labels) > 0.85
    assert model.score(TEST.views.without("image"), TEST.labels) > 0.6


def test_a_method_for_complete_rows_needs_some() -> None:
    views = Views({"a": View(np.ones((4, 2)), np.arange(4) < 2), "b": View(np.ones((4, 2)), np.arange(4) >= 2)})
    with pytest.raises(FusionError, match="a in 2, b in 2 of 4 rows"):
        NearestMean().fit(views, ["x", "y", "x", "y"])


def test_a_users_own_method_is_loaded_only_where_it_is_trusted(tmp_path) -> None:
    model = clone(NearestMean()).fit(TRAIN.views, TRAIN.labels)
    model.save(tmp_path)
    with pytest.raises(FusionError, match=r"NearestMean.*trusted=\[Class\]"):
        FusionModel.load(tmp_path)
    for loaded in (FusionModel.load(tmp_path, trusted=[NearestMean]), NearestMean.load(tmp_path)):
        np.testing.assert_array_equal(loaded.predict_proba(TEST.views), model.predict_proba(TEST.views))


# What views may be made of


def test_a_row_of_nan_in_a_plain_array_is_absent() -> None:
    values = {name: np.where(view.present[:, None], view.values, np.nan) for name, view in TRAIN.views.items()}
    first = ConcatFusion(C=0.1).fit(values, TRAIN.labels)
    second = ConcatFusion(C=0.1).fit(TRAIN.views, TRAIN.labels)
    np.testing.assert_array_equal(first.predict_proba(TEST.views), second.predict_proba(TEST.views))


def test_a_view_without_columns_is_refused() -> None:
    with pytest.raises(FusionError, match=r"view b: has no columns, got the shape \(4, 0\)"):
        ConcatFusion().fit({"a": np.eye(4), "b": np.zeros((4, 0))}, ["x", "y", "x", "y"])


def test_lists_of_names_are_hidden_in_the_target_domain_too() -> None:
    names = np.empty(len(TRAIN), dtype=object)
    names[:] = [["zebra"] if row[0] else ["ant"] for row in labels_of(TRAIN)]
    domain = np.where(np.arange(len(TRAIN)) % 2, "source", "target")
    hidden = np.where(domain == "source", names, None)
    model, same = ConcatFusion(C=0.1, task="multilabel"), ConcatFusion(C=0.1, task="multilabel")
    model.fit(TRAIN.views, names, domain=domain)
    same.fit(TRAIN.views, hidden)
    np.testing.assert_array_equal(model.predict_proba(TEST.views), same.predict_proba(TEST.views))
