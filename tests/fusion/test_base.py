"""What every method owes: checks, missing modalities, scikit-learn's manners, saving."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import NotFittedError

from mmcore.errors import FusionError
from mmcore.fusion.base import FusionModel
from mmcore.fusion.cca import CcaFusion
from mmcore.fusion.concat import ConcatFusion
from mmcore.fusion.data import View, Views
from mmcore.fusion.late import LateFusion
from mmcore.fusion.multiplicative import MultiplicativeFusion
from mmcore.fusion.weighted import WeightedFusion
from tests.fusion.conftest import METHODS, made

TRAIN, VAL, TEST = made(150, 0, 0.3), made(90, 1, 0.3), made(90, 2)


def fitted(method: FusionModel) -> FusionModel:
    return method.fit(TRAIN.views, TRAIN.labels, validation=VAL)


def with_pattern(pattern: tuple[bool, ...]) -> Views:
    names = list(TEST.views)
    hidden = [name for name, kept in zip(names, pattern, strict=True) if not kept]
    return TEST.views.without(*hidden)


def test_every_pattern_of_modalities_is_predicted_without_reading_the_absent(informed_method) -> None:
    model = fitted(informed_method)
    for pattern in itertools.product([True, False], repeat=3):
        proba = model.predict_proba(with_pattern(pattern))
        assert np.isfinite(proba).all()
        np.testing.assert_allclose(proba.sum(axis=1), 1.0)
        if any(pattern):
            assert (proba.argmax(axis=1) == model.label_codes(TEST.labels)).mean() > 0.45
    assert model.score(TEST.views, TEST.labels) > 0.85


def test_a_row_with_nothing_gets_the_class_shares_and_is_flagged(method) -> None:
    model = fitted(method)
    views = TEST.views.without(*TEST.views)
    shares = np.bincount(model.label_codes(TRAIN.labels)) / len(TRAIN)
    np.testing.assert_allclose(model.predict_proba(views), np.tile(shares, (len(views), 1)))
    assert model.unknown(views).all()
    assert not model.unknown(TEST.views).any()


def test_a_view_that_is_not_given_is_absent(method) -> None:
    model = fitted(method)
    given = model.predict_proba({"image": TEST.views["image"]})
    np.testing.assert_array_equal(given, model.predict_proba(TEST.views.without("audio", "text")))


def test_rows_are_predicted_on_their_own(method) -> None:
    model = fitted(method)
    whole = model.predict_proba(VAL.views)
    np.testing.assert_allclose(whole[[5, 3]], model.predict_proba(VAL.views[[5, 3]]), rtol=1e-4, atol=1e-6)


def test_what_absent_rows_hold_does_not_matter(method) -> None:
    filled = {
        name: View(np.where(view.present[:, None], view.values, 7.0), view.present)
        for name, view in TRAIN.views.items()
    }
    first, second = fitted(method), fitted(clone(method).set_params()).fit(filled, TRAIN.labels, validation=VAL)
    np.testing.assert_array_equal(first.predict_proba(VAL.views), second.predict_proba(VAL.views))


def test_saved_and_loaded_predicts_the_same_bits(method, tmp_path) -> None:
    model = fitted(method)
    model.save(tmp_path)
    for kind in (FusionModel, type(method)):
        loaded = kind.load(tmp_path)
        assert loaded.get_params() == model.get_params()
        np.testing.assert_array_equal(loaded.predict_proba(VAL.views), model.predict_proba(VAL.views))
        np.testing.assert_array_equal(loaded.classes_, model.classes_)
        assert loaded.curves_ == model.curves_
    again = tmp_path / "again"
    again.mkdir()
    loaded.save(again)
    for file in ("model.json", "model.safetensors"):
        assert (again / file).read_bytes() == (tmp_path / file).read_bytes()


def test_another_process_learns_the_same_bits(tmp_path) -> None:
    for name, make in METHODS.items():
        folder = tmp_path / name
        folder.mkdir()
        fitted(make()).save(folder)
    code = (
        "import sys, pathlib\n"
        "from threadpoolctl import threadpool_limits\n"
        "from tests.fusion.test_base import METHODS, fitted\n"
        "with threadpool_limits(1):\n"
        "    for name, make in METHODS.items():\n"
        "        folder = pathlib.Path(sys.argv[1]) / (name + '-2'); folder.mkdir(); fitted(make()).save(folder)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    for name in METHODS:
        for file in ("model.json", "model.safetensors"):
            assert (tmp_path / name / file).read_bytes() == (tmp_path / f"{name}-2" / file).read_bytes(), name


def test_cross_validation_clone_and_pipeline(informed_method) -> None:
    if type(informed_method).__module__.endswith(("weighted", "autoencoder")):
        informed_method.set_params(epochs=4)
    scores = cross_val_score(informed_method, TRAIN.views, TRAIN.labels, cv=3)
    assert scores.shape == (3,)
    assert scores.min() > 0.3
    assert clone(informed_method).get_params() == informed_method.get_params()
    pipeline = Pipeline([("same", FunctionTransformer(validate=False)), ("fusion", informed_method)])
    assert len(pipeline.fit(TRAIN.views, TRAIN.labels).predict(TEST.views)) == len(TEST)


def test_grid_search_over_a_setting() -> None:
    search = GridSearchCV(ConcatFusion(), {"C": [0.01, 1.0]}, cv=2).fit(TRAIN.views, TRAIN.labels)
    assert search.best_params_["C"] in (0.01, 1.0)


def test_labels_may_be_numbers_and_classes_are_sorted(method) -> None:
    codes = np.array([{"a": 7, "b": -1, "c": 3}[label] for label in TRAIN.labels])
    model = method.fit(TRAIN.views, codes)
    assert model.classes_.tolist() == [-1, 3, 7]
    assert model.predict(TEST.views).dtype.kind == "i"


def test_two_classes_are_enough(method) -> None:
    rows = np.flatnonzero(TRAIN.labels != "c")
    model = method.fit(TRAIN.views[rows], TRAIN.labels[rows])
    np.testing.assert_allclose(model.predict_proba(TEST.views).sum(axis=1), 1.0)


@pytest.mark.parametrize("scaling", ["none", "standard", "l2"])
def test_each_scaling_learns_and_is_saved(informed_method, scaling, tmp_path) -> None:
    model = fitted(informed_method.set_params(scaling=scaling))
    assert model.score(TEST.views, TEST.labels) > 0.6
    model.save(tmp_path)
    np.testing.assert_array_equal(FusionModel.load(tmp_path).predict_proba(VAL.views), model.predict_proba(VAL.views))


def test_a_weight_of_two_is_a_row_given_twice() -> None:
    weights = np.where(np.arange(len(TRAIN)) % 2, 2.0, 1.0)
    twice = TRAIN[np.repeat(np.arange(len(TRAIN)), weights.astype(int))]
    for name in ("concat", "late", "cca"):
        weighted = METHODS[name]().fit(TRAIN.views, TRAIN.labels, sample_weight=weights)
        repeated = METHODS[name]().fit(twice.views, twice.labels)
        np.testing.assert_allclose(
            weighted.predict_proba(VAL.views), repeated.predict_proba(VAL.views), atol=2e-4, err_msg=name
        )


@pytest.mark.parametrize("settings", [{}, {"task": "regression"}])
def test_rows_that_weigh_nothing_count_for_nothing(settings) -> None:
    rows = made(60, 0, 0.2)
    random = np.random.default_rng(0)
    weights = random.permutation(np.r_[np.zeros(20), np.ones(20), np.full(20, 2.0)])
    y = rows.labels if not settings else np.where(rows.labels == "a", 5.0, 1.0) + random.normal(size=60)
    scrambled = y.copy()
    scrambled[weights == 0] = random.permutation(y[weights == 0])
    kept = np.flatnonzero(weights)
    for model in (
        ConcatFusion(**settings),
        ConcatFusion(impute="mean", **settings),
        *(ConcatFusion(head=head, C=1.0, **settings) for head in ("kernel", "tree", "network")),
        *(LateFusion(combine=combine, **settings) for combine in ("product", "learned", "stacking")),
        CcaFusion(n_components=3, **settings),
        MultiplicativeFusion(dim=3, **settings),
        WeightedFusion(dim=4, epochs=5, batch_size=16, **settings),
    ):
        every = clone(model).fit(rows.views, scrambled, sample_weight=weights)
        fewer = clone(model).fit(rows.views[kept], y[kept], sample_weight=weights[kept])
        np.testing.assert_allclose(
            every._finished(VAL.views), fewer._finished(VAL.views), rtol=1e-6, atol=1e-6, err_msg=str(model)
        )


# The shared space


def test_a_modality_alone_is_its_own_point(shared_method) -> None:
    model = fitted(shared_method)
    points = model.transform(VAL.views)
    for name, view in VAL.views.items():
        alone = model.fuse({name: view})
        np.testing.assert_array_equal(points[name], alone)
        assert np.isnan(points[name][~view.present]).all()
        assert np.isfinite(points[name][view.present]).all()


def test_fused_rows_are_finite_unless_nothing_is_there(shared_method) -> None:
    model = fitted(shared_method)
    assert np.isfinite(model.fuse(VAL.views)).all()
    assert np.isnan(model.fuse(VAL.views.without(*VAL.views))).all()


def test_concatenation_has_no_shared_space() -> None:
    model = fitted(ConcatFusion(C=1.0))
    assert not hasattr(model, "transform")
    assert model.fuse(VAL.views).shape == (len(VAL), 15)


# What does not fit


def _nan_present() -> Views:
    values = TEST.views["audio"].values.copy()
    values[4, 1] = np.nan
    return Views({**dict(TEST.views.items()), "audio": values})


def test_views_that_do_not_fit_are_refused_in_words(method) -> None:
    with pytest.raises(NotFittedError):
        method.predict(TEST.views)
    model = fitted(method)
    with pytest.raises(FusionError, match=r"unknown view 'video'.*image, audio, text"):
        model.predict({"video": np.zeros((2, 3))})
    with pytest.raises(FusionError, match=r"view audio: needs the shape \(2, 4\), got \(2, 3\)"):
        model.predict({"audio": np.zeros((2, 3))})
    with pytest.raises(FusionError, match=r"view audio: needs one vector per row.*\(2, 5, 4\)"):
        method.fit({"image": np.zeros((2, 3)), "audio": np.zeros((2, 5, 4))}, ["a", "b"])
    with pytest.raises(FusionError, match="view audio: row 4 is marked present but holds NaN"):
        fitted(method).predict(_nan_present())


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a"] * 3, "shape"),
        (["a"] * len(TRAIN), "at least two classes"),
        ([3, *TRAIN.labels[1:]], "all strings or all whole numbers"),
        ([None] * len(TRAIN), "no row has a label"),
        (np.linspace(0, 1, len(TRAIN)), "float64"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, said) -> None:
    with pytest.raises(FusionError, match=said):
        ConcatFusion().fit(TRAIN.views, np.array(labels, dtype=object) if isinstance(labels, list) else labels)


def test_an_unseen_label_is_an_error() -> None:
    other = np.where(VAL.labels == "a", "z", VAL.labels)
    with pytest.raises(FusionError, match=r"validation: labels that training did not have: \['z'\]"):
        ConcatFusion().fit(TRAIN.views, TRAIN.labels, validation=(VAL.views, other))
    with pytest.raises(FusionError, match=r"\['z'\].*\['a', 'b', 'c'\]"):
        fitted(ConcatFusion(C=1.0)).score(VAL.views, other)


def test_weights_and_modalities_that_do_not_fit_are_refused() -> None:
    with pytest.raises(FusionError, match="sample_weight"):
        ConcatFusion().fit(TRAIN.views, TRAIN.labels, sample_weight=-np.ones(len(TRAIN)))
    with pytest.raises(FusionError, match="no view 'video'"):
        LateFusion(modalities=["video"]).fit(TRAIN.views, TRAIN.labels)
    with pytest.raises(FusionError, match="view text: present in no training row"):
        ConcatFusion().fit(TRAIN.views.without("text"), TRAIN.labels)


def test_chosen_modalities_ignore_the_others() -> None:
    model = ConcatFusion(C=1.0, modalities=["text", "image"]).fit(TRAIN.views, TRAIN.labels)
    same = ConcatFusion(C=1.0).fit(TRAIN.views.only(["text", "image"]), TRAIN.labels)
    np.testing.assert_array_equal(model.predict_proba(VAL.views), same.predict_proba(VAL.views.only(["text", "image"])))
    assert model.unknown(VAL.views.without("text", "image")).all()


# Loading


def test_a_foreign_class_is_refused_and_nothing_is_imported(tmp_path) -> None:
    fitted(ConcatFusion(C=1.0)).save(tmp_path)
    with pytest.raises(FusionError, match="ConcatFusion, not"):
        LateFusion.load(tmp_path)
    described = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**described, "class": "antigravity:Fly"}))
    with pytest.raises(FusionError, match="antigravity:Fly"):
        FusionModel.load(tmp_path)
    assert "antigravity" not in sys.modules


def test_what_is_no_model_is_refused(tmp_path) -> None:
    with pytest.raises(FusionError, match="no saved model"):
        FusionModel.load(tmp_path)
    fitted(ConcatFusion(C=1.0)).save(tmp_path)
    described = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**described, "format": 99}))
    with pytest.raises(FusionError, match="format 99"):
        FusionModel.load(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(described))
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(FusionError, match="not a saved model"):
        FusionModel.load(tmp_path)


def test_a_card_for_people_lies_beside_the_model(method, tmp_path) -> None:
    fitted(method).save(tmp_path)
    card = (tmp_path / "card.md").read_text()
    assert card.startswith(f"# {type(method).__name__}\n")
    assert "one of 3 classes from image (5), audio (4), text (6)" in card
    assert ("contains rows of the training data" in card) == method.contains_training_rows


def test_a_users_own_method_loads_with_its_own_class(tmp_path) -> None:
    class Mine(LateFusion):
        pass

    fitted(Mine(C=1.0)).save(tmp_path)
    with pytest.raises(FusionError, match="Mine"):
        FusionModel.load(tmp_path)
    assert isinstance(Mine.load(tmp_path), Mine)
