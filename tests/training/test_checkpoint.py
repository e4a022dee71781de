"""The checkpoint's bytes."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch

from mmcore.training import checkpoint
from mmcore.training.checkpoint import pack, unpack

TENSORS = {"a": torch.arange(6.0).reshape(2, 3).T, "b/c": torch.tensor(3), "empty": torch.zeros(0, 4)}


def test_round_trip_to_the_bit() -> None:
    state = {"x": [0.1, 1e-300, 2**60], "text": "é"}
    tensors, again = unpack(pack(TENSORS, state))
    assert again == state
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert all(tensors[name].dtype == TENSORS[name].dtype for name in TENSORS)


def test_tensors_that_share_memory() -> None:
    one = torch.ones(3)
    tensors, _ = unpack(pack({"one": one, "same": one}, None))
    assert torch.equal(tensors["one"], tensors["same"])


def test_equal_content_equal_bytes() -> None:
    assert pack(TENSORS, {"a": 1}) == pack(TENSORS, {"a": 1})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        pack(TENSORS, 1)[:-1],
        pack(TENSORS, 1)[:50],
        safetensors.torch.save(TENSORS | {"a": torch.ones(1)}),
    ],
)
def test_not_a_checkpoint(data: bytes) -> None:
    with pytest.raises(ValueError, match="damaged or not a checkpoint"):
        unpack(data)


def test_another_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    data = pack(TENSORS, None)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="it has format 2, and this mmcore reads 1"):
        unpack(data)
