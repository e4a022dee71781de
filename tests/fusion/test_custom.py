"""A fusion method of the user's own: the example of docs/fusion.md as it stands, from the YAML to a score."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from mmcore.config.fusion import CustomFusionSettings
from mmcore.errors import ConfigError, FusionError
from mmcore.evaluation.evaluate import evaluate_models, open_model
from mmcore.fusion.base import FusionModel
from mmcore.fusion.fit import standing
from mmcore.fusion.planned import plan_models
from mmcore.parallel import serial_pool
from mmcore.progress import Silent
from tests.fusion.test_fit import Bench, bench  # noqa: F401 - a fixture

TEXT = (Path(__file__).resolve().parent.parent.parent / "docs" / "fusion.md").read_text()
CODE = re.search(r"```python\n(# powers\.py\n.*?)```", TEXT, re.DOTALL).group(1)
METHOD = {"method": "custom", "class": "powers:Powers", "options": {"C": 1.0}, "grid": {"power": [0.5, 1.0, 2.0]}}


@pytest.fixture
def powers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module of the example, beside the manifest."""
    file = tmp_path / "powers.py"
    file.write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "powers", raising=False)
    return file


def test_the_example_is_as_short_as_it_says() -> None:
    assert len([line for line in CODE.splitlines() if line.strip()]) < 30


def test_from_the_yaml_to_a_score(bench: Bench, powers: Path) -> None:  # noqa: F811
    config = bench.config([METHOD, "concat"])
    models = bench.fit(config)
    assert [model.title for model in models][:3] == [f"Powers[power={p}]" for p in ("0.5", "1", "2")]
    best = standing(models, config.metric)[0]
    assert best.name == "Powers"
    assert best.val_scores["accuracy"] > 0.8
    pool = serial_pool(config.compute)
    (scored,) = evaluate_models(config, bench.dataset, bench.encoders, [best], bench.store, pool, Silent())
    overall = bench.store.read_json(f"evaluations/{scored.digest}/scores.json")["overall"]
    assert overall["accuracy"] > 0.8


def test_it_is_loaded_only_where_it_is_trusted(bench: Bench, powers: Path) -> None:  # noqa: F811
    best = bench.fit(bench.config([METHOD]))[0]
    folder = bench.store.url(f"models/{best.digest}")
    with pytest.raises(FusionError, match=r"powers:Powers, not a fusion method of this library"):
        FusionModel.load(folder)
    with pytest.raises(FusionError, match=r"powers:Powers"):
        open_model(bench.store, best.digest)
    assert open_model(bench.store, best.digest, ["powers:Powers"]).largest_.shape == (9,)


def test_an_edit_trains_it_anew(bench: Bench, powers: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    config = bench.config([METHOD])
    bench.fit(config)
    assert set(bench.actions(config).values()) == {"reuse"}
    powers.write_text(CODE.replace("1e-12", "1e-9"))
    monkeypatch.delitem(sys.modules, "powers")
    changed = {name for name, action in bench.actions(config).items() if action == "compute"}
    assert changed == {f"Powers[power={p}]" for p in ("0.5", "1", "2")}
    assert bench.foresee(config)[0].reason == "changed settings: source"


def test_one_that_cannot_be_made_is_a_fault_of_the_config(bench: Bench, powers: Path) -> None:  # noqa: F811
    with pytest.raises(ConfigError) as caught:
        plan_models(bench.config(["concat", {**METHOD, "options": {"pwr": 2}}, {**METHOD, "class": "nowhere:It"}]))
    assert [problem.where for problem in caught.value.problems] == ["fusion.methods.1.class", "fusion.methods.2.class"]


def test_it_counts_once_for_all_seeds(powers: Path) -> None:
    assert not CustomFusionSettings.model_validate(METHOD).seeded
