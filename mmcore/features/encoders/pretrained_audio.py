"""Sounds by pretrained models: wav2vec 2.0, HuBERT, WavLM, AST, Whisper's encoder, the audio tower of CLAP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from mmcore.config.encoders.model_files import settings_of
from mmcore.config.encoders.pretrained import PREPROCESSOR
from mmcore.features.encoders.base import Array
from mmcore.features.encoders.pretrained import PretrainedEncoder

WAVES = frozenset({"wav2vec2", "hubert", "wavlm", "wav2vec2-conformer", "unispeech", "unispeech-sat", "data2vec-audio"})
"""Models that take the waveform itself, of any length."""


class PretrainedAudio(PretrainedEncoder):
    """Sounds at the model's rate, as its own feature extractor makes them.

    Models of waveforms give as many frames as the sound has; only those that were trained with an attention mask (layer
    norm in their convolutions) are given padded batches, the others batches of equal lengths. Whisper pads sounds to 30
    seconds: what lies in the padding is not pooled and not kept.
    """

    joint: ClassVar[Mapping[str, str]] = {"clap": "get_audio_features"}
    tower = "audio"

    def prepare(self) -> None:
        from transformers import AutoFeatureExtractor

        untyped: Any = AutoFeatureExtractor
        self._extractor = untyped.from_pretrained(self.folder, trust_remote_code=False, local_files_only=True)
        found = settings_of(self.folder, self.settings.model, PREPROCESSOR)
        self.rate_hz = int(found.get("sampling_rate") or self._extractor.sampling_rate)
        self._waves = self.model_type in WAVES
        self._masked = self.described.get("feat_extract_norm") == "layer"
        if self._waves and not self._masked:
            self.most_padding = 0.0

    def usual_pooling(self) -> str:
        return "cls" if self.model_type == "audio-spectrogram-transformer" else "mean"

    def ready(self, value: Array) -> dict[str, Any]:
        """What the model takes of one sound, and how many samples it has."""
        sound = np.ascontiguousarray(value.mean(axis=1) if value.ndim == 2 else value, dtype=np.float32)
        stored_hz = int(self.modality["sample_rate_hz"])
        if stored_hz != self.rate_hz:
            import soxr

            sound = soxr.resample(sound, stored_hz, self.rate_hz)
        if self.model_type == "clap":
            # Its extractor takes a random part of what is too long; here it is the beginning.
            sound = sound[: self._extractor.nb_max_samples]
        made = self._extractor(sound, sampling_rate=self.rate_hz, return_tensors="np")
        return {"samples": len(sound), **{name: made[name][0] for name in made if name != "attention_mask"}}

    @property
    def by_length(self) -> bool:
        return self._waves

    def length(self, ready: dict[str, Any]) -> int | None:
        return int(ready["samples"]) if self._waves else None

    def collate(self, values: Sequence[dict[str, Any]]) -> dict[str, Any]:
        if not self._waves:
            names = [name for name in values[0] if name != "samples"]
            found: dict[str, Any] = {
                name: torch.from_numpy(np.stack([np.asarray(value[name]) for value in values])) for name in names
            }
            if self.model_type == "whisper":
                found["lengths"] = [self._frames_of_whisper(value["samples"]) for value in values]
            return self.pinned(found)
        waves = [torch.from_numpy(value["input_values"]) for value in values]
        found = {"input_values": torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)}
        counts = torch.tensor([len(wave) for wave in waves])
        if self._masked:
            found["attention_mask"] = (torch.arange(int(counts.max()))[None] < counts[:, None]).long()
        found["lengths"] = self._frames_of_waves(counts)
        return self.pinned(found)

    def _frames_of_waves(self, samples: torch.Tensor) -> list[int]:
        """Frames that the model's convolutions leave of so many samples."""
        frames: list[int] = self.network._get_feat_extract_output_lengths(samples).clamp(min=1).tolist()
        return frames

    def _frames_of_whisper(self, samples: int) -> int:
        """Positions with sound: the encoder halves the frames of its spectrogram, which are a hop apart."""
        hop = int(self._extractor.hop_length)
        most = int(self.described["max_source_positions"])
        return max(1, min(most, -(-samples // (2 * hop))))
