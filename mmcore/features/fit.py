"""Training an encoder on one modality of the training split, and opening those that need no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmcore.config import Batched, EncoderSettings
from mmcore.errors import DataError, Problem
from mmcore.features.encoders.base import Encoder, LearnedEncoder, Samples
from mmcore.features.foresee import FOLDER, Receipt, checkpoints_of
from mmcore.features.loading import read_loading
from mmcore.features.opened import new_encoder
from mmcore.features.probe import find_batch
from mmcore.features.standing import pack_keys
from mmcore.parallel import tell
from mmcore.records import Json, ShardEntry, digest
from mmcore.storage import Store


@dataclass(frozen=True)
class FitJob:
    """All that training or opening one encoder takes."""

    store: Store
    modality: str
    settings: EncoderSettings
    recipe: Mapping[str, Json]
    train: tuple[ShardEntry, ...]
    val: tuple[ShardEntry, ...]
    removed: frozenset[str] = frozenset()
    """Keys to learn nothing from."""


def fit_encoder(job: FitJob) -> Receipt:
    """Train an encoder, or open one that does not learn, and publish it: its files, then its receipt.

    Raises DataError where the modality cannot be learned: no rows in val, a class without training rows.
    """
    encoder = new_encoder(job.settings, job.recipe)
    return _trained(job, encoder) if isinstance(encoder, LearnedEncoder) else _opened(job, encoder)


def _trained(job: FitJob, encoder: LearnedEncoder) -> Receipt:
    name = digest(job.recipe)
    train, val = (_labelled(job, shards) for shards in (job.train, job.val))
    _demand_learnable(job, train, val)
    checkpoints: Any = None
    if job.settings.on_device:
        # Importing this takes torch, which the other encoders do without.
        from mmcore.training.checkpoint import StoreCheckpoints

        checkpoints = StoreCheckpoints(job.store, f"{checkpoints_of(name)}/all.safetensors")

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
    receipt = _receipt(job, encoder, files=[file.as_json() for file in files], keys=keys)
    receipt |= {"samples": {"train": len(train), "val": len(val)}, **facts}
    job.store.publish_json(f"{FOLDER}/{name}/receipt.json", receipt)
    job.store.remove(checkpoints_of(name))
    return receipt


def _opened(job: FitJob, encoder: Encoder) -> Receipt:
    """Of an encoder that does not learn: how wide it is, and how many samples it takes at a time."""
    from mmcore.shards.recipe import open_modality

    encoder.open()
    modality = open_modality(job.recipe["modality"])
    encoder.look(modality.load(data) for shard in job.train[:1] for data in _data(job, shard))
    if isinstance(job.settings, Batched):
        if job.settings.batch == "auto":
            values = [modality.load(data) for shard in job.train[:1] for data in _data(job, shard)]
            encoder.batch = find_batch(encoder, values)
        else:
            encoder.batch = job.settings.batch
    receipt = _receipt(job, encoder, files=[], keys={})
    if job.settings.on_device:
        from mmcore.training.device import made_on

        receipt["made_on"] = made_on(encoder.device)
    job.store.publish_json(f"{FOLDER}/{digest(job.recipe)}/receipt.json", receipt)
    return receipt


def _data(job: FitJob, shard: ShardEntry) -> Sequence[bytes]:
    return read_loading(job.store, shard, job.modality).data


def _receipt(job: FitJob, encoder: Encoder, *, files: Sequence[Json], keys: Mapping[str, Json]) -> dict[str, Json]:
    return {
        "recipe": job.recipe,
        "files": list(files),
        "keys": dict(keys),
        "dim": encoder.dim,
        "token_dim": encoder.token_dim,
        "batch": encoder.batch,
    }


def _labelled(job: FitJob, shards: Sequence[ShardEntry]) -> Samples:
    """The samples of these shards that have the modality, with their labels from the indexes."""
    from mmcore.shards.read import read_index
    from mmcore.shards.recipe import open_modality

    modality, classes = open_modality(job.recipe["modality"]), job.recipe["classes"]
    keys, values, labels, groups = [], [], [], []
    for shard in shards:
        numbers = read_index(job.store, shard)["label"].to_pylist()
        loading = read_loading(job.store, shard, job.modality)
        # Of several files, each is an example of the sample's class.
        for owner, data in zip(loading.owners, loading.data, strict=True):
            if (key := loading.keys[owner]) not in job.removed:
                keys.append(key)
                values.append(modality.load(data))
                # No classes: the encoder does not look at labels.
                labels.append(classes.index(numbers[owner]) if classes else 0)
                groups.append(loading.groups[owner] if loading.groups else None)
    return Samples(keys, values, np.array(labels, dtype=np.int64), groups if any(groups) else None)


def _demand_learnable(job: FitJob, train: Samples, val: Samples) -> None:
    where, problems = f"features.{job.modality}", []
    classes = job.recipe["classes"]
    absent = [name for number, name in enumerate(classes) if number not in set(train.labels.tolist())]
    if absent:
        listed = ", ".join(repr(name) for name in absent[:10]) + (", ..." if len(absent) > 10 else "")
        what = f"no sample of train has {job.modality} in {len(absent)} of {len(classes)} classes: {listed}."
        problems.append(Problem(where, what, "Add some, leave these classes out, or leave the modality out."))
    if not len(train) and not absent:
        problems.append(Problem(where, f"no sample of train has {job.modality}.", "Add some, or leave it out."))
    if not len(val) and job.settings.validates:
        what = f"no sample of val has {job.modality}, so that its encoder cannot be validated."
        problems.append(Problem(where, what, "Move some samples from train to val, or leave the modality out."))
    if problems:
        raise DataError(problems)
