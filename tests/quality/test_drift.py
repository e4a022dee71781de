"""Drift: closed forms agree with scipy's, chance is not reported, and real shifts are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mmcore.quality.drift import by_chance, drift_between_splits, drift_since, ks_statistic, total_variation

numbers = st.lists(st.floats(-10, 10), min_size=1, max_size=40)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # scipy's p-values of tiny samples, which are not looked at
@given(numbers, numbers)
def test_the_statistic_is_scipys(one: list[float], other: list[float]) -> None:
    assert ks_statistic(one, other) == pytest.approx(stats.ks_2samp(one, other, method="asymp").statistic)


def test_the_statistic_in_closed_form() -> None:
    assert ks_statistic([1, 2, 3, 4], [1, 2, 3, 4]) == 0
    assert ks_statistic([1, 2], [3, 4]) == 1
    assert ks_statistic([1, 2, 3, 4], [3, 4, 5, 6]) == 0.5


def test_total_variation_in_closed_form() -> None:
    assert total_variation({"a": 1, "b": 1}, {"a": 10, "b": 10}) == 0
    assert total_variation({"a": 1}, {"b": 1}) == 1
    assert total_variation({"a": 3, "b": 1}, {"a": 1, "b": 1}) == 0.25


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), min_size=2, max_size=8))
def test_chance_is_told_as_scipy_tells_it(pairs: list[tuple[int, int]]) -> None:
    one, other = ({str(i): pair[side] for i, pair in enumerate(pairs)} for side in (0, 1))
    p = stats.chi2_contingency(np.array(pairs).T, correction=False).pvalue
    if not 0.008 < p < 0.012:
        assert by_chance(one, other) == (p > 0.01)


def _split(samples: int, labels: dict[str, int], present: int, values: list[float]) -> dict[str, Any]:
    numbers = {"seconds": {"count": len(values), "values": sorted(values)}}
    return {
        "samples": samples,
        "labels": labels,
        "modalities": {"a": {"present": present, "numbers": numbers, "words": {}}},
    }


def test_only_what_matters_is_said() -> None:
    random = np.random.default_rng(0)
    train = _split(400, {"x": 200, "y": 200}, 400, random.normal(0, 1, 400).tolist())
    val = _split(400, {"x": 190, "y": 210}, 396, random.normal(0, 1, 400).tolist())
    test = _split(400, {"x": 320, "y": 80}, 300, random.normal(1, 1, 400).tolist())
    assert drift_between_splits({"train": train, "val": val}) == []
    found = drift_between_splits({"train": train, "test": test})
    assert {one["what"] for one in found} == {"label", "a missing", "a.seconds"}
    assert found == sorted(found, key=lambda one: -one["effect"])
    assert next(one for one in found if one["what"] == "label")["effect"] == 0.3
    since = drift_since({"train": train}, {"train": test})
    assert since[0]["between"] == ["train before", "train now"]
