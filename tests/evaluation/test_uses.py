"""Shapley shares and shuffling, against brute force, the axioms, and models with a known answer."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from mmcore.evaluation.masking import Masked, all_masks
from mmcore.evaluation.uses import (
    from_prefixes,
    prefixes,
    shapley_shares,
    shapley_values,
    shuffle_loss,
    shuffled_scores,
)
from mmcore.fusion.data import LabelledViews, View, Views
from mmcore.fusion.late import LateFusion
from tests.evaluation.games import Counted, made_views, masked_game, worth_of
from tests.fusion.conftest import made


def _by_orders(worth: np.ndarray, count: int) -> np.ndarray:
    """What each adds, over every order: the definition."""
    found = np.zeros(count)
    for order in itertools.permutations(range(count)):
        code = 0
        for thing in order:
            found[thing] += worth[code | 1 << thing] - worth[code]
            code |= 1 << thing
    return found / math.factorial(count)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shapley_values_are_the_mean_over_every_order(count: int) -> None:
    worth = np.random.default_rng(count).normal(size=2**count)
    values = shapley_values(worth)
    np.testing.assert_allclose(values, _by_orders(worth, count), atol=1e-12)
    assert values.sum() == pytest.approx(worth[-1] - worth[0])


def test_sampled_orders_come_close_and_add_up() -> None:
    worth = np.random.default_rng(0).normal(size=2**7).cumsum()
    exact = shapley_values(worth)
    found = []
    for seed in range(60):
        sets = prefixes(7, seed)
        assert len(sets) <= 160
        values = from_prefixes(worth[sets @ (1 << np.arange(7))], sets)
        assert values.sum() == pytest.approx(worth[-1] - worth[0])
        found.append(values)
    error = np.std(found, axis=0) / math.sqrt(60)
    assert (np.abs(np.mean(found, axis=0) - exact) < 4 * error + 1e-9).all(), "without bias"


def test_shares_of_a_game_are_those_of_its_rows() -> None:
    masked, score = masked_game()
    shares = shapley_shares(masked, ["a", "b", "c"])
    assert shares.exact
    wanted = np.zeros(3)
    for row in range(len(masked)):
        has = dict(zip(masked.names, masked.present[row], strict=True))
        worth = [
            float(worth_of({n: np.array([m and has[n]]) for n, m in zip("abc", mask, strict=True)}, np.array([row]))[0])
            for mask in all_masks(3)
        ]
        wanted += _by_orders(np.array(worth), 3) / len(masked)
    assert list(shares.values.values()) == pytest.approx(wanted.tolist())
    assert sum(shares.values.values()) == pytest.approx(shares.full - shares.nothing)
    assert shares.nothing == pytest.approx(0.1)
    assert score.asked == sum(2 ** masked.present.sum(axis=1)), "each part of each row once"


def test_shares_beyond_five_modalities() -> None:
    names = "abcdefg"
    weights = dict(zip(names, np.arange(1.0, 8.0), strict=True))
    score = Counted(lambda present, _: sum(weights[n] * there for n, there in present.items()))
    views = made_views(30, names)
    shares = shapley_shares(Masked(score, views, names), names)
    assert not shares.exact
    for name in names:
        assert shares.values[name] == pytest.approx(weights[name] * views[name].present.mean()), "they add up: no luck"


def test_a_modality_that_is_not_read_has_no_share() -> None:
    masked = Masked(Counted(worth_of), made_views(20, "abc"), ["a", "b"])
    assert list(shapley_shares(masked, ["a", "b"]).values) == ["a", "b"]


def test_masks_are_what_a_model_makes_of_hidden_views() -> None:
    train, test = made(150, missing=0.3), made(60, seed=1, missing=0.3)
    model = LateFusion(C=1.0).fit(train.views, train.labels)
    truth = model.label_codes(test.labels)

    def score(views: Views, rows: np.ndarray) -> np.ndarray:
        return model.predict_proba(views)[np.arange(len(rows)), truth[rows]]

    masked = Masked(score, test.views, model.modalities_)
    sets = all_masks(3)
    found = masked(sets[:, None, :])
    for shown, scores in zip(sets, found, strict=True):
        hidden = [name for name, there in zip(masked.names, shown, strict=True) if not there]
        wanted = model.predict_proba(test.views.without(*hidden))[np.arange(60), truth]
        np.testing.assert_allclose(scores, wanted, atol=1e-12)


def test_calls_are_few() -> None:
    masked, score = masked_game(n=3_000)
    masked(all_masks(3)[:, None, :])
    assert score.calls == -(-score.asked // 8_192)
    masked(np.random.default_rng(0).random((20, 3_000, 3)) < 0.5)
    assert score.calls == -(-score.asked // 8_192), "nothing is asked twice"


@pytest.fixture(scope="module")
def one_ignored() -> tuple[LateFusion, LabelledViews]:
    """Late fusion of three modalities of which one, `noise`, tells nothing and was learned from nothing but zeros."""
    train, test = made(300), made(200, seed=1)
    views = Views({"image": train.views["image"], "noise": View.of(np.zeros((300, 4)))})
    model = LateFusion(C=1.0).fit(views, train.labels)
    noise = View.of(np.random.default_rng(0).normal(size=(200, 4)))
    return model, LabelledViews(Views({"image": test.views["image"], "noise": noise}), test.labels, test.keys)


def test_shuffling_what_is_used_costs_and_what_is_not_used_does_not(
    one_ignored: tuple[LateFusion, LabelledViews],
) -> None:
    model, test = one_ignored
    truth = model.label_codes(test.labels)

    def score(views: Views, rows: np.ndarray) -> np.ndarray:
        return np.asarray(model.predict_proba(views).argmax(axis=1) == truth[rows], float)

    full = score(test.views, np.arange(200))
    lost = {}
    for name in ("image", "noise"):
        shuffled = shuffled_scores(score, test.views, name)
        assert shuffled is not None
        lost[name] = shuffle_loss(full, shuffled, None)
    assert lost["image"].low > 0.2
    assert lost["image"].p < 0.001
    assert (lost["noise"].difference, lost["noise"].low, lost["noise"].high, lost["noise"].p) == (0, 0, 0, 1)


def test_shuffling_gives_every_row_another_ones_values() -> None:
    views = made_views(40, "ab")
    has = views["a"].present

    def score(changed: Views, rows: np.ndarray) -> np.ndarray:
        now = changed["a"].values
        np.testing.assert_array_equal(changed["a"].present, has)
        np.testing.assert_array_equal(changed["b"].values, views["b"].values)
        assert np.isnan(now[~has]).all()
        assert sorted(now[has, 0]) == sorted(views["a"].values[has, 0])
        return np.asarray(now[:, 0] == views["a"].values[:, 0], float)

    shuffled = shuffled_scores(score, views, "a")
    assert shuffled is not None
    assert shuffled.sum() == 0
    lonely = Views({"a": View(views["a"].values, np.arange(40) == 3)})
    assert shuffled_scores(score, lonely, "a") is None
