"""Pretrained models in small: random weights, saved as save_pretrained does, each with its own preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WIDTH, HEADS, LAYERS, INNER = 16, 2, 2, 24
SMALL = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "intermediate_size": INNER}
WORDS = ("red", "green", "blue", "one", "two", "three", "dog", "cat", "of", "the")
PICTURE = {"image_size": 32, "patch_size": 8}
WAVE = {
    **SMALL,
    "conv_dim": (8, 8),
    "conv_stride": (5, 4),
    "conv_kernel": (10, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 32,
}


def save_model(kind: str, folder: Path) -> Path:
    """A model of this kind in `folder`, made anew with the same random weights each time."""
    torch.manual_seed(len(kind))
    model, *others = _MADE[kind]()
    model.eval().save_pretrained(folder)
    for other in others:
        other.save_pretrained(folder)
    return folder


def _tokenizer(start: str = "[CLS]", end: str = "[SEP]", **more: Any) -> Any:
    special = ["[PAD]", "[UNK]", start, end]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(start, vocabulary[start]), (end, vocabulary[end])]
    made.post_processor = processors.TemplateProcessing(single=f"{start} $A {end}", special_tokens=ends)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token=start,
        sep_token=end,
        eos_token=end,
        **more,
    )


def _bert() -> tuple[Any, ...]:
    config = transformers.BertConfig(**SMALL, vocab_size=32, max_position_embeddings=20)
    return transformers.BertModel(config), _tokenizer()


def _clip() -> tuple[Any, ...]:
    text = {**SMALL, "vocab_size": 32, "max_position_embeddings": 20, "eos_token_id": 3, "bos_token_id": 2}
    config = transformers.CLIPConfig(text_config=text, vision_config={**SMALL, **PICTURE}, projection_dim=12)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return transformers.CLIPModel(config), transformers.CLIPImageProcessorPil(**size), _tokenizer()


def _siglip() -> tuple[Any, ...]:
    text = {**SMALL, "vocab_size": 32, "max_position_embeddings": 12, "projection_size": WIDTH}
    config = transformers.SiglipConfig(text_config=text, vision_config={**SMALL, **PICTURE})
    processor = transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    return transformers.SiglipModel(config), processor, _tokenizer(model_max_length=12)


def _dinov2() -> tuple[Any, ...]:
    config = transformers.Dinov2Config(**SMALL, **PICTURE, mlp_ratio=2)
    size = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
    return transformers.Dinov2Model(config), transformers.BitImageProcessorPil(do_center_crop=True, **size)


def _vit() -> tuple[Any, ...]:
    config = transformers.ViTConfig(**SMALL, **PICTURE)
    return transformers.ViTModel(config), transformers.ViTImageProcessorPil(size={"height": 32, "width": 32})


def _wav2vec2(norm: str = "layer") -> tuple[Any, ...]:
    config = transformers.Wav2Vec2Config(**WAVE, feat_extract_norm=norm, do_stable_layer_norm=norm == "layer")
    masked = norm == "layer"
    extractor = transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000, return_attention_mask=masked)
    return transformers.Wav2Vec2Model(config), extractor


def _hubert() -> tuple[Any, ...]:
    return transformers.HubertModel(transformers.HubertConfig(**WAVE, feat_extract_norm="group")), _wav2vec2("group")[1]


def _wavlm() -> tuple[Any, ...]:
    config = transformers.WavLMConfig(**WAVE, feat_extract_norm="layer", do_stable_layer_norm=True)
    return transformers.WavLMModel(config), _wav2vec2()[1]


def _ast() -> tuple[Any, ...]:
    config = transformers.ASTConfig(**SMALL, max_length=64, num_mel_bins=32, patch_size=16)
    extractor = transformers.ASTFeatureExtractor(sampling_rate=16000, num_mel_bins=32, max_length=64)
    return transformers.ASTModel(config), extractor


def _whisper() -> tuple[Any, ...]:
    config = transformers.WhisperConfig(
        vocab_size=32,
        d_model=WIDTH,
        encoder_layers=LAYERS,
        decoder_layers=1,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=INNER,
        decoder_ffn_dim=INNER,
        num_mel_bins=16,
        max_source_positions=100,
        max_target_positions=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    return transformers.WhisperModel(config), transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=2)


def _clap() -> tuple[Any, ...]:
    audio = {
        "num_mel_bins": 32,
        "spec_size": 64,
        "patch_size": 4,
        "patch_stride": (4, 4),
        "patch_embeds_hidden_size": 8,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "window_size": 4,
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "projection_dim": 12,
        "enable_fusion": False,
    }
    text = {**SMALL, "vocab_size": 32, "max_position_embeddings": 20, "projection_dim": 12, "pad_token_id": 0}
    config = transformers.ClapConfig(audio_config=audio, text_config=text, projection_dim=12)
    extractor = transformers.ClapFeatureExtractor(
        feature_size=32,
        sampling_rate=16000,
        hop_length=160,
        max_length_s=1,
        fft_window_size=1024,
        truncation="rand_trunc",
    )
    return transformers.ClapModel(config), extractor, _tokenizer()


_MADE = {
    "bert": _bert,
    "clip": _clip,
    "siglip": _siglip,
    "dinov2": _dinov2,
    "vit": _vit,
    "wav2vec2": _wav2vec2,
    "hubert": _hubert,
    "wavlm": _wavlm,
    "ast": _ast,
    "whisper": _whisper,
    "clap": _clap,
}
