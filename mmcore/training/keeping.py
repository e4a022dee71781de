"""When a training's state is written, and how one goes on from it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from mmcore.training.checkpoint import Checkpoints, pack, unpack

if TYPE_CHECKING:
    from mmcore.training.loop import Training

CHECKPOINT_EVERY_S = 2.0
"""Epochs that follow each other faster share a checkpoint."""
CHECKPOINT_SHARE = 0.1
"""At most this share of the time goes to checkpoints, however slow the store."""

_logger = logging.getLogger(__name__)


class Keeper:
    """Writes and reads the checkpoint of a training, not more often than pays."""

    def __init__(self, run: Training, checkpoints: Checkpoints | None) -> None:
        self.run, self.checkpoints = run, checkpoints
        self.next = time.monotonic() + CHECKPOINT_EVERY_S
        self.kept = 0
        """Epochs that the checkpoint holds."""

    def keep(self) -> None:
        if time.monotonic() < self.next:
            return
        started = time.monotonic()
        self._save()
        taken = time.monotonic() - started
        self.next = started + max(CHECKPOINT_EVERY_S, taken / CHECKPOINT_SHARE)

    def keep_end(self) -> None:
        if self.kept < len(self.run.curves.val_loss):
            self._save()

    def _save(self) -> None:
        if self.checkpoints is not None:
            state = {"identity": self.run.identity(), "curves": self.run.curves.as_json()}
            self.checkpoints.save(pack(self.run.tensors(), state))
            self.kept = len(self.run.curves.val_loss)

    def resume(self) -> None:
        data = None if self.checkpoints is None else self.checkpoints.load()
        if data is None:
            return
        try:
            tensors, state = unpack(data)
        except ValueError as error:
            _logger.warning("training starts anew: of its checkpoint, %s", error)
            return
        if state["identity"] != self.run.identity():
            _logger.warning("training starts anew: its checkpoint is of other settings or another network")
            return
        self.run.restore(tensors, state["curves"])
        self.kept = len(self.run.curves.val_loss)
        _logger.info("training goes on after epoch %d of %d", self.kept, self.run.settings.epochs)
