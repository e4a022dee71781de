"""Small encoders of every kind that is a network trained here, and small data for them."""

from __future__ import annotations

import numpy as np

from mmcore.config import (
    BigruSettings,
    CnnSettings,
    LogmelCnnSettings,
    LogmelCrnnSettings,
    ResnetSettings,
    TextTransformerSettings,
)
from mmcore.features.encoders.base import Samples
from mmcore.features.encoders.network import NetworkEncoder

CLASSES = ("a", "b", "c")
WORDS = ("red", "seven", "tree")
SMALL = {"epochs": 2, "hidden": 5, "width": 2, "batch_size": 8}
KINDS = {
    "cnn": (CnnSettings, SMALL),
    "resnet": (ResnetSettings, SMALL),
    "logmel-cnn": (LogmelCnnSettings, SMALL),
    "logmel-crnn": (LogmelCrnnSettings, {**SMALL, "units": 3}),
    "bigru": (BigruSettings, {**SMALL, "units": 3, "vocabulary": 300}),
    "text-transformer": (TextTransformerSettings, {**SMALL, "width": 4, "heads": 2, "vocabulary": 300}),
}


def pictures(count: int, size: int = 12, channels: int = 1) -> Samples:
    """The lighter third of each tells its class."""
    random = np.random.default_rng(count)
    labels = np.arange(count) % 3
    values = [random.integers(0, 200, (size, size, channels), dtype=np.uint8) for _ in labels]
    for value, label in zip(values, labels, strict=True):
        value[:, label * size // 3 : (label + 1) * size // 3] += 55
    return Samples([f"k{n}" for n in range(count)], values, labels)


def sounds(count: int, rate_hz: int = 8000) -> Samples:
    """The pitch of a tone in noise tells the class."""
    random = np.random.default_rng(count)
    labels = np.arange(count) % 3
    values = []
    for label in labels:
        noise = 0.1 * random.standard_normal(random.integers(1, rate_hz)).astype(np.float32)
        tone = np.sin(2 * np.pi * (400, 900, 2000)[label] * np.arange(len(noise)) / rate_hz)
        values.append((noise + 0.3 * tone).astype(np.float32))
    return Samples([f"k{n}" for n in range(count)], values, labels)


def texts(count: int) -> Samples:
    """One word tells the class; lengths differ."""
    random = np.random.default_rng(count)
    filler = ["lorem", "ipsum", "dolor", "sit", "amet"]
    labels = np.arange(count) % 3
    values = [
        " ".join([*random.choice(filler, random.integers(0, 9)), WORDS[label], *random.choice(filler, 2)])
        for label in labels
    ]
    return Samples([f"k{n}" for n in range(count)], values, labels)


def samples_for(kind: str, count: int) -> Samples:
    if kind in ("cnn", "resnet"):
        return pictures(count)
    return sounds(count) if kind.startswith("logmel") else texts(count)


def new_encoder(
    kind: str, size: int = 12, mode: str = "grey", rate_hz: int = 8000, device: str = "cpu", **settings
) -> NetworkEncoder:
    made, small = KINDS[kind]
    settings = made(**{**small, **settings})
    modality = {"size": size, "mode": mode, "sample_rate_hz": rate_hz}
    return settings.load()(settings, modality, CLASSES, device=device)
