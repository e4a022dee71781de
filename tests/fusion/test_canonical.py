"""Tests of canonical correlations against SAS, Matlab and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_linnerud

from mmcore.errors import FusionError
from mmcore.fusion.canonical import canonical_tests
from mmcore.fusion.cca import CcaFusion
from tests.fusion.correlated import related


def _fit(views: dict[str, np.ndarray], **settings) -> CcaFusion:
    plain = {"shrinkage": 0.0, "scaling": "none", "C": 1.0} | settings
    return CcaFusion(**plain).fit(views, np.arange(len(views["x"])) % 2)


def test_linnerud_as_sas_has_it() -> None:
    data = load_linnerud()
    tests = _fit({"x": data.data, "y": data.target}).canonical_tests()
    np.testing.assert_allclose(tests.correlations, [0.79560815, 0.20055604, 0.07257029], atol=1e-8)
    steps = tests.dimensions
    np.testing.assert_allclose(steps.wilks, [0.35039053, 0.95472266, 0.99473355], atol=1e-8)
    np.testing.assert_allclose(steps.f, [2.05, 0.18, 0.08], atol=0.005)
    np.testing.assert_allclose(steps.f_p, [0.0635, 0.9491, 0.7748], atol=5e-5)
    np.testing.assert_allclose(steps.f_df, [[9, 34.223], [4, 30], [1, 16]], atol=5e-4)
    assert tests.pillai.value == pytest.approx(0.67848151, abs=1e-8)
    assert tests.hotelling_lawley.value == pytest.approx(1.77194146, abs=1e-8)
    assert tests.roy.value == pytest.approx(1.72473874, abs=1e-8)


def test_matlabs_case_with_a_perfect_correlation() -> None:
    X = np.vstack([np.eye(3), 2 * np.eye(3)])
    Y = np.vstack([np.fliplr(np.eye(3)), 0.1 * np.eye(3)])
    tests = _fit({"x": X, "y": Y}).canonical_tests()
    np.testing.assert_allclose(tests.correlations, [1, 0.533992991, 0.355995328], atol=1e-8)
    np.testing.assert_allclose(tests.dimensions.wilks, [0, 0.624256445, 0.873267327], atol=1e-8)
    np.testing.assert_allclose(tests.dimensions.chi2, [np.inf, 0.706791037, 0.542995282], atol=1e-7)
    assert tests.dimensions.chi2_p[0] == 0
    assert tests.roy.value == np.inf


@pytest.mark.parametrize(("first", "second"), [(3, 5), (5, 3), (2, 2), (1, 4), (6, 6)])
def test_traces_are_those_of_statsmodels(first: int, second: int) -> None:
    from statsmodels.multivariate.multivariate_ols import multivariate_stats

    rows, r = 40, np.sort(np.random.default_rng(first).uniform(0.05, 0.9, min(first, second)))[::-1]
    peer = multivariate_stats(r**2, first, second, rows - second - 1)
    tests = canonical_tests(r, rows, first, second)
    wilks = tests.dimensions
    np.testing.assert_allclose(
        [wilks.wilks[0], *wilks.f_df[0], wilks.f[0], wilks.f_p[0]], peer.iloc[0].astype(float), rtol=1e-9
    )
    for number, test in enumerate((tests.pillai, tests.hotelling_lawley, tests.roy), start=1):
        np.testing.assert_allclose(
            [test.value, *test.f_df, test.f, test.p], peer.iloc[number].astype(float), rtol=1e-9, err_msg=str(number)
        )


def test_p_is_uniform_where_views_are_unrelated() -> None:
    random = np.random.default_rng(0)
    found = []
    for _ in range(400):
        x, y = random.normal(size=(40, 3)), random.normal(size=(40, 2))
        bases = [np.linalg.qr(view - view.mean(axis=0))[0] for view in (x, y)]
        tests = canonical_tests(np.linalg.svd(bases[0].T @ bases[1], compute_uv=False), 40, 3, 2)
        found.append([tests.dimensions.f_p[0], tests.dimensions.chi2_p[0], tests.pillai.p, tests.hotelling_lawley.p])
    # The share below 10% of 400 draws has a deviation of .015.
    np.testing.assert_allclose((np.array(found) < 0.1).mean(axis=0), 0.1, atol=0.05)


def test_correlations_of_zero_leave_nothing_to_test() -> None:
    tests = canonical_tests([0.5, 0.0], 30, 2, 4)
    assert tests.dimensions.wilks[1] == 1
    assert tests.dimensions.chi2[1] == 0
    assert tests.dimensions.f_p[1] == 1


def test_too_few_rows_have_no_f() -> None:
    assert np.isnan(canonical_tests([0.9, 0.5], 4, 2, 4).pillai.f)


def test_numbers_that_do_not_fit_are_refused() -> None:
    for wrong in ([0.5], [0.2, 0.5], [0.5, -0.1], [1.2, 0.1]):
        with pytest.raises(FusionError, match="all 2 correlations of views of ranks 2 and 3"):
            canonical_tests(wrong, 20, 2, 3)
    with pytest.raises(FusionError, match="at least two rows"):
        canonical_tests([0.5, 0.2], 1, 2, 3)


def test_a_model_says_what_its_tests_lack() -> None:
    views = {"x": related(0)["a"], "y": related(0)["b"]}
    with pytest.raises(FusionError, match="shrinkage: 0, n_components: at least 3"):
        _fit(views, shrinkage=0.1, n_components=2).canonical_tests()
    with pytest.raises(FusionError, match="two views"):
        _fit({**views, "z": views["y"] + views["x"][:, :3]}).canonical_tests()


def test_a_view_with_fewer_directions_than_columns_counts_those(tmp_path) -> None:
    views = related(1)
    twice = np.hstack([views["a"], views["a"][:, :1] * 3])
    model = _fit({"x": twice, "y": views["b"]})
    plain = _fit({"x": views["a"], "y": views["b"]}).canonical_tests()
    np.testing.assert_allclose(model.canonical_tests().dimensions.f, plain.dimensions.f, rtol=1e-6)
    model.save(tmp_path)
    np.testing.assert_array_equal(
        CcaFusion.load(tmp_path).canonical_tests().dimensions.f, model.canonical_tests().dimensions.f
    )
