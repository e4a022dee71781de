"""The shared factor as a fusion method: its points, its settings, and six real views of digits."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import StratifiedShuffleSplit

from mmcore.config.fusion import SharedFactorSettings
from mmcore.errors import FusionError
from mmcore.fusion.data import LabelledViews, View, Views
from mmcore.fusion.moments import Moments
from mmcore.fusion.shared_factor import SharedFactorFusion
from tests.fusion.conftest import made

BOTH = pytest.mark.parametrize("mu", [None, 1.0], ids=["orthonormal", "penalty"])


@BOTH
def test_points_of_training_rows_are_their_rows_of_v(mu: float | None) -> None:
    data = made(200, 0, 0.3)
    model = SharedFactorFusion(n_components=3, factor_penalty=mu, C=1.0).fit(data.views, data.labels)
    points = model.fuse(data.views)
    assert (points**2).mean() == pytest.approx(1.0)
    if mu is None:
        np.testing.assert_allclose(points.T @ points / 200, np.eye(3), atol=1e-6)
    else:
        shares = model.spread_ / model.spread_.mean()
        np.testing.assert_allclose((points**2).mean(axis=0), shares, rtol=1e-6)


@BOTH
def test_points_are_the_ridge_regression_of_present_columns_on_the_loadings(mu: float | None) -> None:
    data = made(150, 0, 0.2)
    model = SharedFactorFusion(
        n_components=4, penalty=0.7, factor_penalty=mu, balance=False, scaling="none", C=1.0
    ).fit(data.views, data.labels)
    row = {"image": np.ones((1, 5)), "text": np.arange(6.0)[None]}
    U = np.concatenate([model.loadings_["image"], model.loadings_["text"]])
    every = np.concatenate(list(model.loadings_.values()))
    ridge = 0.7 * every.T @ every if mu is None else mu * np.eye(4)
    v = np.linalg.solve(U.T @ U + ridge, U.T @ np.concatenate([np.ones(5), np.arange(6.0)]))
    found = model.fuse(row)[0]
    np.testing.assert_allclose(found / np.linalg.norm(found), v / np.linalg.norm(v), atol=1e-9)


def test_balanced_views_count_alike_whatever_their_unit_and_width() -> None:
    data = made(300)
    bent = Views(
        {name: View(view.values * 10.0**place, view.present) for place, (name, view) in enumerate(data.views.items())}
    )
    plain, scaled = (
        SharedFactorFusion(n_components=3, scaling="none", C=1.0).fit(views, data.labels)
        for views in (data.views, bent)
    )
    np.testing.assert_allclose(plain.fuse(data.views), scaled.fuse(bent), atol=1e-5)
    unbalanced = SharedFactorFusion(n_components=1, balance=False, scaling="none", C=1.0).fit(bent, data.labels)
    assert np.linalg.norm(unbalanced.loadings_["text"]) > 10 * np.linalg.norm(unbalanced.loadings_["image"])


def test_the_fit_tells_how_it_went() -> None:
    data = made(200, 0, 0.4)
    model = SharedFactorFusion(n_components=3, C=1.0).fit(data.views, data.labels)
    objective = np.array(model.curves_["objective"])
    assert len(objective) > 2
    assert np.diff(objective).max() <= 1e-13 * objective[0]
    assert model.curves_["gradient"] <= 1e-7
    cut = SharedFactorFusion(n_components=3, C=1.0, max_iterations=1).fit(data.views, data.labels)
    assert len(cut.curves_["objective"]) == 2


def test_a_factor_wider_than_every_view_is_learned() -> None:
    data = made(300, 0, 0.3)
    model = SharedFactorFusion(n_components=12, C=1.0).fit(data.views, data.labels)
    assert model.fuse(data.views).shape == (300, 12)
    assert model.score(data.views, data.labels) > 0.85


@BOTH
def test_views_wider_than_they_have_rows_are_learned_in_their_rows_space(mu: float | None) -> None:
    random = np.random.default_rng(0)
    shared = random.normal(size=(30, 3))
    present = np.stack([np.arange(30) % 3 != 0, np.arange(30) % 3 != 1], axis=1)
    views = Views(
        {
            name: View(shared @ random.normal(size=(3, 80)) + 0.1 * random.normal(size=(30, 80)), present[:, place])
            for place, name in enumerate("ab")
        }
    )
    labels = np.arange(30) % 2
    settings = {"n_components": 2, "factor_penalty": mu, "tolerance": 1e-11, "C": 1.0}
    narrow = SharedFactorFusion(**settings).fit(views, labels)
    whole = SharedFactorFusion(**settings).fit_from_moments(Moments.of(views), views, labels)
    for name in "ab":
        assert narrow.loadings_[name].shape == (80, 2)
        np.testing.assert_allclose(narrow.loadings_[name], whole.loadings_[name], atol=1e-8)
    np.testing.assert_allclose(narrow.fuse(views), whole.fuse(views), atol=1e-7)


def test_penalties_without_a_minimum_are_refused() -> None:
    data = made(30)
    for settings in ({"penalty": -1.0}, {"penalty": 0.0, "factor_penalty": 1.0}):
        with pytest.raises(FusionError, match="shared-factor: needs a penalty"):
            SharedFactorFusion(**settings).fit(data.views, data.labels)
    with pytest.raises(ValueError, match="the factor shrinks to nothing"):
        SharedFactorSettings(penalty=0.0, factor_penalty=1.0)


def test_on_six_views_of_digits_it_reaches_what_the_reference_does(mfeat) -> None:
    """97.62 ± .3 of `k20, λ 1, logistic regression` over five stratified half splits, z-scores of the training half."""
    parts = [mfeat[split] for split in ("train", "val", "test")]
    order = np.argsort(np.concatenate([part.keys for part in parts]))
    labels = np.concatenate([part.labels for part in parts])[order]
    views = Views({name: np.concatenate([part.views[name].values for part in parts])[order] for name in parts[0].views})
    data = LabelledViews(views, labels, order)
    scores = []
    for train, test in StratifiedShuffleSplit(5, train_size=0.5, random_state=0).split(labels, labels):
        model = SharedFactorFusion(n_components=20, penalty=1.0, C=1.0).fit(data[train].views, data[train].labels)
        scores.append(model.score(data[test].views, data[test].labels))
    assert abs(np.mean(scores) - 0.9762) < 0.003
