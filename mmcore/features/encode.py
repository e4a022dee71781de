"""Encoding shards: the device works on one batch while threads make the next ones ready."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from mmcore.config import EncoderSettings
from mmcore.errors import MmcoreError, StageError
from mmcore.features.encoders.base import Array, Encoded, Encoder
from mmcore.features.foresee import Receipt, held_out_views, weights_of
from mmcore.features.loading import Batch, Loading, load_batches
from mmcore.features.opened import opened_encoder
from mmcore.features.store import Made, Table, finished_views, write_view
from mmcore.parallel import tell
from mmcore.parallel.ahead import Ahead
from mmcore.records import Reject, ShardEntry, digest
from mmcore.storage import Store
from mmcore.training.device import is_device_lost, is_out_of_memory

DEPTH = 4
"""Batches made ready ahead of the device."""


@dataclass(frozen=True)
class EncodeJob:
    """Shards to encode with one finished encoder."""

    store: Store
    modality: str
    settings: EncoderSettings
    receipt: Receipt
    shards: tuple[ShardEntry, ...]


@dataclass
class Rates:
    """Where the time of encoding went, and how much of a network's work was padding."""

    seconds: float = 0.0
    busy_s: float = 0.0
    """Sending batches to the encoder and bringing its vectors back."""
    waiting_s: float = 0.0
    """Waiting for batches to be read and made ready."""
    positions: int = 0
    padding: int = 0

    def add(self, other: Rates) -> None:
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)

    def words(self) -> str:
        """As `device busy 93% · waiting 4% · padding 2%`."""
        if not self.seconds:
            return ""
        shares = [("device busy", self.busy_s, self.seconds), ("waiting", self.waiting_s, self.seconds)]
        if self.positions:
            shares.append(("padding", self.padding, self.positions))
        return " · ".join(f"{name} {part / whole:.0%}" for name, part, whole in shares)


