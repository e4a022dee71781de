"""Pictures by pretrained models: ViT, DINOv2, the vision towers of CLIP and SigLIP, and their like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mmcore.features.encoders.base import Array
from mmcore.features.encoders.pretrained import PretrainedEncoder


class PretrainedImage(PretrainedEncoder):
    """Pictures as the model's own preprocessing makes them: resized ahead in bytes, scaled on the device."""

    joint: ClassVar[Mapping[str, str]] = {
        "clip": "get_image_features",
        "siglip": "get_image_features",
        "siglip2": "get_image_features",
    }
    tower = "vision"

    def prepare(self) -> None:
        from transformers import AutoImageProcessor

        untyped: Any = AutoImageProcessor
        self._processor = untyped.from_pretrained(
            self.folder, trust_remote_code=False, local_files_only=True, backend="pil"
        )
        settings = self._processor.to_dict()
        factor = float(settings.get("rescale_factor") or 1.0) if settings.get("do_rescale") else 1.0
        mean, spread = torch.zeros(3), torch.ones(3)
        if settings.get("do_normalize"):
            mean, spread = torch.tensor(settings["image_mean"]), torch.tensor(settings["image_std"])
        self._factor = factor
        self._mean = mean.float()[None, :, None, None].to(self.device)
        self._spread = spread.float()[None, :, None, None].to(self.device)

    def usual_pooling(self) -> str:
        return "cls"

    def ready(self, value: Array) -> Array:
        """Bytes (3, height, width): a quarter of what scaled ones take on their way to the device."""
        from PIL import Image

        picture = Image.fromarray(np.repeat(value, 3, axis=2) if value.shape[2] == 1 else value)
        made = self._processor(images=picture, return_tensors="np", do_rescale=False, do_normalize=False)
        pixels: Array = made["pixel_values"][0]
        return pixels

    def collate(self, values: Sequence[Array]) -> dict[str, Any]:
        return self.pinned({"pixel_values": torch.from_numpy(np.stack(values))})

    def finished(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        scaled = inputs["pixel_values"].float() * self._factor
        return {"pixel_values": (scaled - self._mean) / self._spread}
