"""Training the encoder of a modality where need be, and encoding the shards that are not encoded yet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmcore.config import NeuralEncoder, RunConfig, TrainedEncoder
from mmcore.errors import DamagedError, DataError, Problem, StageError
from mmcore.features.foresee import (
    FOLDER,
    Receipt,
    checkpoint_of,
    foresee_encoders,
    held_out_views,
    plan_encoder,
    weights_of,
)
from mmcore.features.standing import pack_keys
from mmcore.features.store import finished_views, write_view
from mmcore.parallel import Died, Pool, serial_pool, tell
from mmcore.progress import Progress
from mmcore.records import Dataset, EncoderEntry, Json, ShardEntry, digest
from mmcore.storage import Store, sha256

if TYPE_CHECKING:
    from mmcore.features.encoders.base import Encoder, Samples

__all__ = ["encode_modality", "foresee_encoders"]

SHARDS_PER_JOB = 16
"""At most so many shards are encoded by one job, which loads the encoder once."""


@dataclass(frozen=True)
class FitJob:
    """All that training one encoder takes."""

    store: Store
    modality: str
    settings: TrainedEncoder
    recipe: Mapping[str, Json]
    train: tuple[ShardEntry, ...]
    val: tuple[ShardEntry, ...]
    device: str
    removed: frozenset[str] = frozenset()
    """Keys to learn nothing from."""


@dataclass(frozen=True)
class EncodeJob:
    """Shards to encode with one finished encoder."""

    store: Store
    modality: str
    settings: TrainedEncoder
    receipt: Receipt
    shards: tuple[ShardEntry, ...]
    device: str


def encode_modality(  # noqa: PLR0917
    config: RunConfig, dataset: Dataset, modality: str, store: Store, pool: Pool, progress: Progress
) -> EncoderEntry:
    """Train the modality's encoder if need be, then encode every shard whose vectors are missing.

    Raises DataError where the modality cannot be learned (no rows in val, a class without training rows), and
    StageError where a vector is not finite, naming the key.
    """
    settings = config.features[modality]
    plan = plan_encoder(config, dataset.shards, dataset.classes, modality, dataset.modalities[modality], store)
    entry = plan.entry(modality, len(dataset.classes))
    if entry is None or plan.recipe is None:
        raise ValueError("the data set holds shards that are only foreseen")
    shards = {view: shard for shard in dataset.shards if (view := shard.views[modality]) is not None}
    receipt, missing = plan.receipt, shards
    if receipt is not None:
        # A run killed after the receipt leaves the checkpoint behind.
        store.remove(checkpoint_of(entry.digest))
        missing = _missing(store, entry, settings, shards, receipt)
    progress.start(1 + len(shards), reused=(receipt is not None) + len(shards) - len(missing), unit="outputs")
    if receipt is not None and not missing:
        return entry
    device = plan.recipe["device"] or "cpu"
    # Other processes would each take memory of the one GPU.
    workers = pool if device == "cpu" else serial_pool(config.compute)
    if receipt is None:
        progress.log(f"{modality}: training the encoder ({plan.reason})")
        removed = frozenset(dataset.removed)
        job = FitJob(store, modality, settings, plan.recipe, dataset.of("train"), dataset.of("val"), device, removed)
        receipt = _fitted(job, workers, progress)
        missing = _missing(store, entry, settings, shards, receipt)
        progress.advance(len(shards) - len(missing))
    _encode(EncodeJob(store, modality, settings, receipt, (), device), list(missing.values()), workers, progress)
    return entry


def _missing(
    store: Store, entry: EncoderEntry, settings: TrainedEncoder, shards: Mapping[str, ShardEntry], receipt: Receipt
) -> dict[str, ShardEntry]:
    wanted = held_out_views(settings, list(shards.values()), entry.modality)
    states = finished_views(store, entry.digest, wanted, weights_of(receipt))
    return {view: shard for view, shard in shards.items() if states.get(view) != "finished"}


# Training


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
    for _, outcome in pool.map(fit_encoder, [job], name=_name, on_event=on_event):
        if isinstance(outcome, Died):
            raise StageError(f"{outcome.name}: {outcome.reason}. Run the same command again: it goes on where it was.")
        receipt = outcome
    if receipt is None:
        raise StageError(f"{_name(job)}: ended without a result")
    progress.advance(max(0.0, 1 - told), samples=0, note="")
    return receipt


def _name(job: FitJob | EncodeJob) -> str:
    if isinstance(job, FitJob):
        return f"training the {job.settings.encoder} encoder of {job.modality}"
    return f"encoding {job.modality}, {len(job.shards)} shards from {job.shards[0].recipe}"


def fit_encoder(job: FitJob) -> Receipt:
    """Train an encoder and publish it: its files, then its receipt, which is returned."""
    name = digest(job.recipe)
    encoder = _new_encoder(job.settings, job.recipe, job.device)
    train, val = (_labelled(job, shards) for shards in (job.train, job.val))
    _demand_learnable(job, train, val)
    checkpoints = None
    if isinstance(job.settings, NeuralEncoder):
        # Importing this takes torch, which the other encoders do without.
        from mmcore.training.checkpoint import StoreCheckpoints

        checkpoints = StoreCheckpoints(job.store, checkpoint_of(name))

    def on_epoch(epoch: int, epochs: int, figures: dict[str, float]) -> None:
        tell({"epoch": epoch, "epochs": epochs, "figures": figures})

    facts = encoder.fit(train, val, checkpoints=checkpoints, on_epoch=on_epoch)
    files = []
    with job.store.scratch() as folder:
        for file, data in encoder.pack().items():
            (folder / file).write_bytes(data)
            files.append(job.store.publish_content(folder / file, f"{FOLDER}/{name}", file.rpartition(".")[2]))
        keys = {}
        for split, samples in (("train", train), ("val", val)):
            (folder / split).write_bytes(pack_keys(samples.keys))
            keys[split] = job.store.publish_content(folder / split, f"{FOLDER}/{name}", "keys").as_json()
    receipt = {
        "recipe": job.recipe,
        "files": [file.as_json() for file in files],
        "keys": keys,
        "dim": encoder.dim,
        "samples": {"train": len(train), "val": len(val)},
        **facts,
    }
    job.store.publish_json(f"{FOLDER}/{name}/receipt.json", receipt)
    if checkpoints is not None:
        checkpoints.clear()
    return receipt


def _labelled(job: FitJob, shards: Sequence[ShardEntry]) -> Samples:
    """The samples of these shards that have the modality, with their labels from the indexes."""
    from mmcore.features.encoders.base import Samples
    from mmcore.shards.read import read_index

    keys, values, labels = [], [], []
    for shard in shards:
        numbers = read_index(job.store, shard)["label"].to_pylist()
        for (key, value), label in zip(_values(job, shard), numbers, strict=True):
            # Of several files, each is an example of the sample's class.
            for part in () if key in job.removed else value or ():
                keys.append(key)
                values.append(part)
                labels.append(job.recipe["classes"].index(label))
    return Samples(keys, values, np.array(labels, dtype=np.int64))


def _demand_learnable(job: FitJob, train: Samples, val: Samples) -> None:
    where, problems = f"features.{job.modality}", []
    classes = job.recipe["classes"]
    absent = [name for number, name in enumerate(classes) if number not in set(train.labels.tolist())]
    if absent:
        listed = ", ".join(repr(name) for name in absent[:10]) + (", ..." if len(absent) > 10 else "")
        what = f"no sample of train has {job.modality} in {len(absent)} of {len(classes)} classes: {listed}."
        problems.append(Problem(where, what, "Add some, leave these classes out, or leave the modality out."))
    if not len(val):
        what = f"no sample of val has {job.modality}, so that its encoder cannot be validated."
        problems.append(Problem(where, what, "Move some samples from train to val, or leave the modality out."))
    if problems:
        raise DataError(problems)


# Encoding


def _encode(blank: EncodeJob, shards: Sequence[ShardEntry], pool: Pool, progress: Progress) -> None:
    size = max(1, min(SHARDS_PER_JOB, math.ceil(len(shards) / pool.workers))) if shards else 1
    jobs = [
        EncodeJob(blank.store, blank.modality, blank.settings, blank.receipt, tuple(shards[i : i + size]), blank.device)
        for i in range(0, len(shards), size)
    ]

    def on_event(_: EncodeJob, event: Json) -> None:
        progress.advance(1, samples=event["samples"])

    for _, outcome in pool.map(encode_shards, jobs, name=_name, on_event=on_event):
        if isinstance(outcome, Died):
            raise StageError(
                f"{outcome.name}: {outcome.reason}. What was finished is kept: run the same command again."
            )


def encode_shards(job: EncodeJob) -> int:
    """Encode the shards and publish their vectors; returns how many there are."""
    encoder, name = _finished_encoder(job), digest(job.receipt["recipe"])
    for shard in job.shards:
        keys, values = [], []
        for key, value in _values(job, shard):
            keys.append(key)
            values.append(value)
        present = np.array([value is not None for value in values], dtype=np.bool_)
        counts = [len(value) for value in values if value is not None]
        held = [key for key, value in zip(keys, values, strict=True) for _ in value or ()]
        train_keys = held if shard.split == "train" else None
        vectors = np.zeros((len(keys), encoder.dim), np.float32)
        encoded = encoder.encode([part for value in values for part in value or ()], train_keys=train_keys)
        vectors[present] = _averaged(encoded, counts)
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            key = keys[int(np.argmin(finite))]
            raise StageError(
                f"{_name(job)}: the vector of sample {key!r} is not finite. Look at its {job.modality}; "
                "if that is sound, train the encoder with a lower learning_rate."
            )
        view = shard.views[job.modality]
        assert view is not None
        held_out = job.settings.holds_out and shard.split == "train"
        weights = weights_of(job.receipt)
        write_view(job.store, name, view, (keys, vectors, present), weights=weights, held_out=held_out)
        tell({"view": view, "samples": len(keys)})
    return len(job.shards)


def _averaged(vectors: NDArray[np.float32], counts: Sequence[int]) -> NDArray[np.float32]:
    """One vector per sample: the mean of those of its members, of which there are `counts`."""
    if len(vectors) == len(counts):
        return vectors
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    means: NDArray[np.float32] = np.add.reduceat(vectors, starts, axis=0)
    means /= np.array(counts, np.float32)[:, None]
    return means


def _values(job: FitJob | EncodeJob, shard: ShardEntry) -> Iterator[tuple[str, list[object] | None]]:
    """Key and loaded values (None: missing) of each sample: one, or several where the modality is so."""
    from mmcore.shards.read import read_members
    from mmcore.shards.recipe import open_modality

    recipe = job.recipe if isinstance(job, FitJob) else job.receipt["recipe"]
    modality = open_modality(recipe["modality"])
    for key, parts in read_members(job.store, shard, job.modality):
        yield key, None if parts is None else [modality.load(data) for data in parts]


def _new_encoder(settings: TrainedEncoder, recipe: Mapping[str, Json], device: str) -> Encoder:
    kind: type[Encoder] = settings.load()
    threads = recipe["threads"] or 1
    return kind(settings, recipe["modality"], recipe["classes"], threads=threads, device=device)


def _finished_encoder(job: EncodeJob) -> Encoder:
    encoder = _new_encoder(job.settings, job.receipt["recipe"], job.device)
    files = {}
    for file in job.receipt["files"]:
        try:
            data = job.store.read_bytes(file["path"])
        except FileNotFoundError:
            data = b""
        if sha256(data) != file["sha256"]:
            where = job.store.url(file["path"])
            raise DamagedError(f"{where} is not the file that its receipt names; remove it and run again.")
        files[f"encoder.{file['path'].rpartition('.')[2]}"] = data
    encoder.unpack(files)
    return encoder
