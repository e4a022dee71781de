"""What encoders out of transformers have in common: opening, pooling, precision."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmcore.config.encoders.model_files import folder_of, settings_of
from mmcore.config.encoders.pretrained import PretrainedSettings
from mmcore.errors import ConfigError, Problem
from mmcore.features.encoders.base import WHOLE, Encoded, Encoder
from mmcore.records import Json
from mmcore.training.threads import threads_of_torch

SMALLEST_NORM = 1e-12
UNUSED = ("masked_spec_embed", "mask_token")
"""Weights that only training needs."""


def open_pretrained(settings: PretrainedSettings, modality: Mapping[str, Json], *rest: Any, **more: Any) -> Encoder:
    """The encoder of a modality's kind; constructed like any other."""
    if modality["kind"] == "text":
        from mmcore.features.encoders.pretrained_text import PretrainedText

        return PretrainedText(settings, modality, *rest, **more)
    if modality["kind"] == "audio":
        from mmcore.features.encoders.pretrained_audio import PretrainedAudio

        return PretrainedAudio(settings, modality, *rest, **more)
    from mmcore.features.encoders.pretrained_image import PretrainedImage

    return PretrainedImage(settings, modality, *rest, **more)


class PretrainedEncoder(Encoder):
    """A transformers model; subclasses make its input and say where its vectors are."""

    settings: PretrainedSettings
    joint: ClassVar[Mapping[str, str]]
    """Of models with several towers, by type: the method that gives this modality's vector in the shared space."""

    def open(self) -> None:
        self.demand_planned()
        # Loading changes torch's default type and draws random numbers, both of which are the whole process's.
        with threads_of_torch(self.threads), torch.random.fork_rng([]), _quiet():
            self.folder = folder_of(self.settings.model, self.settings.revision)
            self.described = settings_of(self.folder, self.settings.model)
            self.model_type = str(self.described.get("model_type", ""))
            self.prepare()
            self.network: Any = self._loaded().to(self.device, self._dtype).eval()
        self.forward = torch.compile(self._run) if self.settings.compile else self._run
        self._dim, self._token_dim = self.widths()

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def token_dim(self) -> int | None:
        return self._token_dim if self.settings.keep_tokens else None

    @property
    def pooling(self) -> str:
        """How one vector is made of many, `auto` resolved."""
        if self.settings.pooling != "auto":
            return self.settings.pooling
        # A head takes the last layer's vectors: those of another are pooled without it.
        joint = self.model_type in self.joint and self.settings.layer == -1
        return "head" if joint else self.usual_pooling()

    @property
    def normalise(self) -> bool:
        return bool(self.settings.normalise)

    @abstractmethod
    def prepare(self) -> None:
        """Load what makes the network's input."""

    @abstractmethod
    def usual_pooling(self) -> str:
        """What `auto` is where neither the folder nor a shared space says it."""

    def encode(self, batch: Mapping[str, Any], part: int = WHOLE) -> Encoded:
        lengths: Sequence[int] | None = batch.get("lengths")
        inputs = {
            name: value.to(self.device, non_blocking=True) for name, value in batch.items() if isinstance(value, Tensor)
        }
        with threads_of_torch(self.threads), torch.inference_mode():
            inputs = self.finished(inputs)
            inputs = {
                name: value.to(self._dtype) if value.is_floating_point() else value for name, value in inputs.items()
            }
            vectors, states = self.forward(inputs, lengths)
            if self.normalise:
                vectors = functional.normalize(vectors.float(), dim=1, eps=SMALLEST_NORM)
        if states is None or not self.settings.keep_tokens:
            return Encoded(vectors)
        return Encoded(vectors, states, lengths or [states.shape[1]] * len(states))

    def finished(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The last of the preprocessing, on the device."""
        return inputs

    def pinned(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """Tensors where a GPU can fetch them while it computes."""
        if self.device != "cuda":
            return tensors
        return {name: value.pin_memory() if isinstance(value, Tensor) else value for name, value in tensors.items()}

    def widths(self) -> tuple[int, int]:
        """Widths of the vectors and of those in sequences."""
        config = self.network.config
        inner = getattr(config, f"{self.tower}_config", config)
        width = int(getattr(inner, "hidden_size", None) or inner.d_model)
        if self.pooling != "head":
            return width, width
        joint = getattr(config, "projection_dim", None) if self.model_type in self.joint else None
        return int(joint or width), width

    @property
    @abstractmethod
    def tower(self) -> str:
        """What a joint model's config calls this modality: `vision`, `audio` or `text`."""

    # The network

    def _loaded(self) -> nn.Module:
        import transformers

        kind: Any = transformers.WhisperModel if self.model_type == "whisper" else transformers.AutoModel
        try:
            network, found = kind.from_pretrained(
                self.folder,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
        except (ValueError, OSError, KeyError, RuntimeError) as error:
            what = f"transformers cannot load it ({str(error).strip().splitlines()[0]})."
            raise self._unusable(what, "See that it is a model for this kind of data.") from error
        unused = UNUSED if self.pooling == "head" else (*UNUSED, "pooler.")
        if lacking := sorted(name for name in found["missing_keys"] if not any(part in name for part in unused)):
            # transformers would fill them with random numbers, other ones in each process.
            what = f"{len(lacking)} of the weights that its vectors follow from are not in its files, as {lacking[0]}."
            raise self._unusable(what, "Fetch or save it again, or set pooling to cls or mean.")
        whole: nn.Module = network
        return whole

    def _unusable(self, what: str, fix: str) -> ConfigError:
        return ConfigError(Problem(f"features: model {self.settings.model!r}", what, fix))

    @property
    def _dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, self.precision)
        return found

    def _run(self, inputs: dict[str, Tensor], lengths: Sequence[int] | None) -> tuple[Tensor, Tensor | None]:
        """Vectors (n, dim), and the sequences (n, t, width) that they were pooled from where they are kept."""
        if self.pooling == "head" and self.model_type in self.joint:
            vectors = _tensor(getattr(self.network, self.joint[self.model_type])(**inputs))
            return vectors, self._states(inputs)[0] if self.settings.keep_tokens else None
        states, pooled = self._states(inputs)
        if self.pooling == "head":
            if pooled is None:
                raise self._unusable("it has no head that pools.", "Set pooling to cls or mean.")
            return pooled, states
        if self.pooling == "cls":
            return states[:, 0], states
        return mean_of(states, lengths), states

    def _states(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """The chosen layer's vectors (n, t, width), and what the model's own head makes of the last one's."""
        tower = self.inner()
        deeper = self.settings.layer != -1
        found = tower(**inputs, output_hidden_states=deeper)
        states = found.hidden_states[self.settings.layer] if deeper else found.last_hidden_state
        if states.ndim == 4:
            # Maps (n, width, bands, frames), as CLAP gives.
            states = states.flatten(2).transpose(1, 2)
        return states, getattr(found, "pooler_output", None)

    def inner(self) -> Any:
        """The part of the network that gives sequences."""
        if self.model_type == "whisper":
            return self.network.encoder
        return getattr(self.network, f"{self.tower}_model", self.network)


def mean_of(states: Tensor, lengths: Sequence[int] | None) -> Tensor:
    """Mean (n, width) over the first `lengths` of each of (n, t, width); over all where there are none."""
    if lengths is None:
        return states.mean(dim=1)
    counts = torch.tensor(list(lengths), device=states.device)
    inside = torch.arange(states.shape[1], device=states.device)[None] < counts[:, None]
    sums = (states.float() * inside[:, :, None]).sum(dim=1)
    return sums / counts[:, None].clamp(min=1)


def _tensor(found: Any) -> Tensor:
    """The vectors, which newer versions wrap in an output."""
    if isinstance(found, Tensor):
        return found
    pooled: Tensor = found.pooler_output
    return pooled


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' remarks and bars; what is wrong is raised."""
    import transformers

    said: Any = transformers.logging
    before, bars = said.get_verbosity(), said.is_progress_bar_enabled()
    said.set_verbosity(logging.CRITICAL)
    said.disable_progress_bar()
    try:
        yield
    finally:
        said.set_verbosity(before)
        if bars:
            said.enable_progress_bar()
