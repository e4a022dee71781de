"""All scores of one model, recomputed the plain way."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from mmcore.errors import FusionError
from mmcore.evaluation.scores import score_model
from mmcore.fusion.concat import ConcatFusion
from mmcore.fusion.data import LabelledViews, View, Views
from mmcore.fusion.late import LateFusion

CLASSES = np.array(["ant", "bee", "cat"])


def _rows(seed: int, n: int) -> LabelledViews:
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % 3
    views = {}
    for number, name in enumerate(("image", "text")):
        centres = np.random.default_rng(number).normal(size=(3, 4))
        values = (centres[codes] + rng.normal(size=(n, 4))).astype(np.float32)
        views[name] = View(values, rng.random(n) < 0.8)
    return LabelledViews(Views(views), CLASSES[codes], np.array([f"k{i}" for i in range(n)]))


@pytest.fixture(scope="module")
def train() -> LabelledViews:
    return _rows(0, 150)


@pytest.fixture(scope="module")
def test() -> LabelledViews:
    return _rows(1, 120)


@pytest.fixture(scope="module")
def late(train: LabelledViews) -> LateFusion:
    return LateFusion(C=1.0).fit(train.views, train.labels)


def test_overall_alone_and_without(late: LateFusion, test: LabelledViews) -> None:
    scored = score_model(late, test, instances=False)
    scores, proba = scored.scores, scored.predictions
    assert scores["overall"]["accuracy"] == pytest.approx(late.score(test.views, test.labels))
    assert scores["overall"]["macro_f1"] == pytest.approx(
        f1_score(test.labels, late.predict(test.views), average="macro")
    )
    np.testing.assert_allclose(proba, late.predict_proba(test.views))
    has = test.views["image"].present
    image = Views({"image": test.views["image"]})
    assert scores["alone"]["image"]["all"]["accuracy"] == pytest.approx(late.score(image, test.labels))
    present = scores["alone"]["image"]["present"]
    assert present["accuracy"] == pytest.approx(late.score(image[has], test.labels[has]))
    assert present["n"] == has.sum()
    assert scores["without"]["text"] == scores["alone"]["image"]["all"], "of two, without one is the other alone"
    assert np.sum(scores["confusion"]) == 120
    assert scores["nothing_present"] == (~has & ~test.views["text"].present).sum()


def test_patterns_part_the_rows(late: LateFusion, test: LabelledViews) -> None:
    scores = score_model(late, test, instances=False).scores
    patterns = scores["patterns"]
    assert sum(one["n"] for one in patterns) == 120
    assert [one["n"] for one in patterns] == sorted((one["n"] for one in patterns), reverse=True)
    both = test.views["image"].present & test.views["text"].present
    one = next(one for one in patterns if one["present"] == ["image", "text"])
    assert one["n"] == both.sum()
    assert one["score"] == pytest.approx(late.score(test.views[both], test.labels[both]))


def test_patterns_do_not_follow_the_order_of_the_configuration(late: LateFusion, test: LabelledViews) -> None:
    turned = LabelledViews(Views({name: test.views[name] for name in ("text", "image")}), test.labels, test.keys)
    assert score_model(late, turned, instances=True).scores == score_model(late, test, instances=True).scores


def test_retrieval_only_with_a_shared_space(late: LateFusion, train: LabelledViews, test: LabelledViews) -> None:
    by_class = score_model(late, test, instances=False).scores
    assert [(pair["query"], pair["item"]) for pair in by_class["retrieval"]["pairs"]] == [
        ("image", "text"),
        ("text", "image"),
    ]
    assert "instance" not in by_class["retrieval"]["pairs"][0]
    assert by_class["retrieval"]["pairs"][0]["class"]["queries"] == test.views["image"].present.sum()
    both = test.views["image"].present & test.views["text"].present
    by_instance = score_model(late, test, instances=True).scores
    assert by_instance["retrieval"]["pairs"][1]["instance"]["queries"] == both.sum()
    plain = score_model(ConcatFusion(C=1.0).fit(train.views, train.labels), test, instances=True).scores
    assert plain["retrieval"] is None


def test_one_modality_of_several(train: LabelledViews, test: LabelledViews) -> None:
    only = LateFusion(C=1.0, modalities=["text"]).fit(train.views, train.labels)
    scores = score_model(only, test, instances=False).scores
    assert scores["modalities"] == ["text"]
    assert scores["without"] == {}
    assert list(scores["alone"]) == ["text"]
    assert scores["retrieval"] is None
    assert len(scores["patterns"]) > 2, "by what a row has, not by what the model reads"


def test_a_modality_that_no_test_row_has(late: LateFusion, test: LabelledViews) -> None:
    blind = LabelledViews(test.views.without("image"), test.labels, test.keys)
    scores = score_model(late, blind, instances=True).scores
    assert scores["alone"]["image"]["present"] is None
    assert [pair["class"] for pair in scores["retrieval"]["pairs"]] == [None, None]


def test_a_label_that_was_never_learned(late: LateFusion, test: LabelledViews) -> None:
    odd = LabelledViews(test.views, np.where(test.labels == "ant", "dog", test.labels), test.keys)
    with pytest.raises(FusionError, match="dog"):
        score_model(late, odd, instances=False)
