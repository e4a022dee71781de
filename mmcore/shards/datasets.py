"""Shards as torch data sets: by number, as a stream of batches for each rank and worker, and loaded ahead."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import distributed
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from mmcore.errors import DataError, Problem
from mmcore.records import Json
from mmcore.shards.order import Cut, Shuffle, permutation
from mmcore.shards.reader import Decoders, Sample, Shards

Collate = Callable[[list[Sample]], Any]
SHUFFLES: tuple[Shuffle, ...] = ("samples", "shards", "none")
SHARED = ("epoch", "start", "seed", "shuffle", "shards_at_once", "elsewhere")
"""What a stream's processes share; `elsewhere`: whether loader processes iterate over it."""
MARK = 1
"""Raised when what a state holds changes its meaning."""


class ShardDataset(Dataset[Sample]):
    """Samples by number, for samplers of torch's own: `DataLoader(ShardDataset(shards), batch_size=64, shuffle=True)`.

    A sample is a dict of `__key__`, `label` and, per field, its bytes or, with `decode`, its value: the modalities' own
    (arrays, texts) or what the given functions make of the bytes. None stands for what a sample does not have.
    """

    def __init__(
        self,
        shards: Shards,
        *,
        fields: Sequence[str] | None = None,
        decode: bool | Decoders = False,
        verify: bool = True,
    ) -> None:
        self.shards = shards
        self.fields = shards.fields if fields is None else _known(fields, shards)
        self.verify = verify
        self.decoders = {name: one for name, one in _decoders(shards, decode).items() if name in self.fields}

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, row: int) -> Sample:
        if not -len(self) <= row < len(self):
            raise IndexError(f"sample {row} of {len(self):,}")
        return self.__getitems__([row % len(self)])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[Sample]:
        samples = self.shards.read(rows, fields=self.fields, verify=self.verify)
        if self.decoders:
            self.shards.decode(samples, self.decoders)
        return samples