def encode_shards(job: EncodeJob) -> tuple[Rates, int | None]:
    """Encode the shards and publish their vectors; the rates, and the batch size that memory sufficed for in the end.

    Tells of each view with how many samples it has and which of them were set aside.
    """
    from mmcore.shards.recipe import open_modality

    encoder = opened_encoder(job.store, job.settings, job.receipt)
    modality = open_modality(job.receipt["recipe"]["modality"])
    rates, began, done = Rates(), time.monotonic(), 0
    shards = _unfinished(job)
    while done < len(shards):
        # After a batch that was too large its shard starts again, so that all of it is by one batch size.
        rest = shards[done:]
        try:
            batches = partial(load_batches, job.store, rest, job.modality, modality, encoder)
            with Ahead(batches, DEPTH) as ahead:
                try:
                    for encoding in _encoded(encoder, iter(ahead), rates):
                        _publish(job, encoder, encoding)
                        done += 1
                finally:
                    rates.waiting_s += ahead.waited_s
        except _TooLargeError as error:
            encoder.batch = max(1, min(encoder.batch or error.values, error.values) // 2)
    rates.seconds = time.monotonic() - began
    return rates, encoder.batch


def _unfinished(job: EncodeJob) -> list[ShardEntry]:
    """The shards without those that an earlier attempt at this job finished."""
    wanted = held_out_views(job.settings, job.shards, job.modality)
    found = finished_views(job.store, digest(job.receipt["recipe"]), wanted, weights_of(job.receipt))
    finished = {view for view, (state, _) in found.items() if state == "finished"}
    return [shard for shard in job.shards if shard.views[job.modality] not in finished]


class _TooLargeError(Exception):
    """A batch of several values did not fit into memory."""

    def __init__(self, values: int) -> None:
        super().__init__(f"{values} values at a time are too many")
        self.values = values


class _Encoding:
    """The vectors of one shard, as they come."""

    def __init__(self, loading: Loading) -> None:
        self.loading = loading
        self.vectors: list[Array | None] = [None] * len(loading.data)
        self.tokens: list[Array | None] = [None] * len(loading.data)
        self.failed: dict[int, Exception] = {}

    def add(self, rows: Sequence[int], encoded: Encoded) -> None:
        vectors, tokens = encoded.landed()
        for place, row in enumerate(rows):
            self.vectors[row] = vectors[place]
            self.tokens[row] = tokens[place] if tokens else None


def _encoded(encoder: Encoder, batches: Iterator[Batch], rates: Rates) -> Iterator[_Encoding]:
    """Each shard's vectors; one batch is on the device while the one before it is brought back."""
    encoding: _Encoding | None = None
    flying: tuple[Batch, Encoded] | None = None
    for batch in batches:
        if encoding is None or encoding.loading is not batch.loading:
            encoding = _Encoding(batch.loading)
        rates.positions += batch.positions
        rates.padding += batch.padding
        began = time.monotonic()
        launched = _launched(encoder, encoding, batch)
        if flying is not None:
            _land(encoder, encoding, *flying)
        flying = None if launched is None else (batch, launched)
        # On the CPU it is there already, and the last of a shard has nothing to wait for.
        if flying is not None and (batch.last or encoder.device == "cpu"):
            _land(encoder, encoding, *flying)
            flying = None
        rates.busy_s += time.monotonic() - began
        if batch.last:
            encoding.failed |= batch.loading.failed
            yield encoding


def _launched(encoder: Encoder, encoding: _Encoding, batch: Batch) -> Encoded | None:
    """The batch on its way; None where it is empty or an error had its values encoded one by one."""
    if not len(batch.rows):
        return None
    error = batch.failure
    if error is None:
        try:
            return encoder.encode(batch.collated, batch.part).sent()
        except MmcoreError:
            raise
        except Exception as found:
            error = found
    _told_apart(encoder, encoding, batch, error)
    return None


def _land(encoder: Encoder, encoding: _Encoding, batch: Batch, encoded: Encoded) -> None:
    """Bring a batch back; a device may tell only now what went wrong with it."""
    try:
        encoding.add(batch.rows.tolist(), encoded)
    except Exception as error:
        _told_apart(encoder, encoding, batch, error)


def _told_apart(encoder: Encoder, encoding: _Encoding, batch: Batch, error: Exception) -> None:
    """What to do about a batch that failed: a smaller one, or its values one by one."""
    if is_out_of_memory(error) and len(batch.rows) > 1:
        raise _TooLargeError(len(batch.rows)) from error
    _demand_sample_at_fault(encoder, error)
    _one_by_one(encoder, encoding, batch)


def _demand_sample_at_fault(encoder: Encoder, error: Exception) -> None:
    """Raise StageError for what another attempt may not meet: nothing of it is written into a finished view."""
    told = str(error).rstrip(".")
    if is_out_of_memory(error):
        fix = "Free some, shorten the samples, or take a smaller model; what was finished is kept."
        raise StageError(f"{_name(encoder)} does not fit into memory with one sample: {told}. {fix}") from error
    if is_device_lost(error):
        raise StageError(f"the device of {_name(encoder)} failed: {told}. What was finished is kept.") from error


def _one_by_one(encoder: Encoder, encoding: _Encoding, batch: Batch) -> None:
    """Find the values that the encoder fails on; the others go through together again, or alone if that fails too."""
    fit: dict[int, tuple[Any, Encoded]] = {}
    for row, value in zip(batch.rows.tolist(), batch.ready, strict=True):
        try:
            alone = encoder.encode(encoder.collate([value]), batch.part)
            alone.landed()
            fit[row] = value, alone
        except MmcoreError:
            raise
        except Exception as error:
            _demand_sample_at_fault(encoder, error)
            encoding.failed[row] = error
    if not fit:
        return
    try:
        encoding.add(list(fit), encoder.encode(encoder.collate([value for value, _ in fit.values()]), batch.part))
    except MmcoreError:
        raise
    except Exception as error:
        _demand_sample_at_fault(encoder, error)
        for row, (_, alone) in fit.items():
            encoding.add([row], alone)


def _publish(job: EncodeJob, encoder: Encoder, encoding: _Encoding) -> None:
    shard = encoding.loading.shard
    table, rejects = _table(encoder, encoding, job.modality)
    view = shard.views[job.modality]
    assert view is not None
    made = Made(
        weights_of(job.receipt), job.settings.holds_out and shard.split == "train", encoder.batch, tuple(rejects)
    )
    write_view(job.store, digest(job.receipt["recipe"]), view, table, made)
    tell({"view": view, "samples": len(table.keys), "rejects": [reject.as_json() for reject in rejects]})


def _table(encoder: Encoder, encoding: _Encoding, modality: str) -> tuple[Table, list[Reject]]:
    """One row per sample: the mean of its values' vectors, their sequences one after the other."""
    loading, kind = encoding.loading, np.dtype(encoder.settings.dtype)
    n, width = len(loading.keys), encoder.token_dim
    sums, counts = np.zeros((n, encoder.dim), np.float32), np.zeros(n, np.int64)
    tokens: list[list[Array]] = [[] for _ in range(n)]
    reasons: dict[int, tuple[str, str]] = {}
    for value, owner in enumerate(loading.owners):
        vector, sequence = encoding.vectors[value], encoding.tokens[value]
        if vector is None:
            error = encoding.failed.get(value)
            what = f"{type(error).__name__}: {error}" if error else "no vector came back"
            reasons.setdefault(owner, ("encoder-failed", f"{_name(encoder)} failed on it ({what})"))
            continue
        sums[owner] += vector
        counts[owner] += 1
        if sequence is not None:
            tokens[owner].append(sequence)
    # Divided only where there are several: a mean of one is itself, to the last bit.
    several = counts > 1
    sums[several] /= counts[several, None].astype(np.float32)
    with np.errstate(over="ignore"):
        vectors = sums.astype(kind)
        rows = [np.concatenate(parts).astype(kind) if parts else None for parts in tokens] if width else None
    present = loading.present
    unsound = ~np.isfinite(vectors).all(axis=1)
    for owner, sequence in enumerate(rows or ()):
        unsound[owner] |= sequence is not None and not np.isfinite(sequence).all()
    for owner in np.flatnonzero(present & unsound).tolist():
        what = f"what {_name(encoder)} gives is not finite" + (
            f" in {kind.name}" if np.isfinite(sums[owner]).all() else ""
        )
        reasons.setdefault(owner, ("not-finite-vector", what))
    for owner in reasons:
        present[owner] = False
        if rows is not None:
            rows[owner] = None
    rejects = [Reject(loading.keys[owner], modality, *reason) for owner, reason in sorted(reasons.items())]
    return Table(loading.keys, vectors, present, rows, width), rejects


def _name(encoder: Encoder) -> str:
    return f"the {encoder.settings.encoder} encoder"
