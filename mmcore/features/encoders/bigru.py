"""A recurrent network on text."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mmcore.config import BigruSettings
from mmcore.features.encoders.layers import Head, Outputs, pooled_over
from mmcore.features.encoders.text_network import PADDING, TextNetworkEncoder, Texts, there


class BigruEncoder(TextNetworkEncoder):
    """Gated recurrent units (Cho et al., 2014) that read the pieces both ways; mean and maximum over them."""

    settings: BigruSettings

    def build(self) -> nn.Module:
        return _RecurrentNetwork(self.settings, self.pieces, len(self.classes))


class _RecurrentNetwork(nn.Module):
    def __init__(self, settings: BigruSettings, pieces: int, classes: int) -> None:
        super().__init__()
        self.pieces = nn.Embedding(pieces, settings.width, padding_idx=PADDING)
        self.dropout = nn.Dropout(settings.dropout)
        self.recurrent = nn.GRU(settings.width, settings.units, batch_first=True, bidirectional=True)
        self.token_dim = 2 * settings.units
        self.head = Head(2 * self.token_dim, settings, classes)

    def forward(self, texts: Texts) -> Outputs:
        ids, lengths = texts
        packed = pack_padded_sequence(self.dropout(self.pieces(ids)), lengths, batch_first=True, enforce_sorted=False)
        tokens, _ = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)
        outputs: Outputs = self.head(pooled_over(tokens, there(ids)), tokens)
        return outputs
