"""Every YAML that is shipped can be loaded as it stands."""

from importlib.resources import files
from pathlib import Path

from mmcore.config import CnnSettings, ImageSettings, LogmelCnnSettings, NgramSettings, load

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_examples_load():
    found = sorted(EXAMPLES.glob("*.yaml"))
    assert [file.name for file in found] == ["digits.yaml", "word-cards.yaml"]
    for file in found:
        config = load(file)
        assert config.name == file.stem
        assert set(config.data.modalities) == {"image", "audio", "text"}
        kinds = {name: type(encoder) for name, encoder in config.features.items()}
        assert kinds == {"image": CnnSettings, "audio": LogmelCnnSettings, "text": NgramSettings}
        assert [method.method for method in config.fusion.methods] == ["concat", "weighted", "cca", "autoencoder"]


def test_digits_example_is_the_samples_own_pipeline():
    own = load(Path(str(files("mmcore.samples") / "pipeline.yaml")))
    example = load(EXAMPLES / "digits.yaml")
    assert Path(example.data.manifest) == EXAMPLES.parent / "demo" / "digits" / "manifest.csv"
    assert Path(example.output) == EXAMPLES.parent / "demo" / "output"
    same = {"data": own.data, "output": own.output}
    assert example.model_copy(update=same) == own
    assert example.data.model_copy(update={"manifest": own.data.manifest}) == own.data


def test_word_cards_example_runs_on_the_word_cards(word_cards_dir):
    config = load(EXAMPLES / "word-cards.yaml", [f"data.manifest={word_cards_dir}/manifest.jsonl"])
    assert config.data.manifest == f"{word_cards_dir}/manifest.jsonl"
    image = config.data.modalities["image"]
    assert isinstance(image, ImageSettings)
    assert (image.size, image.mode) == (64, "rgb")
