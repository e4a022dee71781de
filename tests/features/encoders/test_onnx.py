"""Held against torch and onnxruntime called directly."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

from mmcore.config import OnnxSettings, load
from mmcore.errors import ConfigError, StageError
from mmcore.features.encoders.onnx import OnnxEncoder
from mmcore.features.store import read_view
from tests.features.conftest import Work
from tests.features.encoders.encoding import encoded

IMAGE = {"kind": "image", "size": 12, "mode": "rgb", "resize": "pad"}
AUDIO = {"kind": "audio", "sample_rate_hz": 8000}
RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.standard_normal((5, 3, 3, 3)).astype(np.float32)
KINDS = {np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16, np.uint8: TensorProto.UINT8}


def convolution(
    path: Path, *, batch: Any = "n", size: int = 12, channels_last: bool = False, kind: Any = np.float32, **saving: Any
) -> Path:
    """A convolution without padding, its maxima over the picture; (n, 5)."""
    shape = [batch, size, size, 3] if channels_last else [batch, 3, size, size]
    nodes = [helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT)]
    nodes.append(helper.make_node("Transpose", ["floats"], ["first"], perm=[0, 3, 1, 2] if channels_last else None))
    if not channels_last:
        nodes[-1] = helper.make_node("Identity", ["floats"], ["first"])
    nodes += [
        helper.make_node("Conv", ["first", "w"], ["planes"]),
        helper.make_node("GlobalMaxPool", ["planes"], ["peaks"]),
        helper.make_node("Flatten", ["peaks"], ["vector"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pictures",
        [helper.make_tensor_value_info("x", KINDS[kind], shape)],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    return saved(path, graph, **saving)


def linear(path: Path, shape: Sequence[Any], nodes: Sequence[Any], outputs: dict[str, Sequence[Any]]) -> Path:
    outs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in outputs.items()]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)], outs)
    return saved(path, graph)


def saved(path: Path, graph: Any, **saving: Any) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path, **saving)
    return path


def opened(path: Path, modality: dict[str, Any], **settings: Any) -> OnnxEncoder:
    encoder = OnnxEncoder(OnnxSettings(file=str(path), **settings), modality)
    encoder.open()
    return encoder


def pictures(count: int) -> list[np.ndarray]:
    return list(RANDOM.integers(0, 256, (count, 12, 12, 3), dtype=np.uint8))


@pytest.mark.parametrize("batch", ["n", 1, 4])
@pytest.mark.parametrize("channels_last", [False, True])
def test_equal_to_torch_and_to_onnxruntime(tmp_path: Path, batch: Any, channels_last: bool) -> None:
    path = convolution(tmp_path / "m.onnx", batch=batch, channels_last=channels_last)
    mean, std = [0.48, 0.45, 0.40], [0.26, 0.25, 0.27]
    encoder = opened(path, IMAGE, layout="nhwc" if channels_last else "nchw", mean=mean, std=std)
    values = pictures(6)
    found = encoded(encoder, values)
    normal = (np.stack(values) / 255 - mean) / std
    inputs = torch.from_numpy(normal).float().permute(0, 3, 1, 2)
    by_torch = nn.functional.conv2d(inputs, torch.from_numpy(WEIGHTS)).amax(dim=(2, 3))
    np.testing.assert_allclose(found, by_torch.numpy(), rtol=1e-5, atol=1e-5)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = normal.astype(np.float32) if channels_last else inputs.numpy()
    rows = {"n": 6, 1: 1, 4: 4}[batch]
    (direct,) = session.run(None, {"x": given[:rows]})
    np.testing.assert_allclose(found[:rows], direct, atol=1e-5)


@pytest.mark.parametrize("kind", [np.float16, np.uint8])
def test_other_kinds_of_numbers(tmp_path: Path, kind: Any) -> None:
    values = pictures(3)
    found = encoded(opened(convolution(tmp_path / "m.onnx", kind=kind), IMAGE), values)
    inputs = np.stack(values).astype(np.float32) / (1 if kind is np.uint8 else 255)
    inputs = inputs.astype(kind).astype(np.float32).transpose(0, 3, 1, 2)
    expected = nn.functional.conv2d(torch.from_numpy(inputs), torch.from_numpy(WEIGHTS)).amax(dim=(2, 3))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [["n", "t"], ["n", 1, "t"]])
def test_sounds_of_any_length(tmp_path: Path, shape: list[Any]) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[-1], keepdims=1),
        helper.make_node("ReduceL2", ["x"], ["norm"], axes=[-1], keepdims=1),
        helper.make_node("Concat", ["mean", "norm"], ["both"], axis=-1),
        helper.make_node("Constant", [], ["kept"], value=numpy_helper.from_array(np.array([True, True]))),
        # How many are kept only running tells.
        helper.make_node("Compress", ["both", "kept"], ["some"], axis=len(shape) - 1),
        helper.make_node("Flatten", ["some"], ["vector"]),
    ]
    path = linear(tmp_path / "m.onnx", shape, nodes, {"vector": ["n", "d"]})
    encoder = opened(path, AUDIO)
    values = [RANDOM.standard_normal(length).astype(np.float32) for length in (50, 80, 50, 3, 80)]
    encoder.look(iter(values))
    expected = [[value.mean(), np.linalg.norm(value)] for value in values]
    np.testing.assert_allclose(encoded(encoder, values), expected, atol=1e-5)
    assert encoder.dim == 2, "told by a vector, as the file does not"
    with pytest.raises(StageError, match="encodes none of the samples it was tried on: there is none"):
        opened(path, AUDIO).look(iter([]))


def test_its_bytes_and_those_beside_it_are_its_sources(tmp_path: Path) -> None:
    path = convolution(
        tmp_path / "m.onnx", save_as_external_data=True, location="m.weights", size_threshold=0, convert_attribute=True
    )
    settings = OnnxSettings(file=str(path))
    first = settings.sources()
    assert set(first) == {"model", "m.weights"}
    assert encoded(opened(path, IMAGE), pictures(2)).shape == (2, 5)
    other = tmp_path / "other"
    other.mkdir()
    for name in ("m.onnx", "m.weights"):
        (other / name).write_bytes((tmp_path / name).read_bytes())
    copied = OnnxSettings(file=str(other / "m.onnx"))
    assert (copied.sources(), copied.recipe()) == (first, settings.recipe()), "where it lies does not matter"
    weights = bytearray((other / "m.weights").read_bytes())
    weights[0] ^= 1
    (other / "m.weights").write_bytes(weights + b"\0")
    assert copied.sources()["m.weights"] != first["m.weights"]
    (other / "m.weights").unlink()
    with pytest.raises(ConfigError, match=r"keeps weights in m\.weights, which is not beside it"):
        copied.sources()


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        OnnxSettings(file=str(tmp_path / "gone.onnx")).sources()
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ConfigError, match="is no ONNX file"):
        OnnxSettings(file=str(tmp_path / "bad.onnx")).sources()


def two_outputs(path: Path) -> Path:
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Identity", ["x"], ["planes"]),
    ]
    return linear(path, ["n", 3, 12, 12], nodes, {"planes": ["n", 3, 12, 12], "flat": ["n", 432]})


def test_one_of_several_outputs(tmp_path: Path) -> None:
    path = two_outputs(tmp_path / "m.onnx")
    (value,) = pictures(1)
    found = encoded(opened(path, IMAGE, output="flat"), [value])
    np.testing.assert_allclose(found[0], value.transpose(2, 0, 1).ravel() / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "modality", "what"),
    [
        ({}, IMAGE, "has 2 outputs, and one is needed. There are: planes, flat. Name one as `output`."),
        ({"output": "flats"}, IMAGE, "has no output 'flats'. There are: planes, flat."),
        ({"output": "planes"}, IMAGE, "gives planes of shape ['n', 3, 12, 12], and a vector needs (n, dim)"),
        ({"output": "flat"}, AUDIO, "takes arrays of shape ['n', 3, 12, 12], and sounds as (n, samples)"),
        ({"output": "flat"}, IMAGE | {"size": 28}, "takes pictures of shape ['n', 3, 12, 12], and those stored are (3"),
        ({"output": "flat", "layout": "nhwc"}, IMAGE, "and those stored are (12, 12, 3)"),
        ({"output": "flat", "input": "y"}, IMAGE, "has no input 'y'. There are: x."),
    ],
)
def test_what_does_not_fit_is_said(
    tmp_path: Path, settings: dict[str, Any], modality: dict[str, Any], what: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        opened(two_outputs(tmp_path / "m.onnx"), modality, **settings)
    assert what in str(caught.value)


def test_checked_before_any_work_and_found_beside_the_yaml(tmp_path: Path) -> None:
    convolution(tmp_path / "m.onnx", size=24)
    modality = "{kind: image, column: image, size: 12}"
    encoder = "{encoder: onnx, file: m.onnx, mean: [0.5]}"
    (tmp_path / "run.yaml").write_text(
        f"data: {{manifest: m.csv, modalities: {{image: {modality}}}}}\nfeatures: {{image: {encoder}}}\n"
    )
    config = load(tmp_path / "run.yaml")
    settings = config.features["image"]
    assert settings.file == str(tmp_path / "m.onnx")
    (problem,) = settings.problems("image", config.data.modalities["image"])
    assert problem.where == "features.image"
    assert "those stored are (3, 12, 12)" in problem.what
    with pytest.raises(ConfigError, match="takes pictures of one size: set resize to pad, crop or stretch"):
        load(tmp_path / "run.yaml", ["data.modalities.image.resize=shorter"])
    with pytest.raises(ConfigError, match="needs one mean and std, or 1 of each, as mode is grey"):
        load(tmp_path / "run.yaml", ["data.modalities.image.mode=grey", "features.image.mean=[1, 2, 3]"])


def test_over_real_shards(work: Work, tmp_path: Path) -> None:
    path = convolution(tmp_path / "m.onnx", batch=1)
    config = work.config("image")
    image = config.data.modalities["image"].model_copy(update={"mode": "rgb"})
    data = config.data.model_copy(update={"modalities": config.data.modalities | {"image": image}})
    features = config.features | {"image": OnnxSettings(file=str(path))}
    config = config.model_copy(update={"data": data, "features": features})
    dataset, entry = work.encode(config)
    assert (entry.dim, entry.rejects) == (5, ())
    receipt = work.store.read_json(f"encoders/{entry.digest}/receipt.json")
    assert receipt["recipe"]["sources"] == OnnxSettings(file=str(path)).sources()
    table = read_view(work.store, entry, str(dataset.shards[0].views["image"]))
    value = np.asarray(Image.open(work.folder / f"image/{int(table.keys[0][1:])}.png").convert("RGB"))
    np.testing.assert_allclose(table.vectors[0], encoded(opened(path, IMAGE), [value])[0], atol=1e-5)
    assert {step.action for step in work.foresee(config)[1]} == {"reuse"}
