"""What the encoders that are neural networks share: encoding and saving; training is in `learning`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmcore.config import NeuralEncoder
from mmcore.features.encoders.base import WHOLE, Array, Encoded, LearnedEncoder, OnEpoch, Samples
from mmcore.features.encoders.draws import Draws
from mmcore.features.encoders.folds import Folds
from mmcore.features.encoders.layers import Outputs
from mmcore.features.encoders.learning import learn
from mmcore.records import Json
from mmcore.training.checkpoint import Checkpoints
from mmcore.training.threads import threads_of_torch

ENCODING_BATCH = 256
"""Samples that go through the network at a time when it does not learn."""


class NetworkEncoder(LearnedEncoder):
    """A network on the training samples; a sample's vector is its scores and, if kept, its hidden units.

    Where nothing but the samples themselves was learned from, it is the hidden units.
    """

    settings: NeuralEncoder
    networks: dict[int, nn.Module]
    """The network that learned from all rows, WHOLE, and those that learned from all but one fold."""
    folds: Folds | None = None
    batch = ENCODING_BATCH

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.networks = {}

    @abstractmethod
    def build(self) -> nn.Module:
        """The untrained network: takes what `inputs` gives and returns Outputs; `token_dim` is how wide tokens are."""

    @abstractmethod
    def prepare(self, values: Sequence[Any]) -> Any:
        """Values that `ready` gave as `inputs` cuts them, on the CPU, as small as can be."""

    @abstractmethod
    def inputs(self, prepared: Any, rows: Array, draws: Draws | None) -> Any:
        """The network's input for some rows on `self.device`; varied where `draws` are given."""

    def study(self, values: Sequence[Any]) -> None:
        """Learn what `ready` needs from the values of train."""

    def sequences(self, prepared: Any, tokens: Tensor) -> tuple[Tensor, Sequence[int]]:
        """What is kept of the network's tokens (n, t, width), from the front, and how many of each sample's."""
        return tokens, [tokens.shape[1]] * len(tokens)

    def order(self, prepared: Any, rows: Array) -> Array:
        """The places of the rows, those next to each other that take the least padding together."""
        return np.arange(len(rows))

    def made_ready(self, values: Sequence[Any]) -> Any:
        """All values as `inputs` cuts them."""
        return self.prepare([self.ready(value) for value in values])

    def fit(
        self,
        train: Samples,
        val: Samples,
        *,
        checkpoints: Checkpoints | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> dict[str, Json]:
        return learn(self, train, val, checkpoints, on_epoch)

    @property
    def token_dim(self) -> int | None:
        return int(self.networks[WHOLE].token_dim) if self.settings.keep_tokens else None  # type: ignore[arg-type]

    def collate(self, values: Sequence[Any]) -> tuple[Any, int]:
        return self.prepare(values), len(values)

    def encode(self, batch: tuple[Any, int], part: int = WHOLE) -> Encoded:
        prepared, count = batch
        # Where no training row was in the fold, the network of all has not seen it either.
        network = self.networks.get(part, self.networks[WHOLE])
        with threads_of_torch(self.threads), torch.no_grad():
            outputs = network.to(self.device).eval()(self.inputs(prepared, np.arange(count), None))
            vectors = self._vectors(outputs)
            if not self.settings.keep_tokens or outputs.tokens is None:
                return Encoded(vectors)
            return Encoded(vectors, *self.sequences(prepared, outputs.tokens))

    def _vectors(self, outputs: Outputs) -> Tensor:
        if not self.settings.reads_labels:
            return outputs.hidden
        centred = outputs.scores - outputs.scores.mean(dim=1, keepdim=True)
        return torch.cat([centred, outputs.hidden], dim=1) if self.settings.keep_hidden else centred

    def scores(self, network: nn.Module, prepared: Any, rows: Array) -> Array:
        """Scores (n, classes) that a network, in eval mode, gives to some rows."""
        order = self.order(prepared, rows)
        scores = np.zeros((len(rows), len(self.classes)), np.float32)
        with torch.no_grad():
            for start in range(0, len(rows), ENCODING_BATCH):
                places = order[start : start + ENCODING_BATCH]
                outputs = network(self.inputs(prepared, rows[places], None))
                scores[places] = outputs.scores.float().cpu().numpy()
        return scores

    def parts(self, keys: Sequence[str], groups: Sequence[str | None] | None) -> Array:
        return super().parts(keys, groups) if self.folds is None else self.folds.of(keys, groups)

    def state(self) -> tuple[dict[str, Array], Json]:
        arrays = {
            f"{_prefix(part)}{name}": value.cpu().numpy()
            for part, network in self.networks.items()
            for name, value in network.state_dict().items()
        }
        if self.folds is None:
            return arrays, {}
        return arrays, {"folds": sorted(set(self.networks) - {WHOLE}), "groups": dict(self.folds.of_group)}

    def restore(self, arrays: Mapping[str, Array], facts: Json) -> None:
        count = self.settings.cross_fit
        self.folds = None if count is None else Folds(count, facts["groups"])
        self.networks = {}
        for part in (WHOLE, *facts.get("folds", ())):
            network = self.networks[part] = self.build()
            prefix = _prefix(part)
            own = {name: array for name, array in arrays.items() if _prefix_of(name) == prefix}
            network.load_state_dict({name[len(prefix) :]: torch.from_numpy(array) for name, array in own.items()})


FOLD = "fold-"


def _prefix(part: int) -> str:
    """What stands before the names of a network's arrays."""
    return "" if part == WHOLE else f"{FOLD}{part}."


def _prefix_of(name: str) -> str:
    return f"{name.partition('.')[0]}." if name.startswith(FOLD) else ""
