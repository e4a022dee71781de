from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.decomposition import PCA

from mmcore.fusion import multiplicative
from mmcore.fusion.concat import ConcatFusion
from mmcore.fusion.data import View, Views
from mmcore.fusion.multiplicative import MultiplicativeFusion, components, products_width
from tests.fusion.conftest import made

TRAIN, VAL = made(150, 0, 0.3), made(90, 1, 0.3)


def exclusive(n: int, seed: int, views: int = 2) -> tuple[Views, np.ndarray]:
    """Signs, hidden in one column of three, whose product is the label: no view tells anything of it."""
    random = np.random.default_rng(seed)
    signs = random.choice([-1.0, 1.0], size=(n, views))
    made_views = {}
    for number in range(views):
        values = random.normal(size=(n, 3)) * 0.3
        values[:, number] += signs[:, number]
        made_views[f"v{number}"] = values
    return Views(made_views), np.where(signs.prod(axis=1) > 0, "same", "other")


@pytest.mark.parametrize("views", [2, 3])
def test_exclusive_or_across_views_is_learned_and_by_concatenation_is_not(views: int) -> None:
    (X, y), (other, truth) = exclusive(400, 0, views), exclusive(400, 1, views)
    assert MultiplicativeFusion().fit(X, y).score(other, truth) > 0.95
    assert ConcatFusion().fit(X, y).score(other, truth) < 0.6
    assert ConcatFusion(head="kernel").fit(X, y).score(other, truth) > 0.85


def test_features_are_all_products_over_subsets_of_views() -> None:
    model = MultiplicativeFusion(dim=2, C=1.0).fit(TRAIN.views, TRAIN.labels)
    prepared = model._filled(model._prepared(VAL.views))
    z = {name: (view.values - model.means_[name]) @ model.projections_[name] for name, view in prepared.items()}
    fused = model.fuse(VAL.views)
    assert fused.shape == (90, 3**3 - 1)
    for row in range(0, 90, 7):
        extended = [np.r_[1.0, part[row]] for part in z.values()]
        expected = [np.prod(factors) for factors in itertools.product(*extended)]
        np.testing.assert_allclose(fused[row], expected[1:])
    # The kernel that the features stand for.
    inner = np.prod([1 + part @ part.T for part in z.values()], axis=0) - 1
    np.testing.assert_allclose(fused @ fused.T, inner, atol=1e-8)


def test_at_the_mean_products_with_an_absent_view_vanish_and_the_others_stay() -> None:
    model = MultiplicativeFusion(dim=2, C=1.0, impute="mean").fit(TRAIN.views, TRAIN.labels)
    views = made(5).views
    whole, less = model.fuse(views), model.fuse(views.without("text"))
    without_text = np.array([index % 3 == 0 for index in range(1, 27)])
    np.testing.assert_allclose(less[:, without_text], whole[:, without_text])
    np.testing.assert_allclose(less[:, ~without_text], 0, atol=1e-12)


def test_projections_are_whitened_principal_components_of_present_rows() -> None:
    X = np.random.default_rng(0).normal(size=(200, 6)) @ np.diag([5, 3, 2, 1, 0.5, 0])
    mean, projection = components(X, np.ones(200))
    peer = PCA(whiten=True).fit(X)
    assert projection.shape == (6, 5)
    expected = peer.transform(X)[:, :5] * np.sqrt(200 / 199)
    signs = np.sign((expected * ((X - mean) @ projection)).sum(axis=0))
    np.testing.assert_allclose((X - mean) @ projection, expected * signs, atol=1e-8)
    weights = np.random.default_rng(1).integers(0, 3, 200)
    repeated = components(np.repeat(X, weights, axis=0), np.ones(weights.sum()))
    for one, other in zip(components(X, weights.astype(float)), repeated, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-8)


def test_projections_are_made_narrower_where_there_would_be_too_many_products(monkeypatch) -> None:
    assert products_width([76, 216, 64, 240, 47, 6], 16) == 3
    assert products_width([100, 100], 16) == 16
    assert products_width([100, 1, 1], 1000) == 1000
    assert products_width([9] * 20, 16) == 1
    monkeypatch.setattr(multiplicative, "MAX_PRODUCTS", 30)
    model = MultiplicativeFusion(dim=4, C=1.0).fit(TRAIN.views, TRAIN.labels)
    assert model.curves_["widths"] == {"image": 2, "audio": 2, "text": 2}
    assert model.curves_["products"] == model.fuse(VAL.views).shape[1] == 26


@pytest.mark.parametrize("task", ["classes", "regression"])
@pytest.mark.parametrize("head", ["linear", "kernel", "tree", "network"])
def test_of_constant_views_alone_the_prior_is_predicted(head: str, task: str, tmp_path) -> None:
    y = np.r_[np.zeros(30), np.ones(10)]
    views = Views({name: View(np.ones((40, 3)), np.ones(40, bool)) for name in "ab"})
    model = MultiplicativeFusion(head=head, task=task).fit(views, y)
    expected = model.target_.finished(model.target_.constant(40))
    np.testing.assert_allclose(model._finished(views), expected, atol=1e-4)
    model.save(tmp_path)
    np.testing.assert_array_equal(MultiplicativeFusion.load(tmp_path)._finished(views), model._finished(views))


def test_a_constant_view_has_no_components_and_harms_nothing() -> None:
    X, y = exclusive(200, 0)
    views = Views({**{name: X[name] for name in X}, "flat": View(np.ones((200, 4)), np.ones(200, bool))})
    model = MultiplicativeFusion(C=1.0).fit(views, y)
    assert model.curves_["widths"]["flat"] == 0
    np.testing.assert_allclose(
        model.predict_proba(views), MultiplicativeFusion(C=1.0).fit(X, y).predict_proba(X), atol=1e-9
    )
