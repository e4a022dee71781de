"""One YAML, its overrides, and every problem at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from mmcore.config import CcaSettings, ConcatSettings, RunConfig, load
from mmcore.errors import ConfigError

GOOD = """
name: digits
data:
  manifest: manifest.csv
  modalities:
    image: {kind: image, column: image, size: 28}
    text: {kind: text, column: text}
features:
  image: {encoder: cnn}
  text: {encoder: ngram, refit: 10%}
fusion: {methods: [concat, {method: cca, n_components: 3}]}
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "pipeline.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def problems(file: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(file, overrides)
    return [str(problem).replace(str(file), "FILE") for problem in caught.value.problems]


class TestGoodFiles:
    def test_values_and_defaults(self, tmp_path: Path) -> None:
        config = load(write(tmp_path, GOOD))
        assert config.data.modalities["image"].size == 28
        assert config.features["text"].refit == pytest.approx(0.1)
        assert config.data.max_rejected == 0.05
        assert isinstance(config.fusion.methods[0], ConcatSettings)
        assert config.fusion.methods[1] == CcaSettings(n_components=3)

    def test_paths_start_from_the_files_folder(self, tmp_path: Path) -> None:
        config = load(write(tmp_path, GOOD))
        assert config.data.manifest == str(tmp_path / "manifest.csv")
        assert config.output == str(tmp_path / "output")

    def test_urls_stay(self, tmp_path: Path) -> None:
        config = load(write(tmp_path, GOOD + "output: s3://bucket/out\n"))
        assert config.output == "s3://bucket/out"

    def test_a_configuration_survives_json(self, tmp_path: Path) -> None:
        config = load(write(tmp_path, GOOD))
        assert RunConfig.model_validate(config.model_dump(mode="json")) == config


class TestOverrides:
    def test_replace_one_value(self, tmp_path: Path) -> None:
        config = load(write(tmp_path, GOOD), ["data.limit=10", "fusion.metric=accuracy", "features.image.epochs=3"])
        assert (config.data.limit, config.fusion.metric, config.features["image"].epochs) == (10, "accuracy", 3)

    def test_values_are_yaml(self, tmp_path: Path) -> None:
        config = load(write(tmp_path, GOOD), ["fusion.methods=[concat]", "data.max_rejected=20%"])
        assert config.fusion.methods == [ConcatSettings()]
        assert config.data.max_rejected == pytest.approx(0.2)

    def test_paths_start_from_where_one_stands(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = write(tmp_path, GOOD)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        config = load(file, ["output=out", "data.manifest=[a.csv, b.csv]"])
        assert config.output == str(tmp_path / "elsewhere" / "out")
        assert config.data.manifest == [str(tmp_path / "elsewhere" / name) for name in ("a.csv", "b.csv")]


class TestFaults:
    def test_all_of_them_at_once_with_the_nearest_name(self, tmp_path: Path) -> None:
        text = (
            GOOD.replace("size: 28", "sise: 28")
            .replace("manifest:", "manifets:")
            .replace("encoder: cnn", "encoder: cnnn")
            .replace("n_components", "n_component")
        )
        found = problems(write(tmp_path, text), "data.limit=0")
        # However many encoders there are.
        found[4] = found[4].partition(" Known: ")[0]
        assert found == [
            "FILE: data.manifest: this key is required. Add it.",
            "FILE: data.modalities.image.sise: unknown key. Did you mean 'size'?",
            "FILE: data.limit: Input should be greater than or equal to 1, got 0.",
            "FILE: data.manifets: unknown key. Did you mean 'manifest'?",
            "FILE: features.image.encoder: unknown encoder 'cnnn'. Did you mean 'cnn'?",
            "FILE: fusion.methods.1.n_component: unknown key. Did you mean 'n_components'?",
        ]

    def test_an_encoder_for_another_kind(self, tmp_path: Path) -> None:
        (problem,) = problems(write(tmp_path, GOOD.replace("encoder: ngram, refit: 10%", "encoder: cnn")))
        assert problem == "FILE: features.text: encoder 'cnn' reads image, and text is text."

    def test_a_modality_without_an_encoder(self, tmp_path: Path) -> None:
        (problem,) = problems(write(tmp_path, GOOD.replace("  text: {encoder: ngram, refit: 10%}\n", "")))
        assert "no encoder for text" in problem

    @pytest.mark.parametrize(
        ("text", "what"),
        [
            ("a: [1", "not valid YAML at line"),
            ("- a", "holds no settings"),
            ("", "holds no settings"),
        ],
    )
    def test_files_that_hold_no_settings(self, tmp_path: Path, text: str, what: str) -> None:
        assert what in problems(write(tmp_path, text))[0]

    def test_no_file(self, tmp_path: Path) -> None:
        assert "there is no such file" in problems(tmp_path / "no.yaml")[0]
        assert "this is a folder" in problems(tmp_path)[0]
        with pytest.raises(ConfigError, match="this is an address, and settings are read from a file"):
            load(Path("s3://bucket/runs"))

    def test_a_word_where_settings_are_needed(self, tmp_path: Path) -> None:
        found = problems(write(tmp_path, GOOD), "data.modalities.image=image")
        assert found == [
            "FILE: data.modalities.image: settings are needed here, got 'image'. Write them as {name: value, …}."
        ]

    def test_the_place_of_a_fault_is_as_it_was_written(self, tmp_path: Path) -> None:
        found = problems(write(tmp_path, GOOD), "data.modalities.image.size=-3")
        assert found[0].startswith("FILE: data.modalities.image.size: Input should be greater than or equal to 1")
        assert all("constrained" not in line and "tuple[" not in line for line in found)

    @pytest.mark.parametrize("override", ["nonsense", "=3", "data..limit=1", "name.x=1", "a=[1"])
    def test_overrides_that_are_none(self, tmp_path: Path, override: str) -> None:
        assert problems(write(tmp_path, GOOD), override)[0].startswith(override.split("=")[0])


class TestRecipes:
    def test_what_cannot_affect_the_bytes_is_left_out(self) -> None:
        config = RunConfig.model_validate(yaml.safe_load(GOOD))
        assert "column" not in config.data.modalities["image"].recipe()
        assert "refit" not in config.features["text"].recipe()
        assert config.features["image"].recipe()["version"] == 1

    def test_settings_do_not_change_once_read(self) -> None:
        config = RunConfig.model_validate(yaml.safe_load(GOOD))
        with pytest.raises(ValidationError):
            config.name = "other"  # type: ignore[misc]
