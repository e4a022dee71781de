"""Where samples come from, and how shards are cut."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from mmcore.config.base import Part
from mmcore.config.expressions import NAMES, Expression
from mmcore.config.media import ModalitySettings
from mmcore.config.plugged import NAMED
from mmcore.config.quality import DuplicatesConfig


def _fraction(value: Any) -> Any:
    """'5%' as .05; anything else as it is."""
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip()[:-1]) / 100
    return value


Percentage = Annotated[str, Field(pattern=r"^\s*\d+(\.\d+)?\s*%\s*$")]
_Share = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[_Share, BeforeValidator(_fraction, json_schema_input_type=_Share | Percentage)]


class Columns(Part):
    """Which manifest column is what."""

    key: str | None = "id"
    """Names the sample; unique. `null` names samples by their file and row, where rows are never inserted."""
    label: str | None = "label"
    """What to predict; `null` where there is nothing, which is enough to prepare."""
    split: str = "split"
    """`train`, `val` or `test`. Without such a column, a manifest's name or folder may say it (`train.csv`)."""
    group: str | None = None
    """Who or what a row is of (a speaker, a patient): no group may be in two splits."""
    domain: str | None = None
    """Where a row comes from, for domain adaptation."""
    weight: str | None = None
    """How much a row counts: a number of at least 0."""
    keep: list[str] = Field(default_factory=list)
    """Further columns that are kept, as texts, to slice results by."""


class SplitConfig(Part):
    """Splits by a hash, so that a row stays where it is when others come or go."""

    ratios: dict[Literal["train", "val", "test"], float] = Field({"train": 0.8, "val": 0.1, "test": 0.1})
    """Shares of the splits; they are scaled to add up to one."""
    by: str | None = None
    """Column whose equal values stay together, as a speaker's; each row by its own key when not given."""
    seed: int = Field(0, ge=0)
    """Another seed, another division."""

    @model_validator(mode="after")
    def _shares(self) -> SplitConfig:
        if min(self.ratios.values(), default=-1) < 0 or sum(self.ratios.values()) <= 0:
            raise ValueError("ratios must be positive numbers, as {train: .8, val: .1, test: .1}")
        return self


class QuarantineConfig(Part):
    """How much of what is unfit is kept, to look at."""

    file_bytes: int = Field(1_000_000, ge=0)
    """Larger files are named, not kept. 0 keeps none."""
    shard_bytes: int = Field(64_000_000, ge=0)
    """All that is kept of one shard's files."""


class DataConfig(Part):
    """The manifest and what it names."""

    manifest: str | list[str]
    """CSV, TSV, JSONL, Parquet, Arrow, WebDataset tars, a folder of class folders, or a saved Hugging Face data set: a
    path, a list of paths, or a glob; or a Hugging Face data set by name, as `hf://USER/NAME[:CONFIG][@REVISION]`.

    Relative paths start from the YAML's folder, or from the folder that a deployment was made in.
    """
    root: str | None = None
    """Folder that the paths in the manifest start from; the manifest's own folder when not given."""
    columns: Columns = Columns()
    split: SplitConfig | None = Field(None, title="Split")
    """Divide the rows by a hash of their keys or groups instead of reading the split column."""
    modalities: dict[str, ModalitySettings] = Field(min_length=1)
    """Name of each modality and how it is decoded, normalised and stored."""
    pairing: Literal["instance", "class"] = "instance"
    """Whether a row's modalities are one thing, or only of one class."""
    task: Literal["classes", "multilabel", "regression"] = "classes"
    """What labels are: one class, several of them, or a number."""
    bad_modality: Literal["keep", "drop"] = "keep"
    """Keep a sample without its bad modality, or drop the sample."""
    filters: list[str] = Field(default_factory=list)
    """Which samples are wanted: expressions over facts (`image.width >= 64`, `text.language in ["en", "de"]`,
    `audio is not None`), or functions of yours as `module:function`, which get the facts and return true for a sample
    that is wanted, or say why it is not. A sample is not judged by a modality that it lacks."""
    duplicates: DuplicatesConfig = DuplicatesConfig()
    """What counts as the same sample twice, and what happens to it."""
    allow_remote: bool = False
    """Fetch media that the manifest names by http(s) addresses. What an address gives is not asked again once it was
    read."""
    fingerprint: Literal["stat", "sha256"] = "stat"
    """Notice edited files by size and time, or by reading all their bytes."""
    limit: int | None = Field(None, ge=1)
    """Only the first N rows, to try things out."""
    quarantine: QuarantineConfig = Field(QuarantineConfig(), title="Quarantine")
    """Bad files are kept beside the shards: `mmcore quarantine` shows them."""
    max_rejected: Fraction = 0.05
    """The run stops when a larger share of the rows has a reject. A fraction, or '5%'."""

    @model_validator(mode="after")
    def _filters_are_expressions(self) -> DataConfig:
        for text in self.filters:
            if not NAMED.fullmatch(text):
                try:
                    Expression(text, list(self.modalities))
                except ValueError as error:
                    raise ValueError(f"filters: {text!r}: {error}") from error
        return self

    @model_validator(mode="after")
    def _names_fit_in_a_tar(self) -> DataConfig:
        for name in self.modalities:
            if not name.isidentifier() or name != name.lower():
                raise ValueError(f"modality name {name!r}: use lower-case letters, digits and underscores")
            if name in NAMES:
                raise ValueError(f"modality name {name!r}: this is what a column of each sample is called")
        return self


class ShardsConfig(Part):
    """How samples are cut into shards."""

    order: Literal["manifest", "hashed"] = "manifest"
    """`manifest`: as the rows come, so that an added or edited row touches only the shards around it. `hashed`:
    shuffled by a hash of the keys, for readers that cannot shuffle; added rows then touch many shards."""
    samples: int = Field(256, ge=1, le=1_000_000)
    """Mean rows per shard; each has at least half and at most four times as many."""
    bytes: int | None = Field(None, ge=1)
    """Mean bytes of the source files in a shard: it ends where `samples` rows or so many bytes are reached, whichever
    comes first, each within half and four times its mean. A tar that still grows beyond four times as many is
    continued in another. What lies at http(s) addresses has no size before it is fetched, and counts as rows only."""
