"""One run's whole configuration."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from mmcore.config.base import Part
from mmcore.config.data import DataConfig, ShardsConfig
from mmcore.config.encoders import CLASSICAL, AnyEncoder, EncoderSettings
from mmcore.config.fusion import FusionConfig
from mmcore.config.metrics import CHOSEN_BY, METRICS, MetricName
from mmcore.errors import ConfigError, Problem
from mmcore.records import floor_of


class DaskConfig(Part):
    """The Dask cluster: local processes by default, a running scheduler, or any cluster class."""

    workers: int | Literal["auto"] = "auto"
    """Local worker processes; `auto` is one per core, 0 does all work in the run's own process."""
    address: str | None = None
    """A running scheduler, as `tcp://host:8786`."""
    cluster_class: str | None = None
    """`module.Class` of a cluster to start, as `dask_jobqueue.SLURMCluster`."""
    cluster_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Arguments of `cluster_class`."""
    memory_limit: str = "auto"
    """Memory of one local worker, as `4GiB`."""

    @model_validator(mode="after")
    def _one_way(self) -> DaskConfig:
        if self.address and self.cluster_class:
            raise ValueError("give address or cluster_class, not both")
        return self


class ComputeConfig(Part):
    """Where and with how much the work is done."""

    dask: DaskConfig = DaskConfig()
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where networks are trained and run; `auto` takes a GPU where there is one."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the forward passes of pretrained encoders: `auto` is bfloat16 on a GPU that has it, else float32."""
    threads: int = Field(1, ge=1)
    """Threads of one training or extraction job on the CPU; part of a model's digest."""
    training_precision: Literal["float32", "bfloat16"] = "float32"
    """Of the forward passes of neural fusion models while they learn; their weights are float32. Part of a model's
    digest where it is bfloat16."""
    processes: int = Field(1, ge=1)
    """Processes that train one neural fusion model together, each a part of every batch; on GPUs one for each. Pays
    where a batch takes seconds and cores are free. Part of a model's digest where there are several, as the last bits
    differ."""
    retries: int = Field(2, ge=0)
    """How often a job that raised an error is tried again."""
    sample_timeout_s: float = Field(60.0, gt=0)
    """Decoding one sample may take this long."""


class RunConfig(Part):
    """Raw files to a report: one run."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    """Shown everywhere; starts the run's id."""
    data: DataConfig
    shards: ShardsConfig = ShardsConfig()
    features: dict[str, AnyEncoder] = Field(default_factory=dict)
    """One encoder per modality; none where data are only prepared."""
    floor: bool = True
    """Also score a linear classifier on each modality's classical encoder (`floor-image`: hog; audio: mel-stats; text:
    tfidf), which learns nothing from labels: what the encoders above are held against."""
    fusion: FusionConfig = FusionConfig()
    compute: ComputeConfig = ComputeConfig()
    output: str = "output"
    """Root of everything written: a folder (relative paths as those of `data.manifest`) or any fsspec URL. Runs may
    share one."""

    @model_validator(mode="after")
    def _encoders_fit_modalities(self) -> RunConfig:
        for name, encoder in self.features.items():
            modality = self.data.modalities.get(name)
            if modality is None:
                raise ValueError(
                    f"features.{name}: no such modality in data.modalities; there are: "
                    + ", ".join(self.data.modalities)
                )
            if ("image" if modality.kind == "video" else modality.kind) not in encoder.kinds:
                raise ValueError(
                    f"features.{name}: encoder {encoder.encoder!r} reads {' or '.join(sorted(encoder.kinds))}, "
                    f"and {name} is {modality.kind}"
                )
            if what := encoder.misfit(modality):
                raise ValueError(f"features.{name}: encoder {encoder.encoder!r} {what}")
        if self.features and (missing := [name for name in self.data.modalities if name not in self.features]):
            raise ValueError(f"features: no encoder for {', '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _metric_fits_the_task(self) -> RunConfig:
        known = METRICS[self.data.task]
        if self.fusion.metric not in {"auto", *known}:
            raise ValueError(
                f"fusion.metric: {self.fusion.metric!r} does not score {self.data.task}; there are: {', '.join(known)}"
            )
        return self

    @property
    def metric(self) -> MetricName:
        """What the best method is chosen by: `fusion.metric`, or what `auto` stands for."""
        return CHOSEN_BY[self.data.task] if self.fusion.metric == "auto" else self.fusion.metric

    @property
    def learnable(self) -> bool:
        """Whether models can be trained: there are encoders, and labels."""
        return bool(self.features) and self.data.columns.label is not None

    @property
    def encoders(self) -> dict[str, tuple[str, EncoderSettings]]:
        """The modality and the encoder of each view: the configured ones by their modality, then the floors."""
        found: dict[str, tuple[str, EncoderSettings]] = {name: (name, one) for name, one in self.features.items()}
        if self.floor and self.learnable:
            for name, configured in self.features.items():
                classical = CLASSICAL[self.data.modalities[name].kind]
                if configured.encoder != classical.encoder:
                    found[floor_of(name)] = name, classical
        return found

    def for_preparing(self) -> RunConfig:
        """The same run up to its shards."""
        return self.model_copy(update={"features": {}})


def _unlabelled(kind: str) -> str:
    """What to read a modality by that looks at no labels."""
    return f"Take one that looks at no labels: {CLASSICAL[kind].encoder}, a pretrained one, or one of yours."


def demand_learnable(config: RunConfig) -> None:
    """Raise ConfigError, with all reasons, where nothing can be trained: such data can only be prepared."""
    problems = []
    fix = "`mmcore prepare` makes the shards of such data."
    if not config.features:
        problems.append(Problem("features", "there is no encoder.", f"Give each modality one, or: {fix}"))
    task = config.data.task
    for name, encoder in config.features.items():
        if encoder.reads_labels and task != "classes":
            what = f"the {encoder.encoder} encoder learns from classes, and data.task is {task}."
            problems.append(Problem(f"features.{name}.encoder", what, _unlabelled(config.data.modalities[name].kind)))
    for number, method in enumerate(config.fusion.methods):
        if task not in method.tasks:
            what = f"{method.method} does not learn {task}, which is data.task."
            problems.append(Problem(f"fusion.methods.{number}", what, "Take it off the list."))
    if config.data.columns.label is None:
        problems.append(Problem("data.columns.label", "there are no labels to learn.", fix))
    if problems:
        raise ConfigError(problems)
