"""What a report shows of a run, read from the store by the digests in its record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmcore.errors import DamagedError
from mmcore.records import Dataset, Json, Reject
from mmcore.storage import Store


@dataclass
class Findings:
    """All that is known of one run; what was never made, or is gone, is None or absent."""

    run: Mapping[str, Any]
    dataset: Dataset | None = None
    encoders: list[dict[str, Any]] = field(default_factory=list)
    """The run's encoder entries, each with its `receipt` (or None)."""
    models: list[dict[str, Any]] = field(default_factory=list)
    """The run's model entries, each with its `receipt` (or None)."""
    scores: dict[str, Json] = field(default_factory=dict)
    """Model name to what its `scores.json` holds."""
    evaluations: dict[str, str] = field(default_factory=dict)
    """Model name to its evaluation's digest."""
    gone: list[str] = field(default_factory=list)
    """Files that the run names and the store no longer has."""

    @property
    def rejects(self) -> list[Reject]:
        """What was set aside: of the data set, then by the encoders."""
        found = list(self.dataset.rejects) if self.dataset else []
        return found + [Reject(**reject) for entry in self.encoders for reject in entry.get("rejects") or ()]

    @property
    def board(self) -> Mapping[str, Any]:
        """The leaderboard; empty where there is none, or one that an earlier version made."""
        board = self.run.get("leaderboard") or {}
        return board if "task" in board else {}

    @property
    def modalities(self) -> list[str]:
        """Every modality that the run names, in the order of its encoders."""
        read = [name for row in self.board.get("rows") or [] for name in row["modalities"]]
        kept = self.dataset.modalities if self.dataset else ()
        return list(dict.fromkeys([*(entry["modality"] for entry in self.encoders), *read, *kept]))

    @property
    def chosen(self) -> str | None:
        """The chosen model's name, where it has scores."""
        name = self.board.get("chosen")
        return name if name in self.scores else None


def gather(store: Store, run: Mapping[str, Any]) -> Findings:
    """Read what the run's record names. Files that are gone are noted, for an old run's page is still worth having."""
    found = Findings(run)

    def read(path: str) -> Json | None:
        try:
            return store.read_json(path)
        except (FileNotFoundError, DamagedError):
            found.gone.append(path)
            return None

    if run.get("dataset"):
        dataset = read(f"datasets/{run['dataset']}.json")
        found.dataset = Dataset.from_json(dataset) if dataset else None
    for entry in run.get("encoders") or []:
        receipt = read(f"encoders/{entry['digest']}/receipt.json")
        found.encoders.append({**entry, "receipt": receipt})
    for entry in run.get("models") or []:
        found.models.append({**entry, "receipt": read(f"models/{entry['digest']}/receipt.json")})
    for entry in run.get("evaluations") or []:
        found.evaluations[entry["model"]] = entry["digest"]
        scores = read(f"evaluations/{entry['digest']}/scores.json")
        if scores and "task" in scores:
            found.scores[entry["model"]] = scores
        elif scores:
            found.gone.append(f"the scores of {entry['model']}, made by an earlier version: run again")
    return found


def loss_curves(receipt: Mapping[str, Any] | None) -> Iterator[tuple[str, list[float], list[float]]]:
    """Every pair of training and validation losses in a receipt's curves: where it stood, and the two lists."""
    yield from _pairs("", (receipt or {}).get("curves"))


def _pairs(where: str, value: Any) -> Iterator[tuple[str, list[float], list[float]]]:
    if not isinstance(value, Mapping):
        return
    train, val = value.get("train_loss"), value.get("val_loss")
    if isinstance(train, list) and isinstance(val, list) and (train or val):
        yield where, train, val
        return
    for name, inner in value.items():
        yield from _pairs(str(name), inner)
