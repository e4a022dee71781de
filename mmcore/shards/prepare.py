"""Making the shards that are missing, and the data set of all."""

from __future__ import annotations

import time
import uuid
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace

from mmcore import parallel
from mmcore.config.run import RunConfig
from mmcore.errors import DataError, Problem, StageError
from mmcore.parallel import Died, Pool
from mmcore.progress import Progress
from mmcore.records import SPLITS, Dataset, Json, count_by
from mmcore.shards.budget import RejectBudget, examples, rejects_of
from mmcore.shards.exclusions import PASSING, Exclusion, source_of, with_exclusions
from mmcore.shards.filters import FILTERED
from mmcore.shards.foresee import Receipt, Shelf, entries_of, foresee_shards
from mmcore.shards.plan import ShardPlan, plan_shards
from mmcore.shards.recipe import ShardJob
from mmcore.shards.write import Setback, make_shard
from mmcore.sources.manifest import labels_problems
from mmcore.storage import Store

__all__ = ["foresee_shards", "make_shards", "prepare", "publish_dataset"]


def prepare(config: RunConfig, store: Store, pool: Pool, progress: Progress, plan: ShardPlan | None = None) -> Dataset:
    """What `make_shards` does, and `publish_dataset`: the data set."""
    return publish_dataset(make_shards(config, store, pool, progress, plan), store)


def publish_dataset(dataset: Dataset, store: Store) -> Dataset:
    """Publish `datasets/<digest>.json` unless it is there; the same data set."""
    path = f"datasets/{dataset.digest}.json"
    if not store.exists(path):
        store.publish_json(path, dataset.as_json())
    return dataset


def make_shards(
    config: RunConfig, store: Store, pool: Pool, progress: Progress, plan: ShardPlan | None = None
) -> Dataset:
    """Make the shards that are missing; the data set of all, not published yet. `plan` is one made a moment ago.

    Raises SourceError and DataError for input that cannot be used, TooManyRejectsError once more rows have a
    reject than `data.max_rejected` allows, and SourceChangedError where a file was edited meanwhile.
    """
    plan = plan or plan_shards(config, store)
    receipts = Shelf(plan, store).receipts
    budget = RejectBudget(plan.rows, config.data.max_rejected)
    progress.start(len(receipts), reused=sum(receipt is not None for receipt in receipts))
    budget.add(plan.rejects, len(plan.rejects))
    progress.advance(0, rejected=len(plan.rejects))
    for receipt in receipts:
        if receipt is not None:
            budget.add_receipt(receipt)
    run = uuid.uuid4().hex
    jobs = {
        position: ShardJob(recipe, store, roots, config.compute.sample_timeout_s, run=run)
        for position, (recipe, roots) in enumerate(zip(plan.recipes, plan.roots, strict=True))
        if receipts[position] is None
    }
    # Closed at once where the budget is exceeded, so that no worker goes on.
    with closing(_made(jobs, pool, progress)) as made:
        for position, receipt in made:
            receipts[position] = receipt
            rejected = budget.add_receipt(receipt)
            progress.advance(1, samples=receipt["rows"], rejected=rejected)
    return _dataset(plan, [receipt for receipt in receipts if receipt is not None])


def _made(jobs: dict[int, ShardJob], pool: Pool, progress: Progress) -> Generator[tuple[int, Receipt]]:
    """Position and receipt of each shard as it is done; what circumstances set back is excluded and tried again."""
    positions = {job.recipe.digest: position for position, job in jobs.items()}

    def name(job: ShardJob) -> str:
        return f"shard {positions[job.recipe.digest] + 1} ({job.recipe.split})"

    waiting: Sequence[ShardJob] = list(jobs.values())
    while waiting:
        again = []
        for job, outcome in pool.map(make_shard, waiting, name=name):
            if isinstance(outcome, Died):
                progress.log(f"{name(job)}: {outcome.reason}. Trying it once more by itself.")
            result = _alone(job, name(job)) if isinstance(outcome, Died) else outcome
            if isinstance(result, Setback):
                again.append(_without(job, result.exclusions, name(job), progress))
                positions[again[-1].recipe.digest] = positions[job.recipe.digest]
            else:
                _tell_unreadable(result, name(job), progress)
                yield positions[job.recipe.digest], result
        waiting = again


