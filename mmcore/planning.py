"""What a run would compute, what it would reuse, why, and at what price: known before anything runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mmcore.config import RunConfig
from mmcore.errors import DamagedError, InputError, Problem
from mmcore.evaluation.evaluate import foresee_evaluations
from mmcore.features.check import check_encoders
from mmcore.features.extract import foresee_encoders
from mmcore.fusion.fit import foresee_models, foreseen_standing
from mmcore.fusion.planned import plan_models
from mmcore.quality.curate import foresee_removed
from mmcore.records import Json, Reject, ShardEntry, Step, count_by
from mmcore.shards.plan import ShardPlan, absent_files
from mmcore.shards.prepare import foresee_shards
from mmcore.storage import Store
from mmcore.training.device import device_of

STAGES = ("prepare", "extract", "train", "evaluate")

ASSUMED_DIM = 768
"""Width of vectors that only opening the encoder would tell."""
ASSUMED_SECONDS = {"prepare": 0.002, "extract": 0.02, "train": 8.0, "evaluate": 0.5}
"""Where no earlier run tells: per sample (prepare, extract) and per model (train, evaluate), on one slow core."""


@dataclass(frozen=True)
class Plan:
    """Every output of a run in order, with its price."""

    steps: tuple[Step, ...]
    shards: ShardPlan
    """What the prepare stage would make; handed on, so that a run reads its manifest once."""
    rows: int
    rejects: tuple[Reject, ...]
    """Rows that are already known to be set aside; files are only looked into by the run."""
    seconds: float
    """About how long the run takes."""
    measured: bool
    """Whether that comes from an earlier run here rather than from assumptions."""
    disk_bytes: int
    """About how much the run adds to the output."""
    free_bytes: int | None
    """What is free there; None on a bucket."""

    def as_json(self) -> dict[str, Json]:
        return {
            "rows": self.rows,
            "rejects": [reject.as_json() for reject in self.rejects],
            "seconds": round(self.seconds, 1),
            "measured": self.measured,
            "disk_bytes": self.disk_bytes,
            "steps": [step.as_json() for step in self.steps],
        }

    def summary(self) -> list[dict[str, Json]]:
        """One row per stage and reason: `stage`, `compute`, `reuse`, `why`."""
        rows: list[dict[str, Json]] = []
        for stage in STAGES:
            of_stage = [step for step in self.steps if step.stage == stage]
            for action in ("compute", "reuse"):
                for reason, count in count_by(step.reason for step in of_stage if step.action == action).items():
                    rows.append(
                        {
                            "stage": stage,
                            "compute": count if action == "compute" else 0,
                            "reuse": count if action == "reuse" else 0,
                            "why": reason,
                        }
                    )
        return rows

    def price(self) -> str:
        """In words: how long, how much disk, what is set aside."""
        compute = sum(step.action == "compute" for step in self.steps)
        aside = f"{len(self.rejects):,} of {self.rows:,} rows will be set aside. " if self.rejects else ""
        if not compute:
            return f"{aside}Nothing to compute: every output is there."
        basis = "as the last run here" if self.measured else "a guess: no run here has been timed yet"
        free = f", {_bytes(self.free_bytes)} are free" if self.free_bytes is not None else ""
        return (
            f"{aside}{compute:,} of {len(self.steps):,} outputs to compute: about {_duration(self.seconds)} "
            f"({basis}) and {_bytes(self.disk_bytes)} of disk{free}."
        )


def make_plan(config: RunConfig, store: Store) -> Plan:
    """What a run of `config` on `store` would do; reads the manifest, file times and receipts, and writes nothing.

    Raises SourceError and DataError with all problems of the manifest.
    """
    store.check_layout()
    check_encoders(config)
    shards, made, steps = foresee_shards(config, store)
    entries, removing = foresee_removed(config, made, store)
    every = (*steps, *removing, *(_learning(config, entries, shards, store) if config.learnable else ()))
    seconds, measured = _seconds(every, config, store)
    return Plan(
        steps=every,
        shards=shards,
        rows=shards.rows,
        rejects=shards.rejects,
        seconds=seconds,
        measured=measured,
        disk_bytes=_disk(every, config, len(shards.classes), store),
        free_bytes=_free(store),
    )


def _learning(config: RunConfig, entries: Sequence[ShardEntry], shards: ShardPlan, store: Store) -> Iterator[Step]:
    """What comes after the shards."""
    encoders = foresee_encoders(config, entries, shards.classes, shards.modalities, store)
    models = foresee_models(config, entries, encoders, store)
    evaluations = foresee_evaluations(config, entries, encoders, foreseen_standing(config, models), store)
    yield from (step for _, found in encoders for step in found)
    yield from (step for _, step in models)
    yield from (step for _, step in evaluations)


def check_inputs(config: RunConfig) -> str:
    """A sentence on what the manifest holds. Raises InputError with all problems found, there and elsewhere."""
    problems: list[Problem] = []
    warnings: list[str] = []
    found: list[ShardPlan] = []
    for look in (
        Store(config.output).check_layout,
        lambda: found.append(foresee_shards(config, Store(config.output))[0]),
        lambda: plan_models(config) if config.features else None,
        lambda: device_of(config.compute),
        lambda: warnings.extend(check_encoders(config)),
    ):
        try:
            look()
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    (plan,) = found
    splits = count_by(recipe.split for recipe in plan.recipes for _ in range(recipe.rows))
    counts = ", ".join(f"{split} {splits.get(split, 0):,}" for split in ("train", "val", "test"))
    aside = ""
    if plan.rejects:
        reasons = ", ".join(f"{code} {n:,}" for code, n in count_by(r.code for r in plan.rejects).items())
        aside = f" {len(plan.rejects):,} rows will be set aside: {reasons}."
    absent, files = absent_files(plan)
    if absent:
        more = f" and {len(absent) - 3:,} more" if len(absent) > 3 else ""
        aside += f" {len(absent):,} of {files:,} files cannot be found: {', '.join(absent[:3])}{more}."
    aside += "".join(f"\n{warning}" for warning in warnings)
    return f"{config.name}: {plan.rows:,} rows, {len(plan.classes):,} classes ({counts}); all settings fit.{aside}"


def stage_lines(plan: Plan) -> list[str]:
    """The plan in a line per stage and reason, for a log."""
    return [
        f"{row['stage']}: {row['compute']:,} to compute, {row['reuse']:,} reused ({row['why']})"
        for row in plan.summary()
    ] + [plan.price()]


def runs_of(store: Store, name: str) -> list[dict[str, Json]]:
    """The records of all runs of this name, the latest first."""
    found = []
    for run_id in store.folders("runs"):
        try:
            record = store.read_json(f"runs/{run_id}/run.json")
        except (FileNotFoundError, DamagedError):
            continue
        if record["name"] == name:
            found.append(record)
    return sorted(found, key=lambda record: str(record["started"]), reverse=True)


def _seconds(steps: Iterable[Step], config: RunConfig, store: Store) -> tuple[float, bool]:
    """About how long the steps to compute take, and whether an earlier run here says so."""
    rates, measured = dict(ASSUMED_SECONDS), False
    # The latest run that did some of a stage's work says how fast that is.
    for record in reversed(runs_of(store, config.name)):
        for stage, count in record["counts"].items():
            units = count["samples"] if stage in ("prepare", "extract") else count["computed"]
            if units and record["seconds"].get(stage):
                rates[stage], measured = record["seconds"][stage] / units, True
    total = 0.0
    for step in steps:
        # A rate per vector holds the training of the encoder before it.
        if step.action == "compute" and not _is_encoder(step):
            total += rates[step.stage] * (step.samples if step.stage in ("prepare", "extract") else 1)
    return total, measured


def _is_encoder(step: Step) -> bool:
    return step.stage == "extract" and step.name.endswith(" encoder")


def _disk(steps: Iterable[Step], config: RunConfig, classes: int, store: Store) -> int:
    """About how many bytes the steps to compute will add: stored members, vectors, models, predictions."""
    sizes = [size for name, size in store.listing("shards").items() if name.endswith(".tar")]
    member = sum(sizes) / len(sizes) / config.shards.samples if sizes else 20_000.0 * len(config.data.modalities)
    dims = {name: encoder.dim(classes) or ASSUMED_DIM for name, (_, encoder) in config.encoders.items()}
    total = 0.0
    for step in steps:
        if step.action == "reuse":
            continue
        if step.stage == "prepare":
            total += step.samples * member
        elif step.stage == "extract" and not _is_encoder(step):
            total += step.samples * 4 * max(dims.values()) + 10_000
        else:
            total += 200_000
    return round(total)


def _free(store: Store) -> int | None:
    if not store.local:
        return None
    folder = store.root
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return shutil.disk_usage(folder).free


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bytes(size: int) -> str:
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit in ("B", "kB") else f"{value:.1f} {unit}"
