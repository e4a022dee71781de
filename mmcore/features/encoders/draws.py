"""Random numbers for augmentation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Draws:
    """Uniform and normal random numbers, the same on every device."""

    def __init__(self, random: np.random.Generator, device: str) -> None:
        self._generator = torch.Generator().manual_seed(int(random.integers(2**63)))
        self._device = device

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return (torch.rand(shape, generator=self._generator) * (high - low) + low).to(self._device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator).to(self._device)
