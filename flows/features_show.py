"""Features on a terminal: encoders as a table, a sample's vector with what is near it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.markup import escape
from rich.table import Table

from flows.shards_show import printable, size_words
from mmcore.features import Features
from mmcore.features.foresee import FOLDER
from mmcore.features.opening import open_encoder
from mmcore.features.store import folder_of
from mmcore.features.summary import neighbours, summarise
from mmcore.records import Dataset, EncoderEntry, count_by
from mmcore.storage import Store
from tasks.terminal import line_console

HEAD = 8
"""Numbers shown of a vector."""


@dataclass(frozen=True)
class Described:
    """One encoder and what it made, from receipts and listings alone."""

    features: Features
    size_bytes: int
    files: int
    batch: int | None


def describe(store: Store, dataset: Dataset, entry: EncoderEntry) -> Described:
    features = open_encoder(store, dataset, entry)
    listing = store.listing(folder_of(entry.digest))
    wanted = {f"{shard.views[entry.modality]}.arrow" for shard in dataset.shards}
    there = [listing[name] for name in wanted if name in listing]
    path = f"{FOLDER}/{entry.digest}/receipt.json"
    batch = store.read_json(path).get("batch") if store.exists(path) else None
    return Described(features, sum(there), len(there), batch)


def show_encoders(found: Sequence[Described]) -> None:
    """A line per encoder."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    right = {"dim", "rows", "rejects", "size", "batch"}
    for name in ("modality", "encoder", "digest", "dim", "dtype", "tokens", "rows", "rejects", "size", "batch"):
        table.add_column(name, justify="right" if name in right else "left", no_wrap=True)
    for one in found:
        features, entry = one.features, one.features.entry
        table.add_row(
            escape(entry.modality),
            entry.name,
            entry.digest[:8],
            f"{features.dim:,}",
            features.dtype.name,
            "yes" if features.has_tokens else "no",
            f"{len(features):,}",
            f"{len(entry.rejects):,}",
            size_words(one.size_bytes),
            "" if one.batch is None else f"{one.batch:,}",
        )
    console = line_console()
    console.print(table)
    for one in found:
        if lacking := len(set(one.features.files)) - one.files:
            console.print(f"{escape(one.features.modality)}: {lacking:,} files are missing; run again to make them.")


def show_summary(features: Features) -> None:
    """What the vectors of one modality are like as a whole."""
    found, entry = summarise(features), features.entry
    console = line_console()
    console.print(f"[bold]{escape(entry.modality)}[/] {entry.name} {entry.digest[:8]}")
    # A reject of a shard of another split is none of these rows'.
    keys = set(features.keys)
    rejects = [reject for reject in entry.rejects if reject.key in keys]
    codes = "".join(f", {code} {count:,}" for code, count in count_by(reject.code for reject in rejects).items())
    missing = found.rows - found.present - len(rejects)
    console.print(
        f"{found.rows:,} rows: {found.present:,} with a vector, {missing:,} without the modality, "
        f"{len(rejects):,} set aside{codes}"
    )
    if found.present:
        dead = f"{found.dead:,} of {features.dim:,} dimensions are dead ({found.dead / features.dim:.0%})"
        console.print(f"mean norm {found.mean_norm:.4g}; {dead}")


def show_sample(features: Features, row: int) -> None:
    """The vector of one row, and the rows nearest to it."""
    console, vector = line_console(), features[row].astype(np.float32)
    keys, labels, splits = features.keys, features.labels, features.splits
    console.print(f"  {escape(printable(keys[row]))} · {splits[row]} · label {escape(str(labels[row]))}")
    if not len(vector) or math.isnan(vector[0]):
        reason = next((reject.message for reject in features.entry.rejects if reject.key == keys[row]), "missing")
        console.print(f"  no vector: {escape(printable(reason))}")
        return
    head = " ".join(f"{value:.4g}" for value in vector[:HEAD])
    more = f" … {len(vector) - HEAD:,} more" if len(vector) > HEAD else ""
    console.print(f"  [{head}{more}]  norm {np.linalg.norm(vector):.4g}", markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("  nearest", "cosine", "split", "label"):
        table.add_column(name, justify="right" if name == "cosine" else "left")
    for near in neighbours(features, row):
        table.add_row(
            f"  {escape(printable(keys[near.row]))}",
            f"{near.cosine:.4f}",
            str(splits[near.row]),
            escape(str(labels[near.row])),
        )
    console.print(table)
