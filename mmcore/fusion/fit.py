"""Training the configured methods and the baselines on a data set's features; what would be trained, and why.

Foreseeing imports neither torch nor scikit-learn: a run with nothing to do is fast.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from mmcore.config.fusion import NeuralFusion
from mmcore.config.metrics import LOWER_IS_BETTER
from mmcore.config.run import RunConfig
from mmcore.errors import DamagedError, DataError, FusionError, Problem, StageError
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
from mmcore.fusion.streamed import encoder_state, make_moments, read_moments
from mmcore.parallel import Died, Pool, serial_pool, tell
from mmcore.progress import Progress
from mmcore.records import DataFile, Dataset, EncoderEntry, Json, ModelEntry, ShardEntry, Step, digest
from mmcore.storage import Store

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
    start_by: float | None = None
    """It is left out if it has not begun by then, in seconds since the epoch."""
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
            found.append((None, Step("train", plan.title, "compute", unknown, None, samples)))
            continue
        recipe = model_recipe(plan, config, known, shards)
        receipt, reason = _finished(store, recipe, [known[name] for name in plan.modalities])
        if receipt is None and not reason:
            reason = why_new(recipe, history())
        step = Step(
            "train", plan.title, "reuse" if receipt else "compute", reason or "finished", digest(recipe), samples
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
    """Train what is not there yet, with the configured seed: every setting of every method, then the baselines.

    A method that these data do not suit (it raises FusionError) is an entry that says why, and ends nothing while
    another learns. Raises StageError naming the model where a fit fails otherwise, or its process dies.
    """
    (models,) = fit_seeds(config, dataset, encoders, store, pool, progress, seeds=[config.fusion.seed])
    refused = [f"{model.title}: {model.failed}" for model in models if model.failed]
    if refused and not any(model.val_scores for model in models if not model.baseline):
        raise StageError("no method can learn these data: " + "; ".join(refused))
    return models


def fit_seeds(  # noqa: PLR0917 - as the other stages
    config: RunConfig,
    dataset: Dataset,
    encoders: Sequence[EncoderEntry],
    store: Store,
    pool: Pool,
    progress: Progress,
    *,
    seeds: Sequence[int],
    start_by: float | None = None,
) -> list[list[ModelEntry]]:
    """For each seed what `fit_models` gives; all fits are one list of jobs, seed after seed.

    A fit that depends on no seed is done once and stands in every list. After `start_by` (seconds since the epoch) no
    fit begins: the entries of those left out have no `val_scores`. Raises as `fit_models`.
    """
    shards = learned_shards(dataset.shards)
    learned = replace(dataset, shards=dataset.of(*LEARNED_FROM), rejects=())
    planned: list[list[tuple[ModelPlan, Json]]] = []
    jobs: dict[str, FitJob] = {}
    receipts: dict[str, Json | None] = {}
    plans = plan_models(config)
    for seed in seeds:
        planned.append([])
        for plan in plans:
            known = read_by(plan, encoders)
            recipe = model_recipe(plan, config, known, shards, seed)
            name = digest(recipe)
            planned[-1].append((plan, recipe))
            if name in receipts:
                continue
            used = tuple(known[modality] for modality in plan.modalities)
            receipts[name] = _finished(store, recipe, used)[0]
            if receipts[name] is None:
                stored = isinstance(plan.settings, NeuralFusion) and exceeds_memory(plan, config, known, shards)
                title = _title(plan, recipe)
                jobs[name] = FitJob(store, title, plan.settings, recipe, learned, used, start_by, stored=stored)
            elif plan.settings.in_epochs:
                # A run killed after the receipt leaves the checkpoint behind.
                store.remove(checkpoint_of(name))
    progress.start(len(receipts), reused=len(receipts) - len(jobs), unit="fits")
    for job in jobs.values():
        if streamed := job.recipe.get("streamed"):
            progress.log(f"{job.name}: out of core, map from all rows, head from about {streamed['rows']:,} at most")
            make_moments(store, learned, job.encoders, pool, l2=job.settings.scaling == "l2")
    receipts |= _fit_all(config, list(jobs.values()), pool, progress)
    return [[_entry(plan, recipe, receipts[digest(recipe)]) for plan, recipe in one] for one in planned]


def _fit_all(config: RunConfig, jobs: Sequence[FitJob], pool: Pool, progress: Progress) -> dict[str, Json | None]:
    """Their receipts by digest; None for those that began too late."""
    receipts: dict[str, Json | None] = {}
    shares = {digest(job.recipe): 0.0 for job in jobs}

    def on_event(job: FitJob, event: Json) -> None:
        share = event["epoch"] / event["epochs"]
        progress.advance(share - shares[digest(job.recipe)], note=f"{job.name} epoch {event['epoch']}")
        shares[digest(job.recipe)] = share

    # Other processes would each take memory of the one GPU.
    on_gpu = [job for job in jobs if job.recipe["device"] != "cpu"]
    on_cpu = [job for job in jobs if job.recipe["device"] == "cpu"]
    for workers, some in ((pool, on_cpu), (serial_pool(config.compute), on_gpu)):
        for job, outcome in workers.map(fit_model, some, name=_job_title, on_event=on_event):
            if isinstance(outcome, Died):
                raise StageError(
                    f"{_job_title(job)}: {outcome.reason}. Run the same command again: it goes on from there."
                )
            name = digest(job.recipe)
            receipts[name] = outcome
            if outcome is not None and "failed" in outcome:
                progress.log(f"{job.name} is left out: {outcome['failed']}")
            if outcome is not None:
                progress.advance(1 - shares[name], note=job.name)
    return receipts


def standing(models: Sequence[ModelEntry], metric: str) -> list[ModelEntry]:
    """The models that a table of one seed shows: of each grid the setting that validation chose, the first of equals.

    A method is left out while one of its settings is not trained, for that one might be chosen; settings that these
    data do not suit are not candidates.
    """
    grids: dict[str, list[ModelEntry]] = {}
    for model in models:
        if not model.failed:
            grids.setdefault(model.name, []).append(model)
    return [best_of(some, metric) for some in grids.values() if all(model.val_scores for model in some)]


def foreseen_standing(
    config: RunConfig, found: Sequence[tuple[ModelEntry | None, Step]]
) -> list[tuple[ModelEntry | None, Step]]:
    """Of what `foresee_models` found the models that will be scored: of a grid the setting that validation chose.

    Where that is not known yet, the model stands under its own name with no entry. What these data do not suit is left
    out, as in `standing`.
    """
    grids: dict[str, list[tuple[ModelEntry | None, Step]]] = {}
    for plan, (entry, step) in zip(plan_models(config), found, strict=True):
        if entry is None or not entry.failed:
            grids.setdefault(plan.name, []).append((entry, step))
    scored: list[tuple[ModelEntry | None, Step]] = []
    for name, some in grids.items():
        trained = {entry.digest: (entry, step) for entry, step in some if entry is not None and entry.val_scores}
        if len(some) == 1:
            scored += some
        elif len(trained) < len(some):
            scored.append((None, replace(some[0][1], name=name, action="compute", digest=None)))
        else:
            best = best_of([entry for entry, _ in trained.values()], config.metric)
            scored.append(trained[best.digest])
    return scored


def choose_best(models: Sequence[ModelEntry], metric: str) -> ModelEntry:
    """The configured model with the best validation score by this metric; the first of equals.

    Baselines are not candidates. Raises ValueError where there is no other.
    """
    return best_of([model for model in models if not model.baseline], metric)


def best_of(models: Sequence[ModelEntry], metric: str) -> ModelEntry:
    """The one with the best validation score; the first of equals."""
    sign = 1 if metric in LOWER_IS_BETTER else -1
    return min(models, key=lambda model: sign * model.val_scores[metric])


def read_receipt(store: Store, model: str) -> Json:
    """The receipt of a trained model, by its digest. Raises FileNotFoundError."""
    return store.read_json(f"{FOLDER}/{model}/receipt.json")


def checkpoint_of(model: str) -> str:
    """Where the training of the model with this digest keeps its state."""
    return f"{FOLDER}/{model}/checkpoint.safetensors"


def fit_model(job: FitJob) -> Json | None:
    """Train one model, publish it, and return its receipt; None where it is too late to begin. Runs in a worker.

    Of a method that these data do not suit the receipt says why, as `failed`, and names no files.

    Raises DataError where no row of val has a label, and StageError where another run trained one of its encoders anew
    meanwhile.
    """
    if job.start_by is not None and time.time() > job.start_by:
        return None
    from threadpoolctl import threadpool_limits

    from mmcore.fusion import costs
    from mmcore.fusion.base import FitRun
    from mmcore.fusion.data import load_views
    from mmcore.fusion.sampled import labelled, sample_rows
    from mmcore.fusion.saving import ARRAYS
    from mmcore.fusion.scores import validation_scores

    recipe, store = job.recipe, job.store
    checkpoints = None
    if job.settings.in_epochs:
        from mmcore.training.checkpoint import StoreCheckpoints
        from mmcore.training.device import made_on, warm_up

        warm_up()
        checkpoints = StoreCheckpoints(store, checkpoint_of(digest(recipe)))

    def on_epoch(epoch: int, epochs: int, _: Mapping[str, float]) -> None:
        tell({"epoch": epoch, "epochs": epochs})

    states = {entry.modality: encoder_state(store, entry) for entry in job.encoders}
    # The order of sums, and with it the last bits, depends on the threads of the linear algebra.
    with threadpool_limits(recipe["threads"]):
        model = job.settings.load()(**job.settings.arguments(), random_state=recipe["seed"] or 0, task=recipe["task"])
        resumed = checkpoints is not None and store.exists(checkpoint_of(digest(recipe)))
        run = FitRun(
            checkpoints,
            on_epoch,
            recipe["threads"],
            recipe["device"],
            precision=recipe.get("precision", "float32"),
            processes=recipe.get("processes", 1),
        )
        meter = costs.Meter()
        if "streamed" in recipe:
            moments = read_moments(store, job.dataset, job.encoders, l2=model.scaling == "l2")
            sample = partial(sample_rows, rows=recipe["streamed"]["rows"], seed=model.random_state)
            train, weights = sample(store, job.dataset, job.encoders, "train", every_class=True)
            held, _ = sample(store, job.dataset, job.encoders, "val")
            learn = partial(model.fit_from_moments, moments, sample_weight=weights)
        else:
            train, held = (
                load_views(store, job.dataset, job.encoders, split, stored=job.stored) for split in LEARNED_FROM
            )
            learn = model.fit
        if not labelled(held.labels).any():
            raise DataError(Problem("val", "no row of it has a label.", "It scores every model: give its rows some."))
        refused = ""
        try:
            with meter.learning():
                learn(train.views, train.labels, validation=held, run=run)
        except FusionError as error:
            refused = str(error)
        measured = meter.stop() | {"resumed": resumed}
        scores = {} if refused else validation_scores(model, held)
    if changed := [entry.modality for entry in job.encoders if encoder_state(store, entry) != states[entry.modality]]:
        if checkpoints is not None:
            # It learned from vectors that are no longer there.
            checkpoints.clear()
        raise StageError(
            f"{_job_title(job)}: another run trained the encoder of {changed[0]} anew while this one learned from its "
            "vectors. Run the same command again."
        )
    # A receipt never names files that are being replaced.
    store.remove(f"{job.folder}/receipt.json")
    if refused:
        store.remove(job.folder)
        receipt = {"recipe": recipe, "failed": refused, "encoders": states, "files": []}
        store.publish_json(f"{job.folder}/receipt.json", receipt)
        return receipt
    with store.scratch() as folder:
        model.save(folder)
        parameters = costs.count_parameters(folder / ARRAYS)
        files = [store.publish_file(file, f"{job.folder}/{file.name}") for file in sorted(folder.iterdir())]
    store.publish_json(f"{job.folder}/{costs.FILE}", measured)
    receipt = {
        "recipe": recipe,
        "files": [file.as_json() for file in files],
        "encoders": states,
        "handles_missing": model.handles_missing,
        "samples": {"train": len(train), "val": len(held)},
        "val_scores": scores,
        "curves": model.curves_,
        "parameters": parameters,
        "size_bytes": sum(file.size_bytes for file in files),
    }
    if checkpoints is not None:
        receipt["made_on"] = made_on(recipe["device"])
    store.publish_json(f"{job.folder}/receipt.json", receipt)
    if checkpoints is not None:
        checkpoints.clear()
    return receipt


def _title(plan: ModelPlan, recipe: Json) -> str:
    """Tells it from the other fits of a comparison."""
    return plan.title if recipe["seed"] is None else f"{plan.title} (seed {recipe['seed']})"


def _job_title(job: FitJob) -> str:
    return f"model {job.name}"


def _finished(store: Store, recipe: Json, encoders: Sequence[EncoderEntry]) -> tuple[Json | None, str]:
    """The receipt of a model that is whole and rests on the encoders as they are; else None, and why if it is there.

    A method that these data do not suit is finished too: the reason is why it is left out.
    """
    try:
        receipt = read_receipt(store, digest(recipe))
    except FileNotFoundError:
        return None, ""
    except DamagedError:
        return None, "its receipt is damaged"
    if not all(store.intact(DataFile(**file)) for file in receipt["files"]):
        return None, "its files are missing or damaged"
    for entry in encoders:
        state = encoder_state(store, entry)
        if state is not None and state != receipt["encoders"][entry.modality]:
            return None, f"the encoder of {entry.modality} was trained anew with other weights"
    return receipt, f"left out: {receipt['failed']}" if "failed" in receipt else ""


def _entry(plan: ModelPlan, recipe: Json, receipt: Json | None) -> ModelEntry:
    found = receipt or {}
    return ModelEntry(
        plan.name,
        plan.method,
        digest(recipe),
        found.get("val_scores", {}),
        plan.baseline,
        plan.floor,
        plan.setting,
        found.get("failed", ""),
    )


def _receipts(store: Store) -> list[Json]:
    found = []
    for name in store.folders(FOLDER):
        try:
            found.append(read_receipt(store, name))
        except (FileNotFoundError, DamagedError):
            continue
    return found
