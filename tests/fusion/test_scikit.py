"""All of scikit-learn's own checks, on one plain array whose columns are the views."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.base import is_classifier, is_regressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from mmcore.fusion.cca import CcaFusion
from mmcore.fusion.concat import ConcatFusion
from tests.fusion.conftest import FOLDED, KERNEL, METHODS, NEURAL, SUBSPACES, UNINFORMED, made

COLUMNS = {"even": slice(0, None, 2), "odd": slice(1, None, 2)}

WHOLE_VIEWS = {"check_estimators_pickle": "it puts NaN in single columns, and a view is present or absent as a whole"}
ONE_DIRECTION = {
    "check_sample_weights_pandas_series": "its two columns are not correlated: the views share no direction",
    "check_sample_weights_not_an_array": "its two columns are not correlated: the views share no direction",
    "check_classifiers_train": "views of a column or two share one direction, too little to tell its classes by",
    "check_regressors_train": "views of a few columns of noise share little of what its numbers follow",
}
DRAWN_BATCHES = {"check_sample_weight_equivalence_on_dense_data": "a row met twice is not one of double weight"}
HELD_OUT = {
    "check_sample_weight_equivalence_on_dense_data": "rows held out to calibrate differ where a row is there twice"
}
FOLDS = {"check_sample_weight_equivalence_on_dense_data": "a row given twice may be on both sides of a fold"}
NO_VALUES = {
    "check_classifiers_train": "the values that tell its classes are not looked at",
    "check_regressors_train": "the values that its numbers follow are not looked at",
}
NO_LABELS = {"check_regressors_train": "a density of a few columns of noise says little of what its numbers follow"}
EXPECTED = {
    SUBSPACES: ONE_DIRECTION,
    NEURAL: DRAWN_BATCHES,
    ("dbm",): NO_LABELS,
    FOLDED: FOLDS,
    KERNEL: HELD_OUT,
    UNINFORMED: NO_VALUES,
}
SLOW = (*NEURAL, "concat-network", "concat-tree", "late-stacking")


def expected_failures(name: str) -> dict[str, str]:
    return WHOLE_VIEWS | {
        check: why for names, checks in EXPECTED.items() if name in names for check, why in checks.items()
    }


@pytest.mark.parametrize("task", ["classes", "regression"])
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in METHODS])
def test_scikit_learns_checks_pass(name: str, task: str) -> None:
    method = METHODS[name]()
    if task not in method.tasks:
        pytest.skip(f"{name} does not learn {task}")
    method.set_params(columns=COLUMNS, task=task)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(method, expected_failed_checks=expected_failures(name), on_skip=None, on_fail=None)
    failed = [f"{one['check_name']}: {one['exception']}" for one in results if one["status"] == "failed"]
    assert failed == []
    assert sum(one["status"] == "passed" for one in results) > 45


def test_the_task_says_what_kind_of_estimator_it_is() -> None:
    assert is_classifier(ConcatFusion())
    assert is_classifier(ConcatFusion(task="multilabel"))
    assert is_regressor(ConcatFusion(task="regression"))
    assert not hasattr(ConcatFusion(task="regression"), "predict_proba")


def test_it_stands_in_a_pipeline_as_a_transformer_and_as_the_last_step() -> None:
    rows = made(120)
    X = np.concatenate([view.values for _, view in rows.views.items()], axis=1)
    columns = {"image": slice(0, 5), "audio": slice(5, 9), "text": [9, 15]}
    whole = make_pipeline(StandardScaler(), CcaFusion(columns=columns, n_components=4), LogisticRegression())
    assert whole.fit(X, rows.labels).score(X, rows.labels) > 0.8
    last = make_pipeline(StandardScaler(), ConcatFusion(C=0.1, columns=columns)).fit(X, rows.labels)
    by_name = ConcatFusion(C=0.1).fit(
        {
            name: X[:, slice(*np.r_[span].tolist())] if isinstance(span, list) else X[:, span]
            for name, span in columns.items()
        },
        rows.labels,
    )
    np.testing.assert_allclose(
        last.predict_proba(X),
        by_name.predict_proba({"image": X[:, :5], "audio": X[:, 5:9], "text": X[:, 9:]}),
        atol=1e-6,
    )


def test_a_row_of_nan_in_one_array_is_an_absent_view(tmp_path) -> None:
    rows = made(120, missing=0.3)
    X = np.concatenate([view.values for _, view in rows.views.items()], axis=1)
    columns = {"image": slice(0, 5), "audio": slice(5, 9), "text": slice(9, None)}
    model = ConcatFusion(C=0.1, columns=columns).fit(X, rows.labels)
    same = ConcatFusion(C=0.1).fit(rows.views, rows.labels)
    np.testing.assert_array_equal(model.predict_proba(X), same.predict_proba(rows.views))
    model.save(tmp_path)
    np.testing.assert_array_equal(ConcatFusion.load(tmp_path).predict_proba(X), same.predict_proba(rows.views))


def test_columns_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match=r"columns: odd has none of the 1 columns"):
        ConcatFusion(columns=COLUMNS).fit(np.zeros((4, 1)), [0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"for one array set columns="):
        ConcatFusion().fit(np.zeros((4, 2)), [0, 1, 0, 1])
