"""The extract stage: the encoder of a modality trained or opened where need be, and shards encoded that are not yet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from mmcore.config import RunConfig
from mmcore.errors import StageError, TooManyRejectsError
from mmcore.features.encode import EncodeJob, Rates, encode_shards
from mmcore.features.fit import FitJob, fit_encoder
from mmcore.features.foresee import (
    FOLDER,
    EncoderPlan,
    Receipt,
    checkpoints_of,
    foresee_encoders,
    held_out_views,
    plan_encoder,
    weights_of,
)
from mmcore.features.store import finished_views
from mmcore.parallel import Died, Pool, open_gpu_pool
from mmcore.progress import Progress
from mmcore.records import Dataset, EncoderEntry, Json, Reject, ShardEntry, count_by, digest
from mmcore.storage import Store
from mmcore.training.device import gpus_of

__all__ = ["encode_modality", "foresee_encoders"]

SHARDS_PER_JOB = 16
"""At most so many shards are encoded by one job on a worker: the next job goes to whoever is free."""


def encode_modality(  # noqa: PLR0917
    config: RunConfig, dataset: Dataset, view: str, store: Store, pool: Pool, progress: Progress
) -> EncoderEntry:
    """Train or open the encoder of a view if need be, then encode every shard whose vectors are missing.

    `view` is one of `config.encoders`: a modality, or the floor of one. Raises DataError where the modality cannot be
    learned (no rows in val, a class without training rows), and TooManyRejectsError where the encoder cannot take a
    larger share of the samples than `data.max_rejected`.
    """
    modality, _ = config.encoders[view]
    plan = plan_encoder(config, dataset.shards, dataset.classes, view, dataset.modalities[modality], store)
    entry = plan.entry(view, modality, len(dataset.classes))
    if entry is None or plan.recipe is None:
        raise ValueError("the data set holds shards that are only foreseen")
    shards = {found: shard for shard in dataset.shards if (found := shard.views[modality]) is not None}
    receipt = plan.receipt
    if receipt is not None:
        # A run killed after the receipt leaves the checkpoints behind.
        store.remove(checkpoints_of(entry.digest))
    missing, rejects = _missing(store, entry, plan, shards, receipt)
    progress.start(1 + len(shards), reused=(receipt is not None) + len(shards) - len(missing), unit="outputs")
    if receipt is None or missing:
        device = plan.recipe["device"] or "cpu"
        with _workers(config, pool, device) as workers:
            if receipt is None:
                progress.log(f"{view}: {plan.doing} ({plan.reason})")
                receipt = _fitted(_fit_job(dataset, modality, store, plan), workers, progress)
                before = len(missing)
                missing, rejects = _missing(store, entry, plan, shards, receipt)
                progress.advance(before - len(missing))
            limit = _Limit(config, dataset, modality, rejects)
            limit.demand()
            job = EncodeJob(store, modality, plan.settings, receipt, ())
            _encode(job, list(missing.values()), workers, progress, limit)
            # A job that was tried again has told of some of them twice.
            _, rejects = _missing(store, entry, plan, shards, receipt)
    _Limit(config, dataset, modality, rejects).demand()
    return replace(entry, dim=receipt["dim"], rejects=tuple(rejects))


def _workers(config: RunConfig, pool: Pool, device: str) -> AbstractContextManager[Pool]:
    """Who trains and encodes on `device`."""
    if device == "cpu":
        return nullcontext(pool)
    return open_gpu_pool(config.compute, pool, gpus_of(device))


class _Limit:
    """What the encoder could not take so far; more of it than `data.max_rejected` ends the stage."""

    def __init__(self, config: RunConfig, dataset: Dataset, modality: str, rejects: Sequence[Reject]) -> None:
        self.rejects, self.modality = list(rejects), modality
        self.share = config.data.max_rejected
        self.most = self.share * sum(shard.present.get(modality, 0) for shard in dataset.shards)

    def add(self, rejects: Sequence[Reject]) -> None:
        known = set(self.rejects)
        self.rejects += [reject for reject in rejects if reject not in known]
        self.demand()

    def demand(self) -> None:
        """Raise TooManyRejectsError where it is too much."""
        if len(self.rejects) > self.most:
            codes = ", ".join(f"{code} {n:,}" for code, n in count_by(reject.code for reject in self.rejects).items())
            first = self.rejects[0]
            raise TooManyRejectsError(
                f"{self.modality}: {len(self.rejects):,} samples could not be encoded ({codes}), more than "
                f"data.max_rejected ({self.share:.0%}) allows. The first is {first.key!r}: {first.message}. "
                "Mend the encoder or the data, or raise the limit."
            )


def _missing(
    store: Store, entry: EncoderEntry, plan: EncoderPlan, shards: Mapping[str, ShardEntry], receipt: Receipt | None
) -> tuple[dict[str, ShardEntry], list[Reject]]:
    """The views to make, and what the encoder could not take of the others."""
    if receipt is None and plan.settings.learns:
        return dict(shards), []
    wanted = held_out_views(plan.settings, list(shards.values()), entry.modality)
    found = finished_views(store, entry.digest, wanted, weights_of(receipt))
    finished = {view: made for view, (state, made) in found.items() if state == "finished"}
    rejects = [Reject(**reject) for view in shards if view in finished for reject in finished[view]["rejects"]]
    return {view: shard for view, shard in shards.items() if view not in finished}, rejects


# The encoder


def _fit_job(dataset: Dataset, modality: str, store: Store, plan: EncoderPlan) -> FitJob:
    train, val, removed = dataset.of("train"), dataset.of("val"), frozenset(dataset.removed)
    if not plan.settings.learns:
        # It looks at some samples to see how many it takes at a time; a small shard would say little.
        train = tuple(sorted(dataset.shards, key=lambda shard: -shard.present.get(modality, 0))[:1])
    val = val if plan.settings.validates else ()
    assert plan.recipe is not None
    return FitJob(store, modality, plan.settings, plan.recipe, train, val, removed)


def _fitted(job: FitJob, pool: Pool, progress: Progress) -> Receipt:
    """Train on the pool; each epoch counts as its share of one output."""
    told = 0.0

    def on_event(_: FitJob, event: Json) -> None:
        nonlocal told
        share = event["epoch"] / event["epochs"]
        figures = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in event["figures"].items())
        progress.advance(max(0.0, share - told), note=f"epoch {event['epoch']}/{event['epochs']}, {figures}")
        # A job that is tried again starts from its checkpoint or from 1.
        told = max(told, share)

    receipt: Receipt | None = None
    for _, outcome in pool.map(fit_encoder, [job], name=_name, on_event=on_event, gpu=_on_gpu(job.recipe)):
        if isinstance(outcome, Died):
            raise StageError(f"{outcome.name}: {outcome.reason}. Run the same command again: it goes on where it was.")
        receipt = outcome
    if receipt is None:
        raise StageError(f"{_name(job)}: ended without a result")
    progress.advance(max(0.0, 1 - told), samples=0, note="")
    return receipt


def _on_gpu(recipe: Mapping[str, Json]) -> bool:
    return recipe["device"] not in (None, "cpu")


def _name(job: FitJob | EncodeJob) -> str:
    if isinstance(job, FitJob):
        return (
            f"{'training' if job.settings.learns else 'opening'} the {job.settings.encoder} encoder of {job.modality}"
        )
    return f"encoding {job.modality}, {len(job.shards)} shards from {job.shards[0].recipe}"


# Encoding


def _encode(blank: EncodeJob, shards: Sequence[ShardEntry], pool: Pool, progress: Progress, limit: _Limit) -> None:
    """Encode on the pool."""
    # In this process one job does them all: what is made ready ahead goes on from shard to shard.
    size = len(shards) if pool.workers == 1 else min(SHARDS_PER_JOB, math.ceil(len(shards) / pool.workers))
    jobs = [replace(blank, shards=tuple(shards[i : i + size])) for i in range(0, len(shards), max(1, size))]
    rates, batch = Rates(), blank.receipt["batch"]

    def on_event(_: EncodeJob, event: Json) -> None:
        rejects = [Reject(**reject) for reject in event["rejects"]]
        progress.advance(1, samples=event["samples"], rejected=len(rejects))
        limit.add(rejects)

    for _, outcome in pool.map(
        encode_shards, jobs, name=_name, on_event=on_event, gpu=_on_gpu(blank.receipt["recipe"])
    ):
        if isinstance(outcome, Died):
            raise StageError(
                f"{outcome.name}: {outcome.reason}. What was finished is kept: run the same command again."
            )
        found, sufficed = outcome
        rates.add(found)
        progress.advance(0, note=rates.words())
        batch = _smaller(blank, batch, sufficed, progress)
    if rates.seconds:
        progress.log(f"{blank.modality}: {rates.words()}")


def _smaller(job: EncodeJob, batch: int | None, sufficed: int | None, progress: Progress) -> int | None:
    """The batch size from now on; one that memory did not suffice for is not tried again by the next run."""
    if sufficed is None or sufficed == batch or (batch is not None and sufficed > batch):
        return batch
    progress.log(f"{job.modality}: memory did not suffice for {batch} samples at a time; it did for {sufficed}")
    path = f"{FOLDER}/{digest(job.receipt['recipe'])}/receipt.json"
    job.store.publish_json(path, {**job.receipt, "batch": sufficed})
    return sufficed
