"""Where a training leaves its state, and how it is spelt: one blob of safetensors and JSON, never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

import safetensors.torch
import torch

from mmcore.records import Json
from mmcore.storage import Store

FORMAT = 1
"""Raised when a checkpoint's content changes; one of another format is not resumed from."""


class Checkpoints(Protocol):
    """Keeps the newest checkpoint of one training."""

    def load(self) -> bytes | None:
        """The newest checkpoint, or None where there is none."""

    def save(self, data: bytes) -> None:
        """Replace the newest checkpoint; a kill leaves the old one or the new one."""

    def clear(self) -> None:
        """Remove it; nothing happens where there is none."""

    def beside(self, name: str) -> Checkpoints:
        """Those of another training that is part of the same result."""


class StoreCheckpoints:
    """One checkpoint as a file of the store, as `models/<digest>/checkpoint.safetensors`."""

    def __init__(self, store: Store, path: str) -> None:
        self.store, self.path = store, path

    def load(self) -> bytes | None:
        with suppress(FileNotFoundError):
            return self.store.read_bytes(self.path)
        return None

    def save(self, data: bytes) -> None:
        self.store.publish_bytes(self.path, data)

    def clear(self) -> None:
        self.store.remove(self.path)

    def beside(self, name: str) -> StoreCheckpoints:
        """In another file of the same folder, `<name>.safetensors`."""
        return StoreCheckpoints(self.store, f"{self.path.rpartition('/')[0]}/{name}.safetensors")


def pack(tensors: Mapping[str, torch.Tensor], state: Json) -> bytes:
    """Named tensors and a JSON value as one safetensors blob."""
    # Cloned, as safetensors refuses tensors that share memory (tied weights).
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, "state": state}, allow_nan=False)
    return safetensors.torch.save(copies, metadata={"mmcore": text})


def unpack(data: bytes) -> tuple[dict[str, torch.Tensor], Json]:
    """What `pack` was given, on the CPU. Raises ValueError where `data` is not such a blob."""
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        content = json.loads(header["__metadata__"]["mmcore"])
        version, state = content["format"], content["state"]
    except (KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"it is damaged or not a checkpoint ({error})") from error
    if version != FORMAT:
        raise ValueError(f"it has format {version}, and this mmcore reads {FORMAT}")
    return tensors, state
