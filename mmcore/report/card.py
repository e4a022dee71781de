"""The data card: what a data set holds and what is odd about it, read in a minute; a page, a section, and JSON."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmcore import __version__
from mmcore.errors import DamagedError
from mmcore.modalities.base import REASONS
from mmcore.quality.drift import drift_between_splits, drift_since
from mmcore.quality.profile import profile
from mmcore.records import Dataset, Json, count_by
from mmcore.report.media import shown_samples
from mmcore.report.rendering import environment
from mmcore.shards.read import read_index
from mmcore.storage import Store

BINS = 24
SHOWN_EXAMPLES = 6
SHOWN_CLUSTERS = 4
SHOWN_IN_CLUSTER = 4
SHOWN_REJECTS = 3
SHOWN_DRIFT = 12


def card_paths(dataset: str) -> tuple[str, str]:
    """Where the page and the JSON of a data set's card lie in the store, by its digest."""
    return f"quality/{dataset}.card.html", f"quality/{dataset}.card.json"


def has_card(store: Store, dataset: str) -> bool:
    """Whether the card of the data set with this digest is there."""
    return all(store.exists(path) for path in card_paths(dataset))


def build_card(store: Store, dataset: Dataset, before: Dataset | None = None) -> tuple[str, Json]:
    """The card as HTML and as JSON; `before` is an earlier data set to compare with.

    Reads the indexes once, and a few samples to show. Raises DamagedError where an index is gone.
    """
    card = _card(store, dataset, before)
    page = environment().get_template("card.html.j2")
    context = {"card": card, "media": _media(store, dataset, card), "version": __version__}
    return page.render(context), card


def publish_card(store: Store, dataset: Dataset, before: Dataset | None = None) -> str:
    """Publish the card; the page's path."""
    html, card = build_card(store, dataset, before)
    page, data = card_paths(card["dataset"])
    store.publish_bytes(page, html.encode("utf-8", "replace"))
    store.publish_json(data, card)
    return page


def card_section(store: Store, dataset: Dataset, name: str) -> Json:
    """The published card of the data set called `name`, with media to show; None where there is no card."""
    try:
        card = store.read_json(card_paths(name)[1])
    except (FileNotFoundError, DamagedError):
        return None
    return {"card": card, "media": _media(store, dataset, card)}


def _card(store: Store, dataset: Dataset, before: Dataset | None) -> dict[str, Json]:
    modalities = list(dataset.modalities)
    profiled = profile(dataset.shards, modalities, store)
    since = _since(store, before, modalities, profiled) if before else []
    duplicates = dataset.facts.get("duplicates") or {"modalities": {}}
    return {
        "dataset": dataset.digest,
        "rows": dataset.rows,
        **{name: dataset.facts.get(name, 0) for name in ("kept_whole", "kept_partly", "rejected", "filtered")},
        "splits": {
            split: {
                "samples": one["samples"],
                "labels": one["labels"],
                "present": {name: part["present"] for name, part in one["modalities"].items()},
            }
            for split, one in profiled.items()
        },
        "facts": [fact for name in modalities for fact in _facts(name, profiled)],
        "applied": {name: counts for name in modalities if (counts := _applied(name, profiled))},
        "rejects": _rejects(dataset),
        "duplicates": duplicates["modalities"],
        "removed": count_by(dataset.removed.values()),
        "drift": drift_between_splits(profiled)[:SHOWN_DRIFT],
        "drift_since_last": since[:SHOWN_DRIFT],
        "examples": _examples(store, dataset),
    }


def _since(store: Store, before: Dataset, modalities: Sequence[str], profiled: Json) -> list[Json]:
    try:
        return drift_since(
            profile(before.shards, [name for name in modalities if name in before.modalities], store), profiled
        )
    except DamagedError:
        return []  # what the last run read is no longer stored


def _facts(modality: str, profiled: Json) -> list[Json]:
    """Per number among the facts, over all splits: least, median, largest, and a histogram of `BINS` bins."""
    names = {fact for one in profiled.values() for fact in one["modalities"][modality]["numbers"]}
    found = []
    for fact in sorted(names):
        parts = [n for one in profiled.values() if (n := one["modalities"][modality]["numbers"].get(fact))]
        values = np.concatenate([part["values"] for part in parts])
        # Each kept value stands for equally many of its split.
        weights = np.concatenate([np.full(len(part["values"]), part["count"] / len(part["values"])) for part in parts])
        low, high = float(values.min()), float(values.max())
        if low == high:
            heights = [1.0]
        else:
            counts, _ = np.histogram(values, BINS, (low, high), weights=weights)
            heights = (counts / counts.max()).round(4).tolist()
        median = float(np.median(values))
        found.append(
            {"modality": modality, "fact": fact, "low": low, "median": median, "high": high, "histogram": heights}
        )
    return found


def _applied(modality: str, profiled: Json) -> dict[str, int]:
    """How many samples each normalisation changed."""
    counts: dict[str, int] = {}
    for one in profiled.values():
        for word, count in one["modalities"][modality]["words"].get("applied", {}).items():
            counts[word] = counts.get(word, 0) + count
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _rejects(dataset: Dataset) -> list[Json]:
    found = []
    for code, count in count_by(reject.code for reject in dataset.rejects).items():
        some = [reject for reject in dataset.rejects if reject.code == code][:SHOWN_REJECTS]
        examples = [{"key": one.key, "source": one.source, "message": one.message} for one in some]
        found.append({"code": code, "count": count, "meaning": REASONS.get(code, ""), "examples": examples})
    return found


def _examples(store: Store, dataset: Dataset) -> list[Json]:
    """A sample of each label, the most frequent first, out of the first shard of train."""
    if not dataset.shards:
        return []
    number = next((number for number, shard in enumerate(dataset.shards) if shard.split == "train"), 0)
    index = read_index(store, dataset.shards[number]).select(["key", "label"]).to_pylist()
    first: dict[str, Json] = {}
    for row in index:
        first.setdefault(str(row["label"]), {"key": row["key"], "label": str(row["label"]), "shard": number})
    return list(first.values())[:SHOWN_EXAMPLES]


def _media(store: Store, dataset: Dataset, card: Json) -> Json:
    wanted = [(one["shard"], one["key"]) for one in card["examples"]]
    for duplicates in card["duplicates"].values():
        for example in duplicates["examples"][:SHOWN_CLUSTERS]:
            wanted += [(one["shard"], one["key"]) for one in example["samples"][:SHOWN_IN_CLUSTER]]
    return shown_samples(store, dataset, dict.fromkeys(wanted))
