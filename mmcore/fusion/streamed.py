"""Learning from features larger than memory: moments per group of shards, kept in the store, and a sample of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from mmcore.errors import DamagedError, FusionError, StageError
from mmcore.parallel import Died, Pool
from mmcore.progress import Progress, Silent
from mmcore.records import DataFile, Dataset, EncoderEntry, Json, digest
from mmcore.shards.cuts import cut
from mmcore.storage import Store, sha256

if TYPE_CHECKING:
    from mmcore.fusion.from_moments import MomentsFusion
    from mmcore.fusion.moments import Moments

FOLDER = "moments"
VERSION = 1
"""Of what stands in a group's file; raise it where the same rows give other bytes."""
SAMPLE_VERSION = 2
"""Of which rows a head learns from and what they weigh; raise it where either changes."""
HEAD_ROWS = 200_000
"""Rows of a split that a head sees at most where the features do not fit in memory."""
GROUP_ROWS = 65_536
"""Rows of one group on the mean, at least."""
ROWS_PER_COLUMN = 8
"""And so many per column, so that the moments of a group are several times smaller than its rows."""

Fusion = TypeVar("Fusion", bound="MomentsFusion")


@dataclass(frozen=True)
class GroupJob:
    """All that the moments of one group of shards need; the recipe alone determines their bytes."""

    store: Store
    dataset: Dataset
    """The shards of the group, and no others."""
    encoders: tuple[EncoderEntry, ...]
    recipe: Json

    @property
    def path(self) -> str:
        return f"{FOLDER}/{digest(self.recipe)}"


def fit_streamed(
    model: Fusion,
    store: Store,
    dataset: Dataset,
    encoders: Sequence[EncoderEntry],
    pool: Pool,
    *,
    rows: int = HEAD_ROWS,
    progress: Progress | None = None,
) -> Fusion:
    """Fit a method whose map follows from moments on a data set's features, however large; returns the model.

    The map is learned from all rows of train: their moments are made on `pool`, group by group, and kept in the store,
    so that a killed fit goes on where it was and a grown data set costs only the groups that changed. The head is
    learned from at most `rows` rows of train, and tuned and calibrated on as many of val, see `sample_rows`. One group
    and these rows are in memory at a time. Raises as `make_moments`, and FusionError as the model's `fit`.
    """
    from mmcore.fusion.sampled import sample_rows

    make_moments(store, dataset, encoders, pool, l2=model.scaling == "l2", progress=progress)
    moments = read_moments(store, dataset, encoders, l2=model.scaling == "l2")
    seed = model.random_state or 0
    train, weights = sample_rows(store, dataset, encoders, "train", rows=rows, seed=seed, every_class=True)
    held = sample_rows(store, dataset, encoders, "val", rows=rows, seed=seed)[0] if dataset.of("val") else None
    (progress or Silent()).log(f"map from the moments of {moments.rows:,} rows, head from {len(train):,} of them")
    return model.fit_from_moments(moments, train.views, train.labels, validation=held, sample_weight=weights)


def make_moments(
    store: Store,
    dataset: Dataset,
    encoders: Sequence[EncoderEntry],
    pool: Pool,
    *,
    split: str = "train",
    l2: bool = False,
    progress: Progress | None = None,
) -> None:
    """Make and publish the moments of each group of shards of a split that are not there yet.

    With `l2` they are of rows scaled to unit length. Raises StageError where a job dies or an encoder is trained anew
    meanwhile, and DamagedError where features are missing or damaged.
    """
    jobs = _jobs(store, dataset, encoders, split, l2)
    missing = [job for job in jobs if _receipt(job) is None]
    progress = progress or Silent()
    progress.start(len(jobs), reused=len(jobs) - len(missing), unit="groups of shards")
    for job, outcome in pool.map(make_group, missing, name=_title):
        if isinstance(outcome, Died):
            raise StageError(f"{_title(job)}: {outcome.reason}. Run the same again: it goes on from there.")
        progress.advance(1, samples=outcome["rows"])


def read_moments(
    store: Store, dataset: Dataset, encoders: Sequence[EncoderEntry], *, split: str = "train", l2: bool = False
) -> Moments:
    """The moments of a split, merged in shard order. Raises DamagedError where those of a group are not there."""
    from mmcore.fusion.moments import Moments

    return Moments.merged(_read(job) for job in _jobs(store, dataset, encoders, split, l2))


