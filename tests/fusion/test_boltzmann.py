"""The deep Boltzmann machine as a fusion method: kinds of visibles, filling in, sampling, likelihood, resuming."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from mmcore.errors import FusionError
from mmcore.fusion.base import FitRun
from mmcore.fusion.boltzmann import DbmFusion
from mmcore.fusion.data import View, Views
from mmcore.fusion.impute import Imputer
from mmcore.training import keeping
from tests.fusion.conftest import QUICK, made
from tests.fusion.dbm.exact import log_sum_given, log_z
from tests.fusion.dbm.test_training import _Memory

TRAIN = made(150, 0, 0.3)


def bits(rows: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A binary and a Gaussian view that agree on one of two classes."""
    random = np.random.default_rng(seed)
    codes = np.arange(rows) % 2
    a = (random.random((rows, 4)) < np.where(codes[:, None], 0.9, 0.1)).astype(float)
    b = (2 * codes[:, None] - 1) * np.array([3.0, -2.0, 1.0]) + random.normal(size=(rows, 3)) + 10
    return {"a": a, "b": b}, codes


SMALL = {"hidden": 4, "dim": 4, "pretrain_epochs": 30, "epochs": 60, "batch_size": 50, "learning_rate": 2e-2}


@pytest.fixture(scope="module")
def small() -> DbmFusion:
    views, codes = bits(300, 0)
    return DbmFusion(C=1.0, **SMALL).fit(views, codes)


@pytest.mark.parametrize("scaling", ["none", "standard", "l2"])
def test_views_of_zeros_and_ones_get_binary_visibles(scaling) -> None:
    views, codes = bits(60, 0)
    model = DbmFusion(C=1.0, scaling=scaling, **{**SMALL, "epochs": 1, "pretrain_epochs": 1}).fit(views, codes)
    assert model.kinds_ == {"a": "binary", "b": "gaussian"}
    visible, _ = model._visible(model._prepared(views))
    np.testing.assert_array_equal(visible[0], views["a"])
    if scaling != "l2":
        np.testing.assert_allclose(visible[1], (views["b"] - views["b"].mean(axis=0)) / views["b"].std(axis=0), 1e-4)
    as_numbers = DbmFusion(C=1.0, visibles="gaussian", **{**SMALL, "epochs": 1}).fit(views, codes)
    assert as_numbers.kinds_ == {"a": "gaussian", "b": "gaussian"}
    with pytest.raises(FusionError, match=r"view b: binary visibles need values from 0 to 1"):
        DbmFusion(visibles="binary").fit(views, codes)


def test_what_is_given_stays_and_what_is_not_is_filled_in(small) -> None:
    views, codes = bits(200, 1)
    for found in (small.fill_in({"a": views["a"]}), small.sample({"a": views["a"]}, sweeps=20)):
        np.testing.assert_array_equal(found["a"], views["a"])
        assert found["b"].shape == (200, 3)
        # In the units of the view, and on the right side of its middle.
        assert ((found["b"][:, 0] > 10) == codes).mean() > 0.8
    filled, drawn = small.fill_in({"b": views["b"]})["a"], small.sample({"b": views["b"]}, sweeps=20)["a"]
    assert ((filled >= 0) & (filled <= 1)).all()
    assert np.isin(drawn, (0, 1)).all()
    assert abs(drawn[codes == 1].mean() - 0.9) < 0.1


def test_rows_with_nothing_have_no_expectation_but_samples(small) -> None:
    nothing = Views(bits(400, 1)[0]).without("a", "b")
    assert all(np.isnan(values).all() for values in small.fill_in(nothing).values())
    drawn = small.sample(nothing, sweeps=100)
    # The two views agree in what the machine says by itself, as they do in the data.
    sides = drawn["b"][:, 0] > 10
    assert 0.2 < sides.mean() < 0.8
    assert ((drawn["a"].sum(axis=1) > 2) == sides)[drawn["a"].sum(axis=1) != 2].mean() > 0.85
    np.testing.assert_array_equal(drawn["b"], small.sample(nothing, sweeps=100)["b"])
    assert (drawn["b"] != small.sample(nothing, sweeps=100, seed=1)["b"]).any()


def test_the_likelihood_is_the_exact_one_within_its_error(small) -> None:
    machine = small._machine(0)
    machine.load_state_dict(small.machine_.state_dict())
    machine.double()
    with torch.no_grad():
        found, error = small.log_partition(chains=100, temperatures=300)
        whole = float(log_z(machine))
        assert abs(found - whole) < 4 * error + 1e-3
        views, _ = bits(20, 1)
        visible = [values.double() for values in small._visible(small._prepared(views))[0]]
        for given in (["a", "b"], ["b"]):
            present = [name in given for name in ("a", "b")]
            exact = (log_sum_given(machine, visible, present) - whole).numpy()
            values, shared = small.log_likelihood({name: views[name] for name in given}, temperatures=300)
            np.testing.assert_allclose(values, exact, atol=0.1 + 4 * shared)
    assert not small.log_likelihood(Views(views).without("a", "b"), temperatures=5)[0].any()


