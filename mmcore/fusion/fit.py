"""Training the configured methods and the baselines on a data set's features; what would be trained, and why.

Foreseeing imports neither torch nor scikit-learn: a run with nothing to do is fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from mmcore.config.fusion import NeuralFusion
from mmcore.config.run import RunConfig
from mmcore.errors import DamagedError, StageError
from mmcore.fusion.planned import (
    LEARNED_FROM,
    ModelPlan,
    exceeds_memory,
    learned_shards,
    model_recipe,
    plan_models,
    read_by,
    unknown_because,
    why_new,
)
from mmcore.parallel import Died, Pool, serial_pool, tell
from mmcore.progress import Progress
from mmcore.records import DataFile, Dataset, EncoderEntry, Json, ModelEntry, ShardEntry, Step, digest
from mmcore.storage import Store, sha256

FOLDER = "models"


@dataclass(frozen=True)
class FitJob:
    """All that one fit needs; the recipe alone determines its bytes."""

    store: Store
    name: str
    settings: Any
    recipe: Json
    dataset: Dataset
    encoders: tuple[EncoderEntry, ...]
    stored: bool = False
    """Whether features are left in the store and read batch by batch; the bytes are the same."""

    @property
    def folder(self) -> str:
        return f"{FOLDER}/{digest(self.recipe)}"


def foresee_models(
    config: RunConfig,
    entries: Sequence[ShardEntry],
    encoders: Sequence[tuple[EncoderEntry | None, Sequence[Step]]],
    store: Store,
) -> list[tuple[ModelEntry | None, Step]]:
    """Each model as far as it can be known (None where its name on disk cannot), and what a run would do about it."""
    foreseen = [entry for entry, _ in encoders if entry is not None]
    shards = learned_shards(entries)
    samples = sum(shard.samples for shard in shards["train"])
    found: list[tuple[ModelEntry | None, Step]] = []
    # Read only where something is to be explained.
    history = cache(partial(_receipts, store))
    for plan in plan_models(config):
        known = read_by(plan, foreseen)
        if unknown := unknown_because(plan, known, shards, history):
            found.append((None, Step("train", plan.name, "compute", unknown, None, samples)))
            continue
        recipe = model_recipe(plan, config, known, shards)
        receipt, reason = _finished(store, recipe, [known[name] for name in plan.modalities])
        if receipt is None and not reason:
            reason = why_new(recipe, history())
        step = Step(
            "train", plan.name, "reuse" if receipt else "compute", reason or "finished", digest(recipe), samples
        )
        found.append((_entry(plan, recipe, receipt), step))
    return found


def fit_models(  # noqa: PLR0917 - as the other stages
    config: RunConfig,
    dataset: Dataset,
    encoders: Sequence[EncoderEntry],
    store: Store,
    pool: Pool,
    progress: Progress,
) -> list[ModelEntry]:
    """Train what is not there yet; the configured methods in their order, then the baselines.

    Raises StageError naming the model where a fit fails or its process dies.
    """
    shards = learned_shards(dataset.shards)
    learned = replace(dataset, shards=dataset.of(*LEARNED_FROM), rejects=())
    plans = plan_models(config)
    known = [read_by(plan, encoders) for plan in plans]
    recipes = [model_recipe(plan, config, found, shards) for plan, found in zip(plans, known, strict=True)]
    used = [tuple(found[name] for name in plan.modalities) for plan, found in zip(plans, known, strict=True)]
    receipts = {
        digest(recipe): _finished(store, recipe, encoders_)[0] for recipe, encoders_ in zip(recipes, used, strict=True)
    }
    for plan, recipe in zip(plans, recipes, strict=True):
        if isinstance(plan.settings, NeuralFusion) and receipts[digest(recipe)] is not None:
            # A run killed after the receipt leaves the checkpoint behind.
            store.remove(checkpoint_of(digest(recipe)))
    jobs = {
        digest(recipe): FitJob(
            store,
            plan.name,
            plan.settings,
            recipe,
            learned,
            encoders_,
            stored=exceeds_memory(plan, config, {entry.modality: entry for entry in encoders_}, learned),
        )
        for plan, recipe, encoders_ in zip(plans, recipes, used, strict=True)
        if receipts[digest(recipe)] is None
    }
    progress.start(len(receipts), reused=len(receipts) - len(jobs), unit="models")
    # Other processes would each take memory of the one GPU.
    on_gpu = any(job.recipe["device"] != "cpu" for job in jobs.values())
    workers = serial_pool(config.compute) if on_gpu else pool
    shares = dict.fromkeys(jobs, 0.0)

    def on_event(job: FitJob, event: Json) -> None:
        share = event["epoch"] / event["epochs"]
        progress.advance(share - shares[digest(job.recipe)], note=f"{job.name} epoch {event['epoch']}")
        shares[digest(job.recipe)] = share

    for job, outcome in workers.map(fit_model, jobs.values(), name=_title, on_event=on_event):
        if isinstance(outcome, Died):
            raise StageError(f"{_title(job)}: {outcome.reason}. Run the same command again: it goes on from there.")
        receipts[digest(job.recipe)] = outcome
        progress.advance(1 - shares[digest(job.recipe)], note=job.name)
    return [_entry(plan, recipe, receipts[digest(recipe)]) for plan, recipe in zip(plans, recipes, strict=True)]


def choose_best(models: Sequence[ModelEntry], metric: str) -> ModelEntry:
    """The configured model with the best validation score (the lowest log loss); the first of equals.

    Baselines are not candidates. Raises ValueError where there is no other.
    """
    sign = 1 if metric == "log_loss" else -1
    return min((model for model in models if not model.baseline), key=lambda model: sign * model.val_scores[metric])


def read_receipt(store: Store, model: str) -> Json:
    """The receipt of a trained model, by its digest. Raises FileNotFoundError."""
    return store.read_json(f"{FOLDER}/{model}/receipt.json")


def checkpoint_of(model: str) -> str:
    """Where the training of the model with this digest keeps its state."""
    return f"{FOLDER}/{model}/checkpoint.safetensors"


def fit_model(job: FitJob) -> Json:
    """Train one model, publish it, and return its receipt. Runs in a worker.

    Raises StageError where another run trained one of its encoders anew meanwhile.
    """
    from threadpoolctl import threadpool_limits

    from mmcore.fusion.base import FitRun
    from mmcore.fusion.data import load_views
    from mmcore.fusion.scores import validation_scores

    recipe, store = job.recipe, job.store
    checkpoints = None
    if isinstance(job.settings, NeuralFusion):
        from mmcore.training.checkpoint import StoreCheckpoints
        from mmcore.training.device import made_on

        checkpoints = StoreCheckpoints(store, checkpoint_of(digest(recipe)))

    def on_epoch(epoch: int, epochs: int, _: Mapping[str, float]) -> None:
        tell({"epoch": epoch, "epochs": epochs})

    states = {entry.modality: _encoder_state(store, entry) for entry in job.encoders}
    # The order of sums, and with it the last bits, depends on the threads of the linear algebra.
    with threadpool_limits(recipe["threads"]):
        train, held = (load_views(store, job.dataset, job.encoders, split, stored=job.stored) for split in LEARNED_FROM)
        settings = job.settings.model_dump(exclude={"method"})
        model = job.settings.load()(**settings, random_state=recipe["seed"], task=recipe["task"])
        run = FitRun(
            checkpoints,
            on_epoch,
            recipe["threads"],
            recipe["device"],
            precision=recipe.get("precision", "float32"),
            processes=recipe.get("processes", 1),
        )
        model.fit(train.views, train.labels, validation=held, run=run)
        scores = validation_scores(model, held)
    if changed := [entry.modality for entry in job.encoders if _encoder_state(store, entry) != states[entry.modality]]:
        if checkpoints is not None:
            # It learned from vectors that are no longer there.
            checkpoints.clear()
        raise StageError(
            f"{_title(job)}: another run trained the encoder of {changed[0]} anew while this one learned from its "
            "vectors. Run the same command again."
        )
    # A receipt never names files that are being replaced.
    store.remove(f"{job.folder}/receipt.json")
    with store.scratch() as folder:
        model.save(folder)
        files = [store.publish_file(file, f"{job.folder}/{file.name}") for file in sorted(folder.iterdir())]
    receipt = {
        "recipe": recipe,
        "files": [file.as_json() for file in files],
        "encoders": states,
        "handles_missing": model.handles_missing,
        "samples": {"train": len(train), "val": len(held)},
        "val_scores": scores,
        "curves": model.curves_,
    }
    if checkpoints is not None:
        receipt["made_on"] = made_on(recipe["device"])
    store.publish_json(f"{job.folder}/receipt.json", receipt)
    if checkpoints is not None:
        checkpoints.clear()
    return receipt


def _title(job: FitJob) -> str:
    return f"model {job.name}"


def _finished(store: Store, recipe: Json, encoders: Sequence[EncoderEntry]) -> tuple[Json | None, str]:
    """The receipt of a model that is whole and rests on the encoders as they are; else None, and why if it is there."""
    try:
        receipt = read_receipt(store, digest(recipe))
    except FileNotFoundError:
        return None, ""
    except DamagedError:
        return None, "its receipt is damaged"
    if not all(store.intact(DataFile(**file)) for file in receipt["files"]):
        return None, "its files are missing or damaged"
    for entry in encoders:
        state = _encoder_state(store, entry)
        if state is not None and state != receipt["encoders"][entry.modality]:
            return None, f"the encoder of {entry.modality} was trained anew with other weights"
    return receipt, ""


def _encoder_state(store: Store, entry: EncoderEntry) -> str | None:
    """What tells one training of an encoder from another: the hash of its receipt; None where it has none."""
    try:
        return sha256(store.read_bytes(f"encoders/{entry.digest}/receipt.json"))
    except FileNotFoundError:
        return None


def _entry(plan: ModelPlan, recipe: Json, receipt: Json | None) -> ModelEntry:
    scores = receipt["val_scores"] if receipt else {}
    return ModelEntry(plan.name, plan.method, digest(recipe), scores, plan.baseline, plan.floor)


def _receipts(store: Store) -> list[Json]:
    found = []
    for name in store.folders(FOLDER):
        try:
            found.append(read_receipt(store, name))
        except (FileNotFoundError, DamagedError):
            continue
    return found
