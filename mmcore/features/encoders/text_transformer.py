"""A small transformer on text."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcore.config import TextTransformerSettings
from mmcore.features.encoders.layers import Head, Outputs, pooled_over
from mmcore.features.encoders.text_network import PADDING, TextNetworkEncoder, Texts, there

PARTS = 4
"""Parts of like lengths that a training batch is cut into."""


class TextTransformerEncoder(TextNetworkEncoder):
    """Layers of self-attention (Vaswani et al., 2017), each normalised first; mean and maximum over the pieces."""

    settings: TextTransformerSettings

    def build(self) -> nn.Module:
        return _AttendingNetwork(self.settings, self.pieces, len(self.classes))


class _AttendingNetwork(nn.Module):
    def __init__(self, settings: TextTransformerSettings, pieces: int, classes: int) -> None:
        super().__init__()
        width = settings.width
        self.pieces = nn.Embedding(pieces, width, padding_idx=PADDING)
        self.places = nn.Embedding(settings.max_tokens, width)
        self.dropout = nn.Dropout(settings.dropout)
        layer = nn.TransformerEncoderLayer(
            width, settings.heads, 2 * width, settings.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, settings.layers, norm=nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.token_dim = width
        self.head = Head(2 * width, settings, classes)

    def forward(self, texts: Texts) -> Outputs:
        ids, lengths = texts
        if not self.training:
            tokens, pooled = self._attended(ids)
        else:
            # Shuffled batches mix lengths, and most of a batch as wide as its longest text would be padding.
            order = lengths.argsort(stable=True)
            parts = [self._attended(ids[rows.to(ids.device), : lengths[rows[-1]]])[1] for rows in order.chunk(PARTS)]
            tokens, pooled = None, torch.cat(parts)[order.argsort().to(ids.device)]
        outputs: Outputs = self.head(pooled, tokens)
        return outputs

    def _attended(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (n, t, width) and what is pooled of them (n, 2 width)."""
        placed = self.pieces(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        known = there(ids)
        tokens = self.layers(self.dropout(placed), src_key_padding_mask=~known)
        return tokens, pooled_over(tokens, known)
