"""What networks on text share: pieces of words that a tokenizer found in the training texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmcore.config import TextNetworkSettings
from mmcore.features.encoders.base import Array
from mmcore.features.encoders.draws import Draws
from mmcore.features.encoders.network import NetworkEncoder
from mmcore.records import Json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PADDING, START, UNKNOWN = range(3)
"""Numbers of the pieces that stand for no text: what fills a batch up, what every text begins with, what is hidden."""
SPECIAL = ["[PAD]", "[START]", "[UNKNOWN]"]
MIN_COUNT = 2
"""Pieces that are found together less often are not made one."""
HIDDEN = 0.1
"""Share of the pieces that is hidden in training, so that no single one decides."""

Texts = tuple[Tensor, Tensor]
"""Piece numbers (n, t), and how many each text has (n,)."""


class TextNetworkEncoder(NetworkEncoder):
    """A network that takes pieces of words.

    They are found by byte-pair encoding (Sennrich, Haddow and Birch, 2016) of the training texts' bytes, in compatible
    Unicode form (NFKC) and lower case, so that no text has a letter that is unknown. The tokenizer is part of what was
    learned.
    """

    settings: TextNetworkSettings
    tokenizer: Tokenizer

    def study(self, values: Sequence[str]) -> None:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        trainer = trainers.BpeTrainer(
            vocab_size=self.settings.vocabulary,
            min_frequency=MIN_COUNT,
            special_tokens=SPECIAL,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator([_sound(text) for text in values], trainer)
        self.tokenizer = tokenizer

    @property
    def pieces(self) -> int:
        """How many pieces there are."""
        return self.tokenizer.get_vocab_size()

    def ready(self, value: str) -> Array:
        """Piece numbers (t,) of a text, at most `max_tokens`."""
        ids = self.tokenizer.encode(_sound(value), add_special_tokens=False).ids
        return np.array([START, *ids[: self.settings.max_tokens - 1]], dtype=np.int64)

    def length(self, ready: Array) -> int:
        return len(ready)

    def prepare(self, values: Sequence[Array]) -> list[Tensor]:
        return [torch.from_numpy(value) for value in values]

    def inputs(self, prepared: Sequence[Tensor], rows: Array, draws: Draws | None) -> Texts:
        texts = [prepared[row] for row in rows]
        ids = pad_sequence(texts, batch_first=True, padding_value=PADDING).to(self.device)
        if draws is not None:
            ids = ids.masked_fill((draws.uniform(0, 1, *ids.shape) < HIDDEN) & (ids > UNKNOWN), UNKNOWN)
        # On the CPU, where packing wants them.
        return ids, torch.tensor([len(text) for text in texts])

    def order(self, prepared: Sequence[Tensor], rows: Array) -> Array:
        return np.argsort([len(prepared[row]) for row in rows], kind="stable")

    def sequences(self, prepared: Sequence[Tensor], tokens: Tensor) -> tuple[Tensor, Sequence[int]]:
        return tokens, [len(text) for text in prepared]

    def state(self) -> tuple[dict[str, Array], Json]:
        arrays, facts = super().state()
        return arrays, {**facts, "tokenizer": self.tokenizer.to_str()}

    def restore(self, arrays: Mapping[str, Array], facts: Json) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_str(facts["tokenizer"])
        super().restore(arrays, facts)


def there(ids: Tensor) -> Tensor:
    """Which places (n, t) hold pieces of the text."""
    return ids != PADDING


def _sound(text: str) -> str:
    """Without halves of surrogate pairs, which are no text to the tokenizer."""
    return text.encode("utf-8", "replace").decode("utf-8")