def make_group(job: GroupJob) -> Json:
    """Compute the moments of one group and publish them; returns the receipt. Runs in a worker, on one thread.

    Raises StageError where an encoder was trained anew meanwhile.
    """
    import safetensors.numpy
    from threadpoolctl import threadpool_limits

    from mmcore.fusion.moments import Moments
    from mmcore.fusion.sampled import in_batches
    from mmcore.fusion.scaling import Scaler

    split = job.dataset.shards[0].split
    found = None
    # The order of sums, and with it the last bits, depends on the threads of the linear algebra.
    with threadpool_limits(1):
        for rows in in_batches(job.store, job.dataset, job.encoders, split):
            part = Moments.of(Scaler("l2").transform(rows.views) if job.recipe["l2"] else rows.views)
            found = part if found is None else found.merge(part)
    assert found is not None
    for entry in job.encoders:
        if encoder_state(job.store, entry) != job.recipe["encoders"][entry.modality]["state"]:
            raise StageError(f"{_title(job)}: another run trained the encoder of {entry.modality} anew. Run it again.")
    file = job.store.publish_bytes(f"{job.path}.safetensors", safetensors.numpy.save(found.arrays()))
    receipt = {"recipe": job.recipe, "file": file.as_json(), "widths": list(found.widths.values()), "rows": found.rows}
    job.store.publish_json(f"{job.path}.json", receipt)
    return receipt


def encoder_state(store: Store, entry: EncoderEntry) -> str | None:
    """What tells one training of an encoder from another: the hash of its receipt; None where it has none."""
    try:
        return sha256(store.read_bytes(f"encoders/{entry.digest}/receipt.json"))
    except FileNotFoundError:
        return None


def _jobs(store: Store, dataset: Dataset, encoders: Sequence[EncoderEntry], split: str, l2: bool) -> list[GroupJob]:
    """One per group of shards, in shard order.

    Groups are cut where the names of their views say so, so that shards that are added or changed change few groups.
    """
    shards = dataset.of(split)
    if not shards:
        raise FusionError(f"the data set has no shards of {split}")
    states = {entry.modality: {"encoder": entry.digest, "state": encoder_state(store, entry)} for entry in encoders}
    mean = max(GROUP_ROWS, ROWS_PER_COLUMN * sum(entry.dim or 0 for entry in encoders))
    described = [
        {"views": {entry.modality: shard.views[entry.modality] for entry in encoders}, "removed": list(shard.removed)}
        for shard in shards
    ]
    jobs = []
    for start, stop in cut([digest(one) for one in described], mean, [max(1, shard.samples) for shard in shards]):
        recipe = {
            "kind": "moments",
            "version": VERSION,
            "l2": l2,
            "encoders": states,
            # The order of the columns.
            "order": [entry.modality for entry in encoders],
            "shards": described[start:stop],
        }
        group = shards[start:stop]
        removed = {key: dataset.removed[key] for shard in group for key in shard.removed}
        jobs.append(
            GroupJob(store, replace(dataset, shards=group, rejects=(), removed=removed), tuple(encoders), recipe)
        )
    return jobs


def _receipt(job: GroupJob) -> Json | None:
    """What is told of a finished group; None where it is not whole."""
    try:
        receipt = job.store.read_json(f"{job.path}.json")
        return receipt if job.store.intact(DataFile(**receipt["file"])) else None
    except (FileNotFoundError, DamagedError, KeyError, TypeError):
        return None


def _read(job: GroupJob) -> Moments:
    import safetensors.numpy

    from mmcore.fusion.moments import Moments

    receipt = _receipt(job)
    where = job.store.url(f"{job.path}.safetensors")
    if receipt is None:
        raise DamagedError(f"{where} is missing or cut off; run again to make it.")
    data = job.store.read_bytes(f"{job.path}.safetensors")
    if sha256(data) != receipt["file"]["sha256"]:
        raise DamagedError(f"{where} is not the file that its receipt names; remove it and run again.")
    widths = dict(zip(job.recipe["order"], receipt["widths"], strict=True))
    return Moments.restored(widths, safetensors.numpy.load(data))


def _title(job: GroupJob) -> str:
    return f"moments of {len(job.dataset.shards)} shards from {job.dataset.shards[0].recipe}"
