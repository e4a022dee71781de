"""Intervals and tests against SciPy, statsmodels, brute force, and how often they cover the truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from mmcore.evaluation.intervals import (
    LEAST_RESAMPLES,
    bootstrap_interval,
    group_note,
    holm,
    paired_difference,
    wilson_interval,
)


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 40), (40, 40), (3, 7), (484, 500), (99_999, 100_000)])
def test_wilson_equals_scipy(right: int, n: int) -> None:
    wanted = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert wilson_interval(right, n) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@pytest.mark.parametrize("kind", ["right or wrong", "numbers"])
def test_bootstrap_equals_scipy(kind: str) -> None:
    rng = np.random.default_rng(4)
    scores = (rng.random(200) < 0.8).astype(float) if kind == "right or wrong" else rng.normal(size=200)
    wanted = stats.bootstrap((scores,), np.mean, method="percentile", n_resamples=9_999, rng=rng)
    found = bootstrap_interval(scores)
    assert found == pytest.approx((wanted.confidence_interval.low, wanted.confidence_interval.high), abs=0.01)
    assert bootstrap_interval(scores) == found, "seeded"


def test_groups_are_drawn_whole() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), rng.integers(1, 9, 40))
    scores = rng.normal(size=40)[groups] + 0.1 * rng.normal(size=len(groups))
    members = [np.flatnonzero(groups == g) for g in range(40)]
    means = [np.mean(scores[np.concatenate([members[g] for g in rng.integers(40, size=40)])]) for _ in range(4_000)]
    assert bootstrap_interval(scores, groups) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.04)
    narrow = np.ptp(bootstrap_interval(scores))
    assert np.ptp(bootstrap_interval(scores, groups)) > 1.5 * narrow, "rows of one group are alike here"


def test_groups_of_one_are_rows() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=80), rng.normal(size=80)
    groups = rng.permutation(80)
    assert bootstrap_interval(first, groups) == pytest.approx(bootstrap_interval(first), abs=0.05)
    by_row, by_group = paired_difference(first, second), paired_difference(first, second, groups)
    assert (by_group.difference, by_group.n) == (by_row.difference, by_row.n)
    assert by_group.p == pytest.approx(by_row.p, abs=0.03)


def test_cluster_bootstrap_covers_the_truth() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(40), 10)
    drawn = [rng.normal(size=40)[groups] + rng.normal(size=400) for _ in range(300)]
    ends = [bootstrap_interval(scores, groups, resamples=1_000) for scores in drawn]
    covered = sum(low <= 0 <= high for low, high in ends) / 300
    assert 0.89 < covered < 0.98
    rows = [bootstrap_interval(scores, resamples=1_000) for scores in drawn]
    assert sum(low <= 0 <= high for low, high in rows) / 300 < 0.8, "why groups are drawn"


def test_paired_difference_against_resampled_rows() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.random(400) < 0.8, rng.random(400) < 0.75
    found = paired_difference(first, second)
    rows = rng.integers(400, size=(10_000, 400))
    low, high = np.quantile(first[rows].mean(axis=1) - second[rows].mean(axis=1), [0.025, 0.975])
    assert found.difference == pytest.approx(first.mean() - second.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.004)
    assert found.only_first == sum(a and not b for a, b in zip(first, second, strict=True))
    assert paired_difference(first, second) == found, "seeded"


def test_several_seeds_are_one_score_per_row() -> None:
    rng = np.random.default_rng(6)
    first, second = rng.random((120, 5)) < 0.8, rng.random((120, 5)) < 0.7
    assert paired_difference(first, second) == paired_difference(first.mean(axis=1), second.mean(axis=1))
    one = paired_difference(first, second[:, 0])
    assert one.difference == pytest.approx(first.mean() - second[:, 0].mean())


@pytest.mark.parametrize(("only_first", "only_second"), [(1, 0), (8, 1), (30, 18), (5, 5), (40, 90)])
def test_p_of_right_or_wrong_is_the_exact_sign_test(only_first: int, only_second: int) -> None:
    first = np.array([1] * only_first + [0] * only_second + [1] * 50, bool)
    second = np.array([0] * only_first + [1] * only_second + [1] * 50, bool)
    wanted = stats.binomtest(only_first, only_first + only_second).pvalue
    assert paired_difference(first, second).p == pytest.approx(wanted, abs=0.015)


def test_p_against_every_swap() -> None:
    rng = np.random.default_rng(2)
    gaps = rng.normal(0.5, size=12)
    sums = [abs(np.dot(signs, gaps)) for signs in itertools.product((-1, 1), repeat=12)]
    assert paired_difference(gaps, np.zeros(12)).p == pytest.approx(np.mean(sums >= abs(gaps.sum()) - 1e-12), abs=0.02)


def test_p_of_many_rows_equals_scipy() -> None:
    rng = np.random.default_rng(8)
    first, second = rng.normal(0.15, 1, 300), rng.normal(size=300)
    wanted = stats.permutation_test(
        (first, second),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        rng=rng,
    ).pvalue
    assert paired_difference(first, second).p == pytest.approx(wanted, abs=0.02)


def test_p_is_small_as_often_as_it_says() -> None:
    rng = np.random.default_rng(9)
    groups = np.repeat(np.arange(30), 5)
    ps = []
    for _ in range(400):
        gaps = rng.normal(size=30)[groups] + rng.normal(size=150)
        ps.append(paired_difference(gaps, np.zeros(150), groups, resamples=500).p)
    assert np.mean(np.array(ps) <= 0.05) < 0.08
    assert np.mean(np.array(ps) <= 0.5) == pytest.approx(0.5, abs=0.08)


def test_equal_and_opposite_models() -> None:
    right = np.array([True, False, True])
    same = paired_difference(right, right)
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    every = paired_difference(np.ones(9, bool), np.zeros(9, bool))
    assert (every.difference, every.low, every.high) == (1, 1, 1)
    thirds = np.full((7, 3), 0.1)
    assert paired_difference(thirds, thirds.sum(axis=1) / 3).p == 1, "dust is no difference"


def test_paired_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        first, second = rng.random(300) < 0.8, rng.random(300) < 0.75
        found = paired_difference(first, second, resamples=2_000)
        inside += found.low <= 0.05 <= found.high
    assert 0.91 < inside / 400 < 0.985


def test_holm_equals_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="statsmodels is not installed")
    for ps in ([0.01, 0.04, 0.03, 0.005], [0.2], [0.5, 0.5, 0.9], np.random.default_rng(0).random(20).tolist()):
        assert holm(ps) == pytest.approx(multitest.multipletests(ps, method="holm")[1].tolist())
    assert holm([]) == []


def test_holm_by_hand() -> None:
    # Holm (1979): the smallest times 4, the next times 3, never below one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_what_is_said_of_groups() -> None:
    assert group_note(None) == ""
    assert group_note(np.repeat(np.arange(30), 2)) == ""
    assert group_note(np.arange(30)) == "Every group has one test row: drawing groups is drawing rows."
    assert "1 group has one test row, of 31." in group_note(np.append(np.repeat(np.arange(30), 2), 99))
    assert "from only 3 groups" in group_note(np.array([0, 0, 1, 1, 2, 2]))


def test_very_many_rows_take_fewer_draws() -> None:
    from mmcore.evaluation import intervals

    assert intervals._affordable(300, 10_000) == 10_000
    assert intervals._affordable(10**9, 10_000) == LEAST_RESAMPLES


def test_rows_that_are_not_the_same() -> None:
    with pytest.raises(ValueError, match="same rows"):
        paired_difference(np.ones(3), np.ones(4))
