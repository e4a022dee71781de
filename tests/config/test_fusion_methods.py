"""Settings of fusion methods: a grid of a few, classes of the user's own, and what is said of names that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mmcore.config import load
from mmcore.config.fusion import CcaSettings, ConcatSettings, CustomFusionSettings, WeightedSettings
from mmcore.errors import ConfigError

YAML = """
data: {manifest: m.csv, modalities: {text: {kind: text, column: text}}}
features: {text: {encoder: ngram}}
fusion: {methods: [%s]}
"""


def _problem(tmp_path: Path, method: str) -> str:
    file = tmp_path / "p.yaml"
    file.write_text(YAML % method)
    with pytest.raises(ConfigError) as caught:
        load(file)
    (problem,) = caught.value.problems
    return str(problem).removeprefix(f"{file}: ")


def test_each_combination_is_a_setting_with_a_name() -> None:
    grid = {"n_components": [8, 16], "shrinkage": [0.1, 0.5]}
    tried = CcaSettings(grid=grid, C=2.0).tried()
    assert [label for label, _ in tried] == [
        "n_components=8, shrinkage=0.1",
        "n_components=8, shrinkage=0.5",
        "n_components=16, shrinkage=0.1",
        "n_components=16, shrinkage=0.5",
    ]
    assert [one for _, one in tried][1] == CcaSettings(n_components=8, shrinkage=0.5, C=2.0)
    assert CcaSettings().tried() == [("", CcaSettings())]


def test_the_grid_is_no_argument_and_not_in_the_recipe() -> None:
    method = CcaSettings(grid={"n_components": [8, 16]})
    assert "grid" not in method.arguments()
    assert method.recipe() == CcaSettings().recipe()
    assert method.tried()[0][1].recipe() == CcaSettings(n_components=8).recipe()


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("{method: cca, grid: {n_component: [2]}}", "no setting 'n_component' to try values of; did you mean 'n_comp"),
        ("{method: cca, grid: {modalities: [[text]]}}", "no setting 'modalities' to try values of; known here: C"),
        ("{method: cca, grid: {n_components: []}}", "n_components lists no values; give at least one"),
        ("{method: cca, grid: {n_components: [2, 2]}}", "n_components lists 2 twice"),
        ("{method: cca, grid: {n_components: [1, 2, 3, 4, 5]}}", "5 settings are too many: at most 4"),
        ("{method: cca, grid: {n_components: [1, 2, 3], shrinkage: [0, 1]}}", "3 × 2 = 6 settings are too many"),
        ("{method: cca, grid: {n_components: [2, 0]}}", "n_components=0 does not fit: Input should be greater than"),
        (
            "{method: cca, grid: {n_components: [many]}}",
            "n_components=many does not fit: Input should be a valid integ",
        ),
    ],
)
def test_a_bad_grid(tmp_path: Path, method: str, said: str) -> None:
    problem = _problem(tmp_path, method)
    assert problem.startswith(f"fusion.methods.0: grid: {said}")


@pytest.mark.parametrize(
    ("method", "near"),
    [("concatenate", "concat"), ("{method: autoencodr}", "autoencoder"), ("weigthed", "weighted")],
)
def test_an_unknown_method_names_the_nearest(tmp_path: Path, method: str, near: str) -> None:
    problem = _problem(tmp_path, method)
    assert problem.startswith("fusion.methods.0.method: unknown method")
    assert f"Did you mean {near!r}? Known: " in problem


def test_only_methods_that_draw_depend_on_the_seed() -> None:
    assert WeightedSettings().seeded
    assert not ConcatSettings().seeded
    assert not CcaSettings(grid={"n_components": [8]}).seeded


OWN = """
from mmcore.fusion.concat import ConcatFusion


class Own(ConcatFusion):
    draws = False

    def __init__(self, *, power=1, head="linear", C="auto", impute="mean", scaling="standard", modalities=None,
                 random_state=0, task="classes", columns=None):
        super().__init__(head=head, C=C, impute=impute, scaling=scaling, modalities=modalities,
                         random_state=random_state, task=task, columns=columns)
        self.power = power


class Unfinished(ConcatFusion.__mro__[1]):
    pass


class Narrow(ConcatFusion):
    def __init__(self, power=1):
        self.power = power


def function():
    pass
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Settings of classes in a module that lies beside the YAML."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"own_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(OWN)

    def settings(of: str, **more: Any) -> CustomFusionSettings:
        return CustomFusionSettings.model_validate({"class": f"{name}:{of}", **more})

    return settings


def test_a_class_of_ones_own(own: Any) -> None:
    method = own("Own", options={"power": 2, "C": 0.5})
    assert method.problems("fusion.methods.0") == []
    assert (method.name, method.seeded, method.trusted()) == ("Own", False, (method.class_,))
    model = method.load()(**method.arguments(), random_state=0, task="classes")
    assert (model.power, model.C, model.scaling) == (2, 0.5, "standard")


def test_its_source_is_in_the_recipe(own: Any) -> None:
    first = own("Own").recipe()
    assert first["source"]
    assert first["class"].endswith(":Own")
    assert own("Own", options={"power": 2}).recipe() != first


def test_a_grid_over_its_options(own: Any) -> None:
    method = own("Own", options={"C": 1.0}, grid={"power": [1, 2]})
    assert [(label, one.options) for label, one in method.tried()] == [
        ("power=1", {"C": 1.0, "power": 1}),
        ("power=2", {"C": 1.0, "power": 2}),
    ]
    with pytest.raises(ValidationError, match="no setting 'task'"):
        own("Own", grid={"task": ["regression"]})


@pytest.mark.parametrize(
    ("of", "more", "said"),
    [
        ("Absent", {}, "cannot be imported (AttributeError"),
        ("function", {}, "is no fusion method. Make it a subclass of FusionModel or of HeadedFusion."),
        ("Unfinished", {}, "has no _features, _learn, _map_restore, _map_state."),
        ("Narrow", {}, "does not take these arguments (got an unexpected keyword argument 'scaling')."),
        ("Own", {"options": {"powr": 1}}, "does not take these arguments (got an unexpected keyword argument 'powr')."),
        ("Own", {"grid": {"powr": [1]}}, "does not take these arguments (got an unexpected keyword argument 'powr')."),
    ],
)
def test_a_class_that_cannot_be_made(own: Any, of: str, more: dict[str, Any], said: str) -> None:
    method = own(of, **more)
    (problem,) = method.problems("fusion.methods.2")
    assert str(problem).startswith(f"fusion.methods.2.class: '{method.class_}' {said}")
    with pytest.raises(ConfigError, match=r"fusion\.methods"):
        method.recipe()
