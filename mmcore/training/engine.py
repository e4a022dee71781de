"""What computes the steps of a training: torch alone on one CPU in float32, Lightning Fabric for everything else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmcore.training.batch import Batch
from mmcore.training.processes import ALONE, Place

Loss = Callable[[Any, Batch], Tensor]
"""Takes the network and a batch; gives a scalar to descend, the mean over the batch's rows."""


class Engine:
    """Torch alone: what Fabric would add to every step is a tenth of a small network's."""

    def __init__(self, network: nn.Module, loss: Loss) -> None:
        self.network, self.value_of = network, loss

    def value(self, batch: Batch) -> Tensor:
        """The loss of this process's rows."""
        return self.value_of(self.network, batch)

    def backward(self, value: Tensor, batch: Batch) -> None:
        """Leave in every parameter the gradient of the whole batch's loss."""
        value.backward()  # type: ignore[no-untyped-call]

    def precision(self) -> AbstractContextManager[Any]:
        """What a forward pass runs under."""
        return nullcontext()

    def summed(self, values: np.ndarray) -> np.ndarray:
        """The sum over all processes."""
        return values

    def agreed(self, value: float) -> float:
        """What the first process says."""
        return value


class FabricEngine(Engine):
    """Lightning Fabric: devices, mixed precision, and gradients summed over several processes."""

    def __init__(self, network: nn.Module, loss: Loss, device: str, precision: str, place: Place) -> None:
        super().__init__(network, loss)
        self.place = place
        self.fabric = _fabric(device, precision, place)
        self.step = self.fabric.setup_module(_Step(network, loss), move_to_device=False)

    def value(self, batch: Batch) -> Tensor:
        with self._whole(batch):
            found: Tensor = self.step(batch)
        return found

    def backward(self, value: Tensor, batch: Batch) -> None:
        # Fabric's gradient is the mean of the processes', and theirs are of parts that differ by a row.
        self.fabric.backward(value * (batch.share * self.place.processes))

    def precision(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self.fabric.autocast()
        return context

    def summed(self, values: np.ndarray) -> np.ndarray:
        if self.place.processes == 1:
            return values
        total: Tensor = self.fabric.all_reduce(torch.from_numpy(values).to(self.fabric.device), reduce_op="sum")
        return np.asarray(total.cpu().numpy())

    def agreed(self, value: float) -> float:
        return float(self.fabric.broadcast(value)) if self.place.processes > 1 else value

    def _whole(self, batch: Batch) -> AbstractContextManager[Any]:
        if self.place.processes == 1:
            return nullcontext()
        from mmcore.training.whole import WholeBatch

        return WholeBatch(batch)


class _Step(nn.Module):
    """A network and its loss as one module, since only what a module's call computes is under Fabric's care."""

    def __init__(self, network: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, batch: Batch) -> Tensor:
        return self.loss(self.network, batch)


def engine_of(network: nn.Module, loss: Loss, device: str, precision: str, place: Place = ALONE) -> Engine:
    """The plain one where there is nothing for Fabric to do."""
    if device == "cpu" and precision == "float32" and place.processes == 1:
        return Engine(network, loss)
    return FabricEngine(network, loss, device, precision, place)


def _fabric(device: str, precision: str, place: Place) -> Any:
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    from mmcore.training.environment import PlacedEnvironment

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    environment = PlacedEnvironment(place)
    strategy: Any = "auto"
    if place.processes > 1:
        # Looking for unused parameters also keeps the order in which gradients are summed from changing after the
        # first step, so that a resumed training sums as an uninterrupted one.
        strategy = DDPStrategy(cluster_environment=environment, find_unused_parameters=True)
    fabric = Fabric(
        accelerator=device,
        strategy=strategy,
        # Every process sees one device, as if it had a machine to itself.
        devices=1,
        num_nodes=place.processes,
        precision="32-true" if precision == "float32" else "bf16-mixed",
        plugins=None if place.processes > 1 else [environment],
    )
    fabric.launch()
    return fabric
