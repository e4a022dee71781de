"""Encoders in ONNX files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from mmcore.config.base import Settings
from mmcore.config.encoders.base import Batched
from mmcore.config.media import AudioSettings, PixelSettings
from mmcore.errors import ConfigError, Problem
from mmcore.records import Json


class OnnxSettings(Batched):
    """A network in an ONNX file, on pictures or raw sound, run by onnxruntime."""

    implementation: ClassVar[str] = "mmcore.features.encoders.onnx:OnnxEncoder"
    kinds: ClassVar[frozenset[str]] = frozenset({"image", "audio"})
    outside_recipe: ClassVar[frozenset[str]] = frozenset({"file"})

    encoder: Literal["onnx"] = "onnx"
    file: str
    """The ONNX file; a relative path starts from the YAML's folder. Its bytes, and those of files with weights beside
    it, are part of what names the features."""
    input: str | None = None
    """The network's input that takes pictures or sounds; needed where it has several."""
    output: str | None = None
    """The output that is the vector, (n, dim); needed where there are several."""
    layout: Literal["nchw", "nhwc"] = "nchw"
    """Of pictures: channels first or last."""
    scale: float = Field(1 / 255, gt=0)
    """Pixels, 0 to 255, are multiplied by this first; a network of whole numbers gets them as they are."""
    mean: list[float] = Field(default_factory=lambda: [0.0], min_length=1)
    """Subtracted from scaled pixels: one number, or one per channel."""
    std: list[float] = Field(default_factory=lambda: [1.0], min_length=1)
    """Scaled pixels less the mean are divided by this: one number, or one per channel."""

    @model_validator(mode="after")
    def _fits(self) -> OnnxSettings:
        for module in ("onnxruntime", "onnx"):
            if find_spec(module) is None:
                raise ValueError(f"onnx needs {module}, which is not installed: pip install mmcore[onnx]")
        if min(self.std) <= 0:
            raise ValueError(f"std: has to be positive, got {min(self.std):g}")
        return self

    def misfit(self, modality: Settings) -> str | None:
        if isinstance(modality, PixelSettings):
            channels = 1 if modality.mode == "grey" else 3
            if not {len(self.mean), len(self.std)} <= {1, channels}:
                return f"needs one mean and std, or {channels} of each, as mode is {modality.mode}"
            if not modality.equally_large:
                return "takes pictures of one size: set resize to pad, crop or stretch"
        if isinstance(modality, AudioSettings) and modality.channels == "keep":
            return "takes one channel: set channels to mono"
        return None

    def sources(self) -> Mapping[str, Json]:
        if what := self._fault():
            raise ConfigError(Problem("features", *what))
        return {"model": _hash(self.file), **{name: _hash(str(path)) for name, path in self._beside()}}

    def problems(self, name: str, modality: Settings) -> list[Problem]:
        if what := self._fault():
            return [Problem(f"features.{name}.file", *what)]
        try:
            # Opening it tells whether the network is one that these settings fit.
            self.load()(self, modality.recipe()).open()
        except ConfigError as error:
            return [Problem(f"features.{name}", problem.what, problem.fix) for problem in error.problems]
        return []

    def _fault(self) -> tuple[str, str] | None:
        if not os.path.isfile(self.file):
            return f"there is no file {self.file}.", "Give the path of an ONNX file; it starts from the YAML's folder."
        try:
            beside = self._beside()
        except Exception as error:  # a library of its own errors
            return f"{self.file} is no ONNX file ({type(error).__name__}).", "Export the model to ONNX again."
        if gone := [path for _, path in beside if not path.is_file()]:
            return f"{self.file} keeps weights in {gone[0].name}, which is not beside it.", "Copy that file too."
        return None

    def _beside(self) -> list[tuple[str, Path]]:
        """The files that hold weights outside the model's own: their names in it, and where they are."""
        folder = Path(self.file).parent
        return [(name, folder / name) for name in _external((self.file, *_state(self.file)))]


def _state(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


def _hash(path: str) -> str:
    return _hashed((path, *_state(path)))


@lru_cache(maxsize=32)
def _hashed(one: tuple[str, int, int]) -> str:
    """Kept as long as size and time stay: a plan and a run ask for it again and again."""
    with open(one[0], "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


@lru_cache(maxsize=32)
def _external(one: tuple[str, int, int]) -> tuple[str, ...]:
    import onnx

    model = onnx.load(one[0], load_external_data=False)
    if not model.graph.node:
        raise ValueError("no graph")
    return tuple(sorted({location for tensor in _tensors(model.graph) if (location := _location(tensor))}))


def _tensors(graph: Any) -> Iterator[Any]:
    """All that hold numbers, in subgraphs too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _location(tensor: Any) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
