"""The evaluate stage: which models have no scores on the test split yet, and computing those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from mmcore.config import RunConfig
from mmcore.config.plugged import plugged
from mmcore.errors import DamagedError, FusionError, StageError
from mmcore.evaluation.leaderboard import leaderboard
from mmcore.evaluation.predictions import numbered, predictions_table, read_groups
from mmcore.evaluation.whole import read_whole
from mmcore.features.foresee import name_groups
from mmcore.fusion.planned import may_read, read_by
from mmcore.parallel import Died, Pool
from mmcore.progress import Progress
from mmcore.records import DataFile, Dataset, EncoderEntry, EvaluationEntry, Json, ModelEntry, ShardEntry, Step, digest
from mmcore.storage import Store, sha256

if TYPE_CHECKING:
    import pyarrow as pa

    from mmcore.fusion.base import FusionModel
    from mmcore.fusion.data import LabelledViews

__all__ = [
    "EvaluationJob",
    "evaluate_model",
    "evaluate_models",
    "foresee_evaluations",
    "leaderboard",
    "publish_evaluation",
]

VERSION = 2
"""Raised by hand when the scores of the same model on the same rows change."""


NEW = "not scored on these test rows yet"


@dataclass(frozen=True)
class EvaluationJob:
    """All that scoring one model takes."""

    store: Store
    name: str
    model: str
    """The model's digest."""
    recipe: Json
    test: Dataset
    """The data set with nothing but its test shards."""
    encoders: tuple[EncoderEntry, ...]
    trusted: tuple[str, ...] = ()
    """Classes of the user's own, as `module:Class`, that the model may be of."""


def foresee_evaluations(
    config: RunConfig,
    entries: Sequence[ShardEntry],
    encoders: Sequence[tuple[EncoderEntry | None, Sequence[Step]]],
    models: Sequence[tuple[ModelEntry | None, Step]],
    store: Store,
) -> list[tuple[EvaluationEntry | None, Step]]:
    """What scoring the models of a run would compute or reuse, with the reason; loads no model.

    `entries`, `encoders` and `models` are what the earlier stages foresee. The entry is None where the scores have
    no name yet, because the model or what it reads is still to be made.
    """
    test = [entry for entry in entries if entry.split == "test"]
    samples = sum(entry.samples for entry in test)
    found: list[tuple[EvaluationEntry | None, Step]] = []
    for model, step in models:
        name = step.name if model is None else model.name
        read = [
            one
            for (view, (modality, _)), one in zip(config.encoders.items(), encoders, strict=True)
            if model is None or may_read(model, view, modality)
        ]
        waits_for = _unsettled(test, read)
        if model is None or step.action == "compute" or waits_for:
            reason = waits_for or "its model is trained first"
            found.append((None, Step("evaluate", name, "compute", reason, None, samples)))
            continue
        recipe = evaluation_recipe(config, test, [entry for entry, _ in read if entry], model, store)
        entry = EvaluationEntry(model.name, digest(recipe))
        action: Literal["reuse", "compute"]
        action, reason = ("reuse", "scored before") if is_finished(store, entry.digest) else ("compute", NEW)
        found.append((entry, Step("evaluate", name, action, reason, entry.digest, samples)))
    return found


def evaluate_models(  # noqa: PLR0917 - as the other stages
    config: RunConfig,
    dataset: Dataset,
    encoders: Sequence[EncoderEntry],
    models: Sequence[ModelEntry],
    store: Store,
    pool: Pool,
    progress: Progress,
) -> list[EvaluationEntry]:
    """Score every model on the test split where that was not done yet; the entries in the order of `models`.

    Publishes `evaluations/<digest>/` with `costs.json` (measured, so that no receipt names it), `scores.json`,
    `predictions.parquet` and, last, `receipt.json`.
    Raises StageError where a job's process died, and what `score_model` raises.
    """
    shards = dataset.of("test")
    samples = sum(shard.samples for shard in shards)
    test = replace(dataset, shards=shards, rejects=(), facts={})
    trusted = tuple(name for method in config.fusion.methods for name in method.trusted())
    entries: list[EvaluationEntry] = []
    jobs: dict[str, EvaluationJob] = {}
    for model in models:
        read = tuple(read_by(model, encoders).values())
        recipe = evaluation_recipe(config, shards, read, model, store)
        entry = EvaluationEntry(model.name, digest(recipe))
        if not is_finished(store, entry.digest):
            jobs[entry.digest] = EvaluationJob(store, model.title, model.digest, recipe, test, read, trusted)
        entries.append(entry)
    total = len({entry.digest for entry in entries})
    progress.start(total, reused=total - len(jobs), unit="models")
    for job, outcome in pool.map(evaluate_model, jobs.values(), name=_title) if jobs else ():
        if isinstance(outcome, Died):
            raise StageError(f"{_title(job)}: {outcome.reason}. Run the same command again: it goes on from there.")
        progress.advance(samples=samples, note=job.name)
    return entries


