from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcore.errors import FusionError
from mmcore.fusion.data import LabelledViews, View, Views


def _views(n: int = 6) -> Views:
    present = np.arange(n) % 3 != 0
    return Views({"a": np.arange(2.0 * n).reshape(n, 2), "b": View(np.arange(3.0 * n).reshape(n, 3), present)})


def test_an_array_is_a_view_that_every_row_has() -> None:
    view = View.of([[1.0, 2.0], [3.0, 4.0]])
    assert view.present.all()
    assert view.shape == (2,)


@given(st.lists(st.integers(0, 5), max_size=8))
def test_cutting_rows_equals_cutting_each_array(rows: list[int]) -> None:
    views = _views()
    cut = views[rows]
    assert len(cut) == len(rows)
    for name in ("a", "b"):
        np.testing.assert_array_equal(cut[name].values, views[name].values[np.array(rows, int)])
        np.testing.assert_array_equal(cut[name].present, views[name].present[np.array(rows, int)])


def test_slices_and_masks_cut_rows_too() -> None:
    views = _views()
    mask = np.array([True, False] * 3)
    np.testing.assert_array_equal(views[::2]["a"].values, views[mask]["a"].values)
    np.testing.assert_array_equal(views[mask, ...]["a"].values, views[mask]["a"].values)


def test_sequences_are_cut_with_their_lengths() -> None:
    view = View(np.zeros((3, 4, 2)), np.ones(3, bool), np.array([1, 2, 3]))
    assert view[[2, 0]].lengths.tolist() == [3, 1]
    assert view.shape == (4, 2)


def test_without_hides_and_only_keeps() -> None:
    views = _views()
    assert not views.without("a")["a"].present.any()
    assert views.without("a")["b"].present.any()
    assert list(views.only(["b"])) == ["b"]
    assert "a" in views
    assert views.shape == (6, 5)


def test_labelled_views_are_cut_together() -> None:
    data = LabelledViews(_views(), np.arange(6), np.array(list("uvwxyz")))
    cut = data[[3, 1]]
    assert cut.keys.tolist() == ["x", "v"]
    assert cut.labels.tolist() == [3, 1]
    assert len(cut) == len(cut.views) == 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Views({}), "at least one modality"),
        (lambda: Views({"a": np.zeros((2, 1)), "b": np.zeros((3, 1))}), "a 2, b 3"),
        (lambda: View(np.zeros(3), np.ones(3, bool)), r"\(n, d\)"),
        (lambda: View(np.zeros((3, 1)), np.ones(2, bool)), r"\(3,\)"),
        (lambda: View(np.zeros((3, 1)), np.ones(3)), "booleans"),
        (lambda: View(np.zeros((3, 2, 1)), np.ones(3, bool), np.ones(2)), "lengths"),
        (lambda: Views.of(np.zeros((3, 2))), "ndarray"),
        (lambda: _views()[np.zeros((2, 2), int)], "rows need"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(make, said: str) -> None:
    with pytest.raises(FusionError, match=said):
        make()