class ShardStream(IterableDataset[Any]):
    """One epoch after the other in batches: lists of samples, or what `collate` makes of them; no shuffle buffer.

    Every rank has the same number of batches, and together they hold each sample exactly once: see `order.Cut`.
    Use `ShardLoader`, or `DataLoader(stream, batch_size=None, num_workers=k)`.

    `shuffle`: `True` for a new random order of all samples in each epoch, `"shards"` for a random order of shards and
    of samples within every `shards_at_once` of them (reads from few tars at a time: for buckets), `False` for none.
    `rank` and `ranks` are by default those of torch.distributed, or of the environment that torchrun sets.

    An iteration starts where `load_state_dict` says, else at the start of the epoch; once it ends, the next one is
    the next epoch's. `set_epoch` chooses one. Raises DataError where there are fewer samples than ranks.
    """

    def __init__(
        self,
        shards: Shards,
        batch_size: int,
        *,
        shuffle: bool | Shuffle = True,
        seed: int = 0,
        rank: int | None = None,
        ranks: int | None = None,
        fields: Sequence[str] | None = None,
        decode: bool | Decoders = False,
        verify: bool = True,
        collate: Collate | None = None,
        shards_at_once: int = 16,
    ) -> None:
        self.samples = ShardDataset(shards, fields=fields, decode=decode, verify=verify)
        self.batch_size, self.collate = batch_size, collate
        self.rank, self.ranks = _place(rank, ranks)
        # In memory shared with loader processes, however these are started and however long they live: they see
        # what is set here, and an iteration there is known here.
        self._shared = torch.zeros(6, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._set(seed=seed, shuffle=SHUFFLES.index(_shuffle(shuffle)), shards_at_once=shards_at_once)
        self._taken = 0
        self._cut()

    def __len__(self) -> int:
        """Batches that the next iteration yields on this rank."""
        return self._cut().steps

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration reads from, or that is being read."""
        return self._get("epoch")

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; where it is the present one, stay at the position that was loaded."""
        if epoch != self.epoch:
            self._set(epoch=epoch, start=0)
            self._taken = 0

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        if worker is None:
            return counted(self, self._batches(0, 1))
        self._set(elsewhere=1)
        return self._batches(worker.id, worker.num_workers)

    def _batches(self, worker: int, workers: int) -> Iterator[Any]:
        cut = self._cut()
        sizes = self.samples.shards.shard_sizes
        order = permutation(sizes, self._shuffle, self._get("seed"), self.epoch, self._get("shards_at_once"))
        for step in cut.steps_of(worker, workers):
            start, stop = cut.batch(step, self.rank)
            batch = self.samples.__getitems__(order[start:stop])  # type: ignore[arg-type]
            yield batch if self.collate is None else self.collate(batch)

    def _cut(self) -> Cut:
        return Cut(self._get("start"), len(self.samples), self.ranks, self.batch_size)

    def state_dict(self) -> dict[str, Json]:
        """Where this epoch is, counted over all ranks: equal on every rank that has taken as many batches.

        Raises RuntimeError where loader processes read ahead, so that only who takes their batches can count them.
        """
        if self._get("elsewhere"):
            raise RuntimeError(
                "loader processes are reading ahead of what was delivered: use ShardLoader and its state_dict"
            )
        return self._state()

    def _state(self) -> dict[str, Json]:
        return {
            "mark": MARK,
            "epoch": self.epoch,
            "delivered": self._cut().position(self._taken),
            "samples": len(self.samples),
            "keys": self.samples.shards.digest,
            "seed": self._get("seed"),
            "shuffle": self._shuffle,
            "shards_at_once": self._get("shards_at_once"),
        }

    def load_state_dict(self, state: Mapping[str, Json]) -> None:
        """Go on where a state says, in its order, whatever the number of ranks and workers and the batch size are now.

        Raises DataError where it is of other samples, or where fewer are left of its epoch than there are ranks.
        """
        if state["mark"] != MARK or (state["samples"], state["keys"]) != (
            len(self.samples),
            self.samples.shards.digest,
        ):
            what = f"the state is of {state['samples']:,} other samples; there are {len(self.samples):,} here."
            raise DataError(Problem("state", what, "Open the same data set and splits, or start a new epoch."))
        Cut(state["delivered"], state["samples"], self.ranks, self.batch_size)
        shuffle = SHUFFLES.index(state["shuffle"])
        self._set(epoch=state["epoch"], start=state["delivered"], seed=state["seed"], shuffle=shuffle)
        self._set(shards_at_once=state["shards_at_once"])
        self._taken = 0

    @property
    def _shuffle(self) -> Shuffle:
        return SHUFFLES[self._get("shuffle")]

    def _get(self, name: str) -> int:
        return int(self._shared[SHARED.index(name)])

    def _set(self, **values: int) -> None:
        for name, value in values.items():
            self._shared[SHARED.index(name)] = value


class ShardLoader:
    """Loads a stream's batches ahead in worker processes, and knows which of them were delivered.

    Takes what DataLoader takes (`num_workers`, `prefetch_factor`, `multiprocessing_context`, `pin_memory`, ...).
    """

    def __init__(self, stream: ShardStream, num_workers: int = 0, **settings: Any) -> None:
        self.stream = stream
        # Batches stay as they are: torch would look through every sample for arrays to convert.
        settings = {"collate_fn": as_it_is, **settings}
        self._loader: DataLoader[Any] = DataLoader(stream, batch_size=None, num_workers=num_workers, **settings)
        self._ahead = num_workers > 0

    def __len__(self) -> int:
        return len(self.stream)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._loader)
        if not self._ahead:
            return batches
        return counted(self.stream, batches)

    def set_epoch(self, epoch: int) -> None:
        """See `ShardStream.set_epoch`."""
        self.stream.set_epoch(epoch)

    def state_dict(self) -> dict[str, Json]:
        """See `ShardStream.state_dict`: counts the batches that were delivered, not those loaded ahead."""
        return self.stream._state()

    def load_state_dict(self, state: Mapping[str, Json]) -> None:
        """See `ShardStream.load_state_dict`."""
        self.stream.load_state_dict(state)


def counted(stream: ShardStream, batches: Iterator[Any]) -> Iterator[Any]:
    """The batches of one iteration, counted as they are taken; after the last one the stream is at the next epoch."""
    steps = len(stream)
    stream._taken = 0
    for batch in batches:
        stream._taken += 1
        yield batch
    if stream._taken == steps:
        stream.set_epoch(stream.epoch + 1)


def as_it_is(batch: Any) -> Any:
    return batch


def _shuffle(shuffle: bool | str) -> Shuffle:
    if isinstance(shuffle, bool):
        return "samples" if shuffle else "none"
    if shuffle not in SHUFFLES:
        raise ValueError(f"shuffle={shuffle!r}: it is True, False or 'shards'")
    return shuffle


def _place(rank: int | None, ranks: int | None) -> tuple[int, int]:
    """The rank of this process and how many there are. Raises ValueError for a rank that is none of them."""
    if ranks is None:
        if distributed.is_available() and distributed.is_initialized():
            rank, ranks = distributed.get_rank(), distributed.get_world_size()
        else:
            rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if rank is None or not 0 <= rank < ranks:
        raise ValueError(f"rank {rank} of {ranks}")
    return rank, ranks


def _known(fields: Sequence[str], shards: Shards) -> tuple[str, ...]:
    if unknown := [name for name in fields if name not in shards.fields]:
        raise ValueError(f"no field {unknown[0]!r}: there are {', '.join(shards.fields)}")
    return tuple(fields)


def _decoders(shards: Shards, decode: bool | Decoders) -> Decoders:
    if not isinstance(decode, bool):
        return decode
    if decode and not shards.decoders:
        raise ValueError("decode=True needs the settings of a data set's modalities: give a function per field instead")
    return shards.decoders if decode else {}
