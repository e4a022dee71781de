"""Networks in ONNX files, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from mmcore.config import OnnxSettings
from mmcore.errors import ConfigError, Problem, StageError
from mmcore.features.encoders.base import WHOLE, Array, Encoded, Encoder

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
"""Kinds of numbers that a network may take."""
TRIED = 16
"""So many values are tried to see how wide the vectors are, where the file does not tell."""


class OnnxEncoder(Encoder):
    """Pictures as (n, channels, height, width) or (n, height, width, channels), sounds as (n, samples) or
    (n, 1, samples), as the network's input has it; its output (n, dim) is the vector.

    A network for a fixed number of values gets so many, the last repeated where there are fewer. Sounds of different
    lengths go through apart, for a network cannot tell padding from silence.
    """

    settings: OnnxSettings

    def open(self) -> None:
        import onnxruntime

        self.demand_planned()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = 3
        wanted = ["CUDAExecutionProvider"] if self.device == "cuda" else []
        if missing := set(wanted) - set(onnxruntime.get_available_providers()):
            fix = "Install onnxruntime-gpu, or set compute.device to cpu."
            raise ConfigError(Problem("compute.device", f"this onnxruntime has no {missing.pop()}.", fix))
        try:
            self._session = onnxruntime.InferenceSession(
                self.settings.file, options, providers=[*wanted, "CPUExecutionProvider"]
            )
        except Exception as error:  # a library of its own errors
            what = f"onnxruntime cannot open {self.settings.file} ({error})."
            raise ConfigError(Problem("features", what, "Export the model to ONNX again.")) from error
        self._input = self._chosen("input", self._session.get_inputs(), self.settings.input)
        self._output = self._chosen("output", self._session.get_outputs(), self.settings.output)
        self._demand_fit()
        first, last = self._input.shape[0], self._output.shape[-1]
        self._rows = first if isinstance(first, int) else None
        self.width = last if isinstance(last, int) else self.width

    def look(self, values: Iterator[Any]) -> None:
        failure = "there is none in the first shard"
        for value in () if self.width else islice(values, TRIED):
            try:
                self.width = self._run(self.collate([self.ready(value)])[0][1]).shape[1]
            except Exception as error:
                failure = f"the last one with {type(error).__name__}: {error}"
                continue
            return
        if not self.width:
            raise StageError(f"{self.settings.file} encodes none of the samples it was tried on: {failure}.")

    def ready(self, value: Array) -> Array:
        kind = TYPES[self._input.type]
        if value.ndim == 1:
            return value.astype(kind) if len(self._input.shape) == 2 else value[None].astype(kind)
        if kind is not np.uint8:
            settings = self.settings
            scaled = value.astype(np.float32) * np.float32(settings.scale)
            mean, std = (np.asarray(one, np.float32) for one in (settings.mean, settings.std))
            value = ((scaled - mean) / std).astype(kind)
        return np.ascontiguousarray(value.transpose(2, 0, 1)) if self.settings.layout == "nchw" else value

    def collate(self, values: Sequence[Array]) -> list[tuple[list[int], Array]]:
        """Arrays of one shape each, with the places of their rows."""
        places: dict[tuple[int, ...], list[int]] = {}
        for place, value in enumerate(values):
            places.setdefault(value.shape, []).append(place)
        return [(alike, np.stack([values[place] for place in alike])) for alike in places.values()]

    def encode(self, batch: list[tuple[list[int], Array]], part: int = WHOLE) -> Encoded:
        vectors = np.zeros((sum(len(places) for places, _ in batch), self.dim), np.float32)
        for places, values in batch:
            vectors[places] = self._run(values)
        return Encoded(vectors)

    def _run(self, values: Array) -> Array:
        """Vectors (n, dim) of n values of one shape."""
        rows = self._rows or len(values)
        found = []
        for start in range(0, len(values), rows):
            part = values[start : start + rows]
            filled = np.concatenate([part, np.repeat(part[-1:], rows - len(part), axis=0)])
            (output,) = self._session.run([self._output.name], {self._input.name: filled})
            found.append(output[: len(part)])
        return np.concatenate(found).astype(np.float32)

    def _chosen(self, what: str, there: Sequence[Any], name: str | None) -> Any:
        names = [one.name for one in there]
        found = [one for one in there if name in (None, one.name)]
        # All inputs have to be given, and this encoder has one value to give.
        if len(found) != 1 or (what == "input" and len(there) > 1):
            fix = f"There are: {', '.join(names)}." + (f" Name one as `{what}`." if what == "output" else "")
            said = f"no {what} {name!r}" if name and not found else f"{len(there)} {what}s, and one is needed"
            raise ConfigError(Problem("features", f"{self.settings.file} has {said}.", fix))
        return found[0]

    def _demand_fit(self) -> None:
        """Raises ConfigError where the network is not one for these members."""
        given, sound = self._input, self.modality["kind"] == "audio"
        ranks = (2, 3) if sound else (4,)
        wanted = "sounds as (n, samples) or (n, 1, samples)" if sound else "pictures of four dimensions"
        problem = ""
        if given.type not in TYPES:
            problem = f"takes {given.type}, and pictures and sounds can be {', '.join(TYPES)}"
        elif len(given.shape) not in ranks:
            problem = f"takes arrays of shape {given.shape}, and {wanted} are what there is"
        elif not sound and (other := self._other_size(given.shape[1:])):
            problem = f"takes pictures of shape {given.shape}, and those stored are {other}"
        elif len(self._output.shape) != 2:
            problem = f"gives {self._output.name} of shape {self._output.shape}, and a vector needs (n, dim)"
        if problem:
            fix = "Store the modality as the network needs it, or export one that takes it so."
            raise ConfigError(Problem("features", f"{self.settings.file} {problem}.", fix))

    def _other_size(self, wanted: Sequence[Any]) -> tuple[int, ...] | None:
        """The shape of the stored pictures where it is not the wanted one; names stand for any number."""
        size, channels = self.modality["size"], 1 if self.modality["mode"] == "grey" else 3
        width, height = (size, size) if isinstance(size, int) else size
        stored = (channels, height, width) if self.settings.layout == "nchw" else (height, width, channels)
        differs = any(isinstance(one, int) and one != other for one, other in zip(wanted, stored, strict=True))
        return stored if differs else None
