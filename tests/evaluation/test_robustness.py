"""Curves over missing modalities and noise against enumeration, sampling, and models with a known answer."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mmcore.evaluation.masking import Masked, all_masks
from mmcore.evaluation.robustness import (
    MISSING_SHARES,
    NOISE_LEVELS,
    hidden_at_random,
    left_with,
    missing_curve,
    missing_scores,
    noise_curve,
)
from mmcore.fusion.data import View, Views
from tests.evaluation.games import Counted, made_views, masked_game, worth_of


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_what_a_row_is_left_with_by_enumeration(share: float) -> None:
    has = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], bool)
    found = left_with(has, all_masks(3), share)
    np.testing.assert_allclose(found.sum(axis=0), 1)
    wanted = np.zeros((8, 4))
    for row, mine in enumerate(has):
        there = np.flatnonzero(mine).tolist()
        if not there:
            wanted[0, row] = 1
        for first in there:
            others = [m for m in there if m != first]
            for lost in itertools.product([True, False], repeat=len(others)):
                odds = np.prod([share if gone else 1 - share for gone in lost]) / len(there)
                kept = [first, *(m for m, gone in zip(others, lost, strict=True) if not gone)]
                wanted[sum(1 << m for m in kept), row] += odds
    np.testing.assert_allclose(found, wanted, atol=1e-15)


def test_the_expected_curve_is_the_mean_of_many_draws() -> None:
    masked, _ = masked_game(n=300)
    curve = missing_curve(missing_scores(masked))
    drawn = [masked(hidden_at_random(masked.present, masked.names, 1, repeat)).mean(axis=1) for repeat in range(200)]
    error = np.std(drawn, axis=0) / np.sqrt(200)
    assert (np.abs(np.array(curve.scores) - np.mean(drawn, axis=0)) < 4 * error + 1e-12).all()
    assert curve.at == MISSING_SHARES
    as_they_are = worth_of({name: masked.present[:, m] for m, name in enumerate(masked.names)}, np.arange(300))
    assert curve.scores[0] == pytest.approx(as_they_are.mean())


def test_one_modality_stays_and_what_is_hidden_stays_hidden() -> None:
    present = made_views(400, "abcd").only("abcd")
    has = np.stack([view.present for _, view in present.items()], axis=1)
    shown = hidden_at_random(has, "abcd", 0, 0)
    np.testing.assert_array_equal(shown[0], has)
    assert (shown.any(axis=2) == has.any(axis=1)).all()
    assert not (shown[1:] & ~shown[:-1]).any()
    more = has.sum(axis=1) > 1
    further = (has.sum(axis=1) - 1)[more].sum()
    for share, mask in zip(MISSING_SHARES, shown, strict=True):
        assert (has & ~mask).sum() / further == pytest.approx(share, abs=0.06)


def test_beyond_five_modalities_it_is_drawn() -> None:
    names = "abcdefg"
    score = Counted(lambda present, _: np.mean(list(present.values()), axis=0))
    masked = Masked(score, made_views(200, names), names)
    curve = missing_curve(missing_scores(masked))
    assert curve == missing_curve(missing_scores(Masked(score, made_views(200, names), names))), "seeded"
    has = masked.present.sum(axis=1)
    for share, found in zip(curve.at, curve.scores, strict=True):
        wanted = np.mean(np.where(has > 0, 1 + (has - 1) * (1 - share), 0)) / 7
        assert found == pytest.approx(wanted, abs=0.01)


def test_a_model_of_one_modality_loses_it_as_the_others_do() -> None:
    views = made_views(100, "ab", share=1.1)
    only = Masked(Counted(lambda present, _: present["a"].astype(float)), views, ["a"])
    curve = missing_curve(missing_scores(only))
    assert curve.scores == pytest.approx([1 - share / 2 for share in MISSING_SHARES])
    assert curve.area == pytest.approx(0.7 - 0.7**2 / 4), "as it is: no other model scales it"


def test_noise_is_in_units_of_each_features_deviation() -> None:
    views = made_views(4_000, "ab")
    seen: list[Views] = []

    def score(changed: Views, rows: np.ndarray) -> np.ndarray:
        seen.append(changed)
        return np.ones(len(rows))

    curve = noise_curve(score, views, ["a"])
    assert (curve.at, set(curve.scores), curve.area) == (NOISE_LEVELS, {1.0}, NOISE_LEVELS[-1])
    has = views["a"].present
    spread = views["a"].values[has].std(axis=0)
    for level, changed in zip(NOISE_LEVELS[1:], seen[1:], strict=False):
        added = (changed["a"].values - views["a"].values)[has]
        np.testing.assert_allclose(added.std(axis=0), level * spread, rtol=0.05)
        assert changed["b"] is views["b"], "not read, not disturbed"
        np.testing.assert_array_equal(changed["a"].present, has)


def test_noise_does_not_depend_on_the_order_of_views() -> None:
    views = made_views(50, "ab")
    turned = Views({name: views[name] for name in "ba"})
    sums = [noise_curve(lambda v, _: np.nan_to_num(v["a"].values).sum(axis=1), one, "ab") for one in (views, turned)]
    assert sums[0] == sums[1]


def test_a_modality_that_no_row_has() -> None:
    views = Views({"a": View.of(np.ones((9, 2))), "b": View.absent(9, (3,))})
    masked = Masked(Counted(lambda present, _: present["a"] + 0.0), views, "ab")
    assert set(missing_curve(missing_scores(masked)).scores) == {1.0}
    assert set(noise_curve(lambda v, rows: np.isfinite(v["a"].values).all(axis=1) + 0.0, views, "ab").scores) == {1.0}
