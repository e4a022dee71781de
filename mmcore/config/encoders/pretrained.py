"""Encoders that others have trained, read through transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from mmcore.config.base import Settings
from mmcore.config.encoders.base import Batched
from mmcore.config.encoders.model_files import demand_transformers, folder_of, settings_of, sources_of
from mmcore.config.media import AudioSettings, PixelSettings
from mmcore.errors import ConfigError, Problem
from mmcore.records import Json

PREPROCESSOR = "preprocessor_config.json"
_TOWERS = {"text": "text", "audio": "audio", "image": "vision", "video": "vision"}


class PretrainedSettings(Batched):
    """A model of the transformers library: pictures, sounds or texts, as the modality is.

    Of models with towers that share a space (CLIP, SigLIP, CLAP) the tower of the modality is used.
    """

    implementation: ClassVar[str] = "mmcore.features.encoders.pretrained:open_pretrained"
    kinds: ClassVar[frozenset[str]] = frozenset({"image", "audio", "text"})
    half_precision: ClassVar[bool] = True
    outside_recipe: ClassVar[frozenset[str]] = frozenset({"model", "revision", "upsample"})

    encoder: Literal["pretrained"] = "pretrained"
    model: str = Field(min_length=1)
    """A folder with a saved model, or its name on the Hugging Face hub, as `openai/clip-vit-base-patch32`. Only weights
    in safetensors are loaded, and no code of the model."""
    revision: str | None = None
    """Commit, tag or branch on the hub; the one that is on this machine, or else the newest, when not given. What the
    files hold is part of the digest in any case."""
    pooling: Literal["auto", "head", "cls", "mean"] = "auto"
    """One vector of many: `head`, what the model itself makes of them (a projection into a shared space, a pooler);
    `cls`, the first one; `mean`, their mean, padding left out. `auto`: as a sentence-transformers folder says; else the
    projection of CLIP, SigLIP and CLAP; else `cls` of pictures and of AST, and `mean` of other sounds and texts."""
    layer: int = Field(-1, le=-1)
    """Which layer's vectors are pooled, counted from the end: -1 is the last, -2 the one before it."""
    normalise: bool | None = None
    """Scale vectors to length 1; when not given, as a sentence-transformers folder says, else not."""
    max_tokens: int | None = Field(None, ge=2)
    """Texts are cut to so many tokens; when not given, to what the model was made for."""
    keep_tokens: bool = False
    """Keep the sequence of vectors too (patches, frames, tokens), for methods that attend to them."""
    upsample: bool = False
    """Allow sounds that are stored at a lower rate than the model needs: what is missing cannot be made up."""
    compile: bool = False
    """Compile the network with torch.compile first: worth while for many samples on a GPU."""

    @model_validator(mode="after")
    def _a_head_takes_the_last_layer(self) -> PretrainedSettings:
        if self.pooling == "head" and self.layer != -1:
            raise ValueError(f"layer: a model's head pools its last layer, not layer {self.layer}; set pooling: mean")
        return self

    @property
    def has_tokens(self) -> bool:
        return self.keep_tokens

    def dim(self, classes: int) -> int | None:
        """Where the model is on this machine, as its config says."""
        try:
            config = settings_of(folder_of(self.model, self.revision, fetch=False), self.model)
        except ConfigError:
            return None
        joint = config.get("projection_dim") if self.pooling in {"auto", "head"} and self.layer == -1 else None
        width = joint or config.get("hidden_size") or config.get("d_model")
        return width if isinstance(width, int) else None

    def sources(self) -> Mapping[str, Json]:
        demand_transformers(self.model)
        return sources_of(self.model, self.revision)

    def problems(self, name: str, modality: Settings) -> list[Problem]:
        described = settings_of(folder_of(self.model, self.revision), self.model)
        found = self._beyond(
            name, described.get(f"{_TOWERS.get(getattr(modality, 'kind', ''), 'vision')}_config") or described
        )
        if not isinstance(modality, AudioSettings):
            return found
        needed, stored = self._preprocessor().get("sampling_rate"), modality.sample_rate_hz
        if modality.channels == "keep":
            what = f"{self.model} takes one channel, and {name} keeps all of them."
            return [*found, Problem(f"data.modalities.{name}.channels", what, "Set channels to mono.")]
        if needed is None or stored >= needed or self.upsample:
            return found
        what = f"{self.model} needs {needed:,} Hz, and the sounds are stored at {stored:,} Hz."
        fix = f"Set sample_rate_hz to {needed}, or features.{name}.upsample to true if the sources hold no more."
        return [*found, Problem(f"data.modalities.{name}.sample_rate_hz", what, fix)]

    def _beyond(self, name: str, described: Mapping[str, Any]) -> list[Problem]:
        """Layers and tokens that were asked for and that the model has not."""
        found = []
        layers = described.get("num_hidden_layers") or described.get("encoder_layers")
        if isinstance(layers, int) and -self.layer > layers + 1:
            what = f"{self.model} has {layers} layers, and layer {self.layer} was asked for."
            found.append(Problem(f"features.{name}.layer", what, f"Give one from {-layers - 1} to -1."))
        most = described.get("max_position_embeddings")
        if isinstance(most, int) and self.max_tokens is not None and self.max_tokens > most:
            what = f"{self.model} takes {most:,} tokens at most, and max_tokens is {self.max_tokens:,}."
            found.append(Problem(f"features.{name}.max_tokens", what, "Lower it, or leave it out."))
        return found

    def warnings(self, name: str, modality: Settings) -> list[str]:
        if not isinstance(modality, PixelSettings) or modality.resize == "none":
            return []
        wanted = _side(self._preprocessor())
        stored = modality.size if isinstance(modality.size, int) else min(modality.size)
        if wanted is None or wanted == stored:
            return []
        loss = "and enlarged again: what was lost is lost" if stored < wanted else "and once more"
        what = f"pictures are resized to {stored} pixels for the shards {loss}, to {wanted}, for {self.model}"
        return [f"{name}: {what}; data.modalities.{name}.size={wanted} would resize them once."]

    def _preprocessor(self) -> dict[str, Any]:
        return settings_of(folder_of(self.model, self.revision), self.model, PREPROCESSOR)


def _side(preprocessor: Mapping[str, Any]) -> int | None:
    """The shorter side, in pixels, to which a model's preprocessing brings a picture."""
    size = preprocessor.get("size")
    if isinstance(size, Mapping):
        sides = [size[side] for side in ("shortest_edge", "height", "width") if isinstance(size.get(side), int)]
        return min(sides, default=None)
    return size if isinstance(size, int) else None
