"""Parts that the small networks share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmcore.config import NeuralEncoder

PROJECTED = 64
"""Width of the space in which the contrastive loss compares; it is left out of the vector, as in SimCLR."""


class Outputs(NamedTuple):
    """What a network gives for n samples."""

    scores: Tensor
    """A score per class (n, classes); of a contrastive network the projection (n, 64) that its loss compares."""
    hidden: Tensor
    """Hidden units (n, hidden)."""
    tokens: Tensor | None
    """A vector for each position (n, t, width); None where a network that learns saves the work."""


class Head(nn.Module):
    """What was pooled to hidden units (linear, batch norm, ReLU), and these to scores, or to a projection."""

    def __init__(self, inputs: int, settings: NeuralEncoder, classes: int) -> None:
        super().__init__()
        hidden = settings.hidden
        self.dropout = nn.Dropout(settings.dropout)
        self.to_hidden = nn.Linear(inputs, hidden, bias=False)
        self.norm = nn.BatchNorm1d(hidden)
        self.to_scores: nn.Module
        if settings.reads_labels:
            self.to_scores = nn.Linear(hidden, classes)
        else:
            self.to_scores = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, PROJECTED))

    def forward(self, pooled: Tensor, tokens: Tensor | None) -> Outputs:
        """Of pooled features (n, inputs); `tokens` are handed on."""
        hidden = functional.relu(self.norm(self.to_hidden(self.dropout(pooled))))
        return Outputs(self.to_scores(self.dropout(hidden)), hidden, tokens)


def convolution(
    inputs: int, outputs: int, *, side: int = 3, stride: int | tuple[int, int] = 1, relu: bool = True
) -> list[nn.Module]:
    """Convolution, batch norm and ReLU."""
    layer = nn.Conv2d(inputs, outputs, side, stride=stride, padding=side // 2, bias=False)
    return [layer, nn.BatchNorm2d(outputs), *([nn.ReLU()] if relu else [])]


def pooled_over(tokens: Tensor, there: Tensor) -> Tensor:
    """Mean and maximum (n, 2 width) over those of the positions (n, t, width) that are `there` (n, t)."""
    there = there[..., None]
    mean = (tokens * there).sum(dim=1) / there.sum(dim=1)
    return torch.cat([mean, tokens.masked_fill(~there, -torch.inf).amax(dim=1)], dim=1)
