"""Settings of fusion methods that depend on each other, or on what is installed."""

from __future__ import annotations

import inspect
from typing import get_args

import pytest
from pydantic import ValidationError

from mmcore.config.fusion import IMPLEMENTATIONS, ConcatSettings, FusionConfig, OwnFusion, WeightedSettings

SETTINGS = get_args(OwnFusion)


@pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: kind.__name__)
def test_the_fields_are_the_constructors_arguments(kind) -> None:
    settings = kind()
    arguments = inspect.signature(settings.load()).parameters
    given = settings.arguments()
    assert set(given) | {"random_state", "task", "columns"} == set(arguments)
    assert {name: arguments[name].default for name in given} == given
    assert kind.implementation in IMPLEMENTATIONS


def test_every_method_is_known_by_its_name() -> None:
    names = [kind().method for kind in SETTINGS]
    assert [settings.method for settings in FusionConfig(methods=names).methods] == names
    schema = FusionConfig.model_json_schema(mode="validation")
    assert set(names) == set(schema["properties"]["methods"]["items"]["anyOf"][0]["enum"])


def test_numbers_for_the_modalities_need_fixed_weights() -> None:
    assert WeightedSettings(weights="fixed", fixed={"image": 0.5, "text": 2}).fixed == {"image": 0.5, "text": 2.0}
    with pytest.raises(ValidationError, match="`weights` is learned; set `weights: fixed`"):
        WeightedSettings(fixed={"image": 0.5})
    with pytest.raises(ValidationError, match="greater than 0"):
        WeightedSettings(weights="fixed", fixed={"image": 0})


def test_trees_need_their_library(monkeypatch) -> None:
    monkeypatch.setattr("mmcore.config.fusion.base.find_spec", lambda _: None)
    with pytest.raises(ValidationError, match=r"pip install 'mmcore\[trees\]'"):
        ConcatSettings(head="tree")


def test_memory_is_a_number_of_bytes_or_has_a_unit() -> None:
    methods = [{"method": "kcca", "memory_bytes": "2GiB"}, {"method": "easymkl", "memory_bytes": 1000}]
    config = FusionConfig(methods=methods, memory_bytes="512MiB")
    assert [method.memory_bytes for method in config.methods] == [2 << 30, 1000]
    assert config.memory_bytes == 512 << 20
    with pytest.raises(ValidationError, match="could not interpret byte unit"):
        FusionConfig(memory_bytes="4 apples")


@pytest.mark.parametrize(
    "method", [{"method": "easymkl", "kernels": ["rbf", "chi2"]}, {"method": "kcca", "kernel": "chi2"}]
)
def test_chi2_does_not_go_with_values_around_zero(method) -> None:
    with pytest.raises(ValidationError, match="chi2 needs values that are not negative: set `scaling: none`"):
        FusionConfig(methods=[method])
    assert FusionConfig(methods=[{**method, "scaling": "none"}])