def _tell_unreadable(receipt: Receipt, name: str, progress: Progress) -> None:
    """Say what could not be read this time: the next run tries it again."""
    found = [reject for reject in rejects_of(receipt) if reject.code in PASSING]
    if found:
        first = found[0]
        more = f" (and {len(found) - 1:,} more)" if len(found) > 1 else ""
        what = f"{first.modality} of {first.key!r}{more} is set aside for this run: {first.message}."
        progress.log(f"{name}: {what}")


def _alone(job: ShardJob, name: str) -> dict[str, Json] | Setback:
    """A shard whose worker died, made in a child process that tells each sample before it decodes it."""
    isolated = replace(job, isolated=True)
    timeout_s = 60 + 2 * job.recipe.rows * job.sample_timeout_s
    result = parallel.run_isolated(make_shard, isolated, timeout_s=timeout_s, name=name)
    if not isinstance(result, Died):
        return result
    told = result.last_told or {}
    if not told.get("decoding"):
        raise StageError(f"{name}: its process died, and not while decoding a sample: {result.reason}.")
    key, modality = told["decoding"]
    took_s = time.monotonic() - told["since"]
    body = job.recipe.body
    source = source_of(body["media"][modality], body["keys"].index(key))
    if took_s >= job.sample_timeout_s:
        code, message = "time-limit", f"no end after compute.sample_timeout_s ({job.sample_timeout_s:g} s)"
    else:
        # Without what the process printed: that may differ from time to time, and this becomes part of a recipe.
        code, message = "codec-died", f"the process died while decoding it ({result.reason.partition(':')[0]})"
    return Setback((Exclusion(key, modality, source, code, message),))


def _without(job: ShardJob, exclusions: Sequence[Exclusion], name: str, progress: Progress) -> ShardJob:
    """The job with these cells excluded, which is remembered for later runs where it would not pass by itself."""
    for exclusion in exclusions:
        if exclusion.lasting:
            exclusion.publish(job.store)
            what = f"{exclusion.modality} of {exclusion.key!r} is set aside"
            progress.log(f"{name}: {what}: {exclusion.message}.")
    recipe = with_exclusions(job.recipe, exclusions)
    if recipe.digest == job.recipe.digest:
        raise StageError(f"{name}: what was set aside for it still keeps it from being made: {exclusions[0]}.")
    return replace(job, recipe=recipe)


def _dataset(plan: ShardPlan, receipts: Sequence[Receipt]) -> Dataset:
    rejects = list(plan.rejects)
    labels: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
    samples = dict.fromkeys(SPLITS, 0)
    present: dict[str, dict[str, int]] = {split: dict.fromkeys(plan.modalities, 0) for split in SPLITS}
    for receipt in receipts:
        rejects += rejects_of(receipt)
        samples[receipt["split"]] += receipt["samples"]
        for counts, more in ((labels, receipt["classes"]), (present, receipt["present"])):
            of_split = counts[receipt["split"]]
            for name, count in more.items():
                of_split[name] = of_split.get(name, 0) + count
    aside = count_by(reject.code for reject in rejects)
    if plan.learnable and (problems := labels_problems(samples, labels, plan.task, plan.where, aside)):
        raise DataError(problems)
    if not any(samples.values()):
        listed = ", ".join(f"{code} {count:,}" for code, count in aside.items())
        filters = dict.fromkeys(reject.message for reject in rejects if reject.code == FILTERED)
        said = "; ".join([*filters, *examples(rejects)])
        fix = "Correct the files, the rows or data.filters." if filters else "Correct the files or the rows."
        raise DataError(Problem(plan.where, f"no sample is left (set aside: {listed}): {said}.", fix))
    kept, whole, filtered = (sum(receipt[name] for receipt in receipts) for name in ("samples", "whole", "filtered"))
    facts = {
        "kept_whole": whole,
        "kept_partly": kept - whole,
        "rejected": plan.rows - kept - filtered,
        "filtered": filtered,
        "filters": count_by(reject.message for reject in rejects if reject.code == FILTERED),
        "rejects": aside,
        "splits": {
            split: {
                "samples": samples[split],
                "classes": dict(sorted(labels[split].items())),
                "present": present[split],
            }
            for split in SPLITS
        },
    }
    return Dataset(
        shards=tuple(entry for receipt in receipts for entry in entries_of(receipt)),
        rejects=tuple(rejects),
        rows=plan.rows,
        classes=tuple(sorted(labels["train"])),
        modalities=dict(plan.modalities),
        facts=facts,
        task=plan.task,
    )