def two_sided(rows: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """`a` tells which half of `b` is large, and nothing of its sign: on average `b` is 0 whatever `a` is."""
    random = np.random.default_rng(seed)
    codes, sign = np.arange(rows) % 2, random.choice([-1.0, 1.0], rows)
    a = (2 * codes[:, None] - 1) * np.array([1.0, 1.0, -1.0]) + 0.4 * random.normal(size=(rows, 3))
    large = np.array([[2.0, 2.0, 0.0, 0.0], [0.0, 0.0, 2.0, -2.0]])[codes]
    return {"a": a, "b": sign[:, None] * large + 0.4 * random.normal(size=(rows, 4))}, codes


def test_a_missing_modality_is_filled_in_where_ridge_regression_cannot() -> None:
    (views, _), (held, truth) = two_sided(400, 0), two_sided(300, 1)
    # Nothing but the views is learned from: the labels are noise.
    noise = np.random.default_rng(2).integers(0, 2, 400)
    settings = {"hidden": 16, "dim": 16, "pretrain_epochs": 30, "epochs": 30, "batch_size": 50, "learning_rate": 1e-2}
    model = DbmFusion(C=1.0, **settings).fit(views, noise)

    def right(filled: np.ndarray) -> float:
        # Near what the row's class has, of one sign or the other; halfway between the two is 2.8 away.
        large = np.array([[2.0, 2.0, 0.0, 0.0], [0.0, 0.0, 2.0, -2.0]])[truth]
        away = [np.linalg.norm(filled - sign * large, axis=1) for sign in (-1, 1)]
        return float((np.minimum(*away) < 2).mean())

    assert right(model.fill_in({"a": held["a"]})["b"]) > 0.95
    drawn = model.sample({"a": held["a"]}, sweeps=100)["b"]
    assert right(drawn) > 0.85
    missing = Views({"a": held["a"], "b": View.absent(len(truth), (4,))})
    ridge = Imputer("ridge").fit(Views(views), np.ones(400)).filled(missing)["b"].values
    assert right(ridge) < 0.05


def test_samples_of_a_missing_view_of_digits_are_of_the_digit(mfeat) -> None:
    train, test = mfeat["train"], mfeat["test"]
    names = ["kar", "fou"]
    model = DbmFusion(C=1.0, epochs=20, learning_rate=5e-3).fit(train.views.only(names), train.labels)
    judge = LogisticRegression(max_iter=500).fit(model._prepared(train.views.only(names))["fou"].values, train.labels)
    given = test.views.only(["kar"])
    scores = {
        kind: judge.score(model._prepared({"fou": found["fou"]})["fou"].values, test.labels)
        for kind, found in (("expected", model.fill_in(given)), ("drawn", model.sample(given, sweeps=50)))
    }
    mode = max(np.mean(test.labels == label) for label in np.unique(train.labels))
    assert scores["drawn"] > mode + 0.3
    assert scores["expected"] > mode + 0.3


def test_a_killed_fit_goes_on_to_the_same_bits(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(keeping, "CHECKPOINT_EVERY_S", 0.0)

    def killed(epoch: int, epochs: int, news: dict[str, float]) -> None:
        if epoch == 12:
            raise KeyboardInterrupt

    def fit(run: FitRun) -> DbmFusion:
        return DbmFusion(C=1.0, hidden=8, dim=8, pretrain_epochs=3, **QUICK).fit(TRAIN.views, TRAIN.labels, run=run)

    memory, seen = _Memory(), []
    with pytest.raises(KeyboardInterrupt):
        fit(FitRun(memory, killed))
    resumed = fit(FitRun(memory, lambda epoch, epochs, news: seen.append(epoch)))
    assert 1 < seen[0] <= 13
    for name, model in (("resumed", resumed), ("whole", fit(FitRun()))):
        (tmp_path / name).mkdir()
        model.save(tmp_path / name)
    for file in ("model.json", "model.safetensors"):
        assert (tmp_path / "resumed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_deeper_pathways_learn_too() -> None:
    train, test = made(300, 0, 0.2), made(100, 2)
    model = DbmFusion(C=1.0, hidden=32, dim=32, depth=2, pretrain_epochs=30, **QUICK).fit(train.views, train.labels)
    assert model.score(test.views, test.labels) > 0.5


@pytest.mark.gpu
def test_a_gpu_learns_about_the_same() -> None:
    device = "cuda" if torch.cuda.is_available() else pytest.skip("no GPU")
    views, codes = bits(300, 0)
    model = DbmFusion(C=1.0, **SMALL).fit(views, codes, run=FitRun(device=device))
    assert model.score(*bits(100, 1)) > 0.9
