"""Features that stay in the store while a model learns, and several processes that read them: the same models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mmcore.errors import FusionError
from mmcore.features.opening import open_encoder
from mmcore.fusion import scaling, stored
from mmcore.fusion.base import FusionModel
from mmcore.fusion.concat import ConcatFusion
from mmcore.fusion.data import View, Views, load_views
from mmcore.fusion.fit import read_receipt
from mmcore.fusion.stored import StoredRows
from mmcore.fusion.weighted import WeightedFusion
from tests.fusion.test_fit import WEIGHTED, Bench, _bytes, bench  # noqa: F401 - a fixture

AUTOENCODER = {**WEIGHTED, "method": "autoencoder", "hidden": 8, "epochs": 4}


def with_compute(made: Bench, methods: list[Any], fusion: dict[str, Any], **compute: Any) -> Any:
    config = made.config(methods, **fusion)
    return config.model_copy(update={"compute": config.compute.model_copy(update=compute)})


def models(made: Bench, config: Any, count: int = 1) -> list[FusionModel]:
    entries = made.fit(config)[:count]
    return [FusionModel.load(made.store.url(f"models/{entry.digest}")) for entry in entries]


def test_models_are_the_same_wherever_their_features_were(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    methods, sizes = [WEIGHTED, AUTOENCODER], []
    read = StoredRows.read

    def counted(self: StoredRows, rows: Any = slice(None)) -> Any:
        found = read(self, rows)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(StoredRows, "read", counted)
    monkeypatch.setattr(stored, "ROWS_AT_ONCE", 32)
    bench.fit(bench.config(methods))
    kept = _bytes(bench.store)
    assert not sizes
    few = bench.config(methods, memory_bytes=1)
    assert set(bench.actions(few).values()) == {"reuse"}, "memory is no part of the recipe"
    for step in bench.foresee(few)[:2]:
        bench.store.remove(f"models/{step.digest}")
    bench.fit(few)
    assert _bytes(bench.store) == kept
    assert sizes
    # Training and looking through are by parts; validation and prediction take 4096 rows.
    assert max(sizes) <= 60


def test_moments_in_parts_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    values = random.normal(3, 2, (100, 4))
    values[:, 2] = 0.1
    view, weights = View(values, random.random(100) < 0.7), random.random(100)
    whole = scaling._moments(view, weights)
    assert all(np.array_equal(*pair) for pair in zip(scaling._moments_in_parts(view, weights), whole, strict=True))
    monkeypatch.setattr(stored, "ROWS_AT_ONCE", 7)
    for part, all_ in zip(scaling._moments_in_parts(view, weights), whole, strict=True):
        np.testing.assert_allclose(part, all_, rtol=1e-12)


def test_a_stored_view_is_cut_without_reading_and_read_by_any_method(bench: Bench) -> None:  # noqa: F811
    rows = load_views(bench.store, bench.dataset, bench.encoders, "train")
    features = {
        entry.modality: open_encoder(bench.store, bench.dataset, entry, splits=["train"]) for entry in bench.encoders
    }
    views = Views({name: View.stored(one) for name, one in features.items()})
    cut = views[[5, 3, 8]]
    assert isinstance(cut["audio"].values, StoredRows)
    np.testing.assert_array_equal(cut.read()["audio"].values, rows.views["audio"].values[[5, 3, 8]])
    for model in (ConcatFusion(), WeightedFusion(epochs=2, dim=4)):
        model.fit(rows.views, rows.labels)
        expected = model.predict_proba(rows.views)
        np.testing.assert_array_equal(model.predict_proba(views), expected)
        np.testing.assert_array_equal(model.fit(views, rows.labels).predict_proba(rows.views), expected)


def test_a_row_that_is_not_finite_is_named_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "ROWS_AT_ONCE", 4)
    values = np.ones((10, 2))
    values[6, 1] = np.inf
    with pytest.raises(FusionError, match="view a: row 6 is marked present but holds NaN or infinity"):
        ConcatFusion().fit({"a": values}, np.arange(10) % 2)


def test_two_processes_fit_what_one_does(bench: Bench) -> None:  # noqa: F811
    """Dropout, hidden modalities and features that each process reads itself; the recipe says that there were two."""
    method = {**AUTOENCODER, "epochs": 3}
    (one,) = models(bench, with_compute(bench, [method], {}))
    together = with_compute(bench, [method], {"memory_bytes": 1}, processes=2)
    assert bench.foresee(together)[0].reason == "processes changed"
    (two,) = models(bench, together)
    rows = load_views(bench.store, bench.dataset, bench.encoders, "test")
    np.testing.assert_allclose(two.predict_log_proba(rows.views), one.predict_log_proba(rows.views), atol=1e-5)
    np.testing.assert_allclose(two.curves_["train_loss"], one.curves_["train_loss"], atol=1e-5)
    digests = [
        step.digest for config in (with_compute(bench, [method], {}), together) for step in bench.foresee(config)
    ]
    recipes = [read_receipt(bench.store, name)["recipe"] for name in (digests[0], digests[len(digests) // 2])]
    assert [recipe.get("processes") for recipe in recipes] == [None, 2]


def test_mixed_precision_is_part_of_the_recipe(bench: Bench) -> None:  # noqa: F811
    (full,) = models(bench, with_compute(bench, [WEIGHTED], {}))
    mixed = with_compute(bench, [WEIGHTED], {}, training_precision="bfloat16")
    assert bench.foresee(mixed)[0].reason == "precision changed"
    (half,) = models(bench, mixed)
    losses = full.curves_["train_loss"][0], half.curves_["train_loss"][0]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
