"""Texts by pretrained models: BERT and its like, sentence-transformers, the text towers of CLIP, SigLIP and CLAP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from mmcore.config.encoders.model_files import settings_of
from mmcore.errors import ConfigError, Problem
from mmcore.features.encoders.pretrained import PretrainedEncoder

LONGEST = 512
"""Tokens kept where neither the model nor its tokenizer says how many it was made for."""


class PretrainedText(PretrainedEncoder):
    """Tokens by the model's own tokenizer, cut to its length, in batches of like lengths."""

    joint: ClassVar[Mapping[str, str]] = {
        "clip": "get_text_features",
        "siglip": "get_text_features",
        "siglip2": "get_text_features",
        "clap": "get_text_features",
    }
    tower = "text"

    def prepare(self) -> None:
        from transformers import AutoTokenizer

        self._sentences = _SentenceFolder(self.folder, self.settings.model)
        if self._sentences.fault and self.settings.pooling == "auto":
            raise self._sentences.fault
        tokenizer = AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False, local_files_only=True)
        self.most = self.settings.max_tokens or self._most(tokenizer)
        # Alone, the Rust tokenizer takes a fifth of the time that its wrapper does.
        self._tokenizer = tokenizer.backend_tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.most)
        self._pad = int(tokenizer.pad_token_id or 0)
        self._whole = self.model_type in {"siglip", "siglip2"}

    def usual_pooling(self) -> str:
        return self._sentences.pooling or "mean"

    @property
    def normalise(self) -> bool:
        return self._sentences.normalise if self.settings.normalise is None else self.settings.normalise

    def ready(self, value: str) -> list[int]:
        text = value.lower() if self._sentences.lower else value
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def length(self, ready: list[int]) -> int:
        return self.most if self._whole else len(ready)

    def collate(self, values: Sequence[list[int]]) -> dict[str, Any]:
        # SigLIP was trained on texts padded to one length, and looks at the last position.
        longest = self.most if self._whole else max(map(len, values))
        ids = torch.full((len(values), longest), self._pad)
        for row, one in enumerate(values):
            ids[row, : len(one)] = torch.tensor(one)
        lengths = [len(one) for one in values]
        found: dict[str, Any] = {"input_ids": ids, "lengths": lengths}
        if not self._whole:
            found["attention_mask"] = (torch.arange(longest)[None] < torch.tensor(lengths)[:, None]).long()
        return self.pinned(found)

    def _most(self, tokenizer: Any) -> int:
        text = self.described.get("text_config") or self.described
        limits = [
            self._sentences.max_tokens,
            tokenizer.model_max_length if tokenizer.model_max_length < 1_000_000 else None,
            text.get("max_position_embeddings"),
        ]
        # The first positions of RoBERTa, which CLAP's text tower is, are its padding's.
        shifted = any(name in str(text.get("model_type")) for name in ("roberta", "clap_text"))
        offset = int(text.get("pad_token_id") or 0) + 1 if shifted else 0
        limits[2] = limits[2] - offset if limits[2] else None
        return min((limit for limit in limits if limit), default=LONGEST)


class _SentenceFolder:
    """What a sentence-transformers folder says of pooling and normalisation."""

    def __init__(self, folder: str, model: str) -> None:
        modules = settings_of(folder, model, "modules.json").get("", [])
        kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules]
        own = settings_of(folder, model, "sentence_bert_config.json")
        self.max_tokens: int | None = own.get("max_seq_length")
        self.lower = bool(own.get("do_lower_case"))
        self.normalise = "Normalize" in kinds
        self.pooling: str | None = None
        if "Pooling" in kinds:
            place = modules[kinds.index("Pooling")]["path"]
            self.pooling = _pooling_in(settings_of(folder, model, f"{place}/config.json"))
        unknown = sorted({*kinds} - {"Transformer", "Pooling", "Normalize"})
        if unknown or (self.pooling is None and "Pooling" in kinds):
            what = f"it has {', '.join(unknown) or 'a pooling'} that mmcore does not compute."
            fix = "Set pooling to cls or mean and normalise to true or false to take its layers' vectors instead."
            self.fault: ConfigError | None = ConfigError(Problem(f"features: model {model!r}", what, fix))
        else:
            self.fault = None


def _pooling_in(settings: Mapping[str, Any]) -> str | None:
    """`cls` or `mean`; None where the folder asks for another, or for several side by side."""
    start = "pooling_mode_"
    flags = [name.removeprefix(start) for name, on in settings.items() if name.startswith(start) and on is True]
    modes = flags or [str(settings.get("pooling_mode", ""))]
    if len(modes) != 1:
        return None
    return {"cls_token": "cls", "cls": "cls", "mean_tokens": "mean", "mean": "mean"}.get(modes[0])