def evaluation_recipe(
    config: RunConfig,
    test: Sequence[ShardEntry],
    encoders: Sequence[EncoderEntry],
    model: ModelEntry,
    store: Store,
) -> dict[str, Json]:
    """All that determines the scores of `model`: its receipt, the encoders', the test views and labels."""
    return {
        "kind": "evaluation",
        "version": VERSION,
        "model": {"digest": model.digest, "receipt": _receipt_hash(store, f"models/{model.digest}")},
        "features": {
            encoder.modality: {
                "encoder": encoder.digest,
                "receipt": _receipt_hash(store, f"encoders/{encoder.digest}") if encoder.trained else None,
                "views": [entry.views[encoder.modality] for entry in test],
            }
            for encoder in encoders
        },
        "task": config.data.task,
        "labels": [entry.labels for entry in test],
        "groups": None if config.data.columns.group is None else [name_groups(store, entry) for entry in test],
        "instances": config.data.pairing == "instance",
        "threads": config.compute.threads,
    }


def is_finished(store: Store, name: str) -> bool:
    """Whether the scores of this digest are there as their receipt says."""
    try:
        receipt = store.read_json(f"evaluations/{name}/receipt.json")
        return all(store.intact(DataFile(**file)) for file in receipt["files"])
    except (FileNotFoundError, DamagedError):
        return False


def evaluate_model(job: EvaluationJob) -> EvaluationEntry:
    """Score one model and publish what was found: runs in a worker."""
    from threadpoolctl import threadpool_limits

    from mmcore.fusion.data import load_views

    # The order of sums, and with it the last bits, depends on the threads of the linear algebra.
    with threadpool_limits(job.recipe["threads"]):
        rows = load_views(job.store, job.test, job.encoders, "test")
        groups = None if job.recipe["groups"] is None else read_groups(job.store, job.test, rows.keys.tolist())
        publish_evaluation(job.store, job.recipe, open_model(job.store, job.model, job.trusted), rows, groups)
    return EvaluationEntry(job.name, digest(job.recipe))


def publish_evaluation(
    store: Store, recipe: Json, model: FusionModel, rows: LabelledViews, groups: Sequence[str | None] | None = None
) -> None:
    """Score `model` on the labelled of `rows` and publish what was found and, last, its receipt.

    `groups` names each row's, where the data have such; rows without one are a group each.
    Raises FusionError where no row has a label.
    """
    import numpy as np

    from mmcore.evaluation.scores import score_model

    labelled = np.flatnonzero(model.target_.encode(rows.labels, len(rows))[1])
    if not len(labelled):
        raise FusionError("no test row has a label to be judged by")
    judged = rows[labelled]
    named = None if groups is None else [groups[row] for row in labelled.tolist()]
    scored = score_model(
        model, judged, instances=recipe["instances"], groups=None if named is None else numbered(named)
    )
    folder = f"evaluations/{digest(recipe)}"
    # A receipt never names files that are being replaced.
    store.remove(f"{folder}/receipt.json")
    store.publish_json(f"{folder}/costs.json", scored.costs)
    files = [
        store.publish_json(f"{folder}/scores.json", scored.scores),
        _publish_predictions(store, f"{folder}/predictions.parquet", predictions_table(judged, scored, named)),
    ]
    store.publish_json(f"{folder}/receipt.json", {"recipe": recipe, "files": [file.as_json() for file in files]})


def _publish_predictions(store: Store, path: str, table: pa.Table) -> DataFile:
    import pyarrow.parquet as pq

    with store.scratch() as folder:
        pq.write_table(table, folder / "predictions.parquet", compression="zstd")
        return store.publish_file(folder / "predictions.parquet", path)


def open_model(store: Store, model: str, trusted: Sequence[str] = ()) -> FusionModel:
    """A trained model, by its digest; of a class outside of this library only where `trusted` has it.

    Raises DamagedError where its files are not what its receipt says.
    """
    from mmcore.fusion.base import FusionModel
    from mmcore.fusion.saving import ARRAYS, FACTS

    with store.scratch() as folder:
        for name in (ARRAYS, FACTS):
            (folder / name).write_bytes(read_whole(store, f"models/{model}", name))
        return FusionModel.load(folder, trusted=[plugged(name) for name in trusted])  # type: ignore[misc]


def _title(job: EvaluationJob) -> str:
    return f"scores of {job.name}"


def _receipt_hash(store: Store, folder: str) -> str:
    """Names the receipt as it is: it holds the hashes of all files beside it, and neither time nor host."""
    return sha256(store.read_bytes(f"{folder}/receipt.json"))


def _unsettled(test: Sequence[ShardEntry], encoders: Sequence[tuple[EncoderEntry | None, Sequence[Step]]]) -> str:
    """What must be made before scores can be named; empty where nothing must."""
    if any(entry.labels is None or None in entry.views.values() for entry in test):
        return "the test shards are made first"
    # The first step of each is the encoder's own.
    changing = [entry is None or (bool(steps) and steps[0].action == "compute") for entry, steps in encoders]
    return "an encoder is trained first" if any(changing) else ""
