"""The table beside each tar: labels, where each member lies, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from pyarrow import parquet

from mmcore.records import Json, canonical_texts, count_by, digest

PLACES = {"offset": pa.int64(), "size_bytes": pa.int64(), "sha256": pa.string(), "xxh3": pa.uint64()}
"""Columns per modality, as `image.offset`, of each member: its first byte in the tar, size, and two hashes of its
bytes. Lists of these where a sample may have several members of the modality."""
CELLS = {"facts": pa.string(), "signature": pa.binary(), "source": pa.string(), "source_sha256": pa.string()}
"""Columns per modality of each sample: facts as JSON, what finds near-duplicates, the reference as the manifest has
it ('' for texts in the manifest), and the hash of the bytes that were read."""
PARTS = {"present": pa.bool_(), **PLACES, **CELLS}
"""All columns per modality."""
LABELS = {"classes": pa.string(), "multilabel": pa.list_(pa.string()), "regression": pa.float64()}
"""Type of the label column by task."""


class Place(NamedTuple):
    """Where one member lies in the tar."""

    offset: int
    size_bytes: int
    sha256: str
    xxh3: int


class Cell(NamedTuple):
    """One modality of one sample in an index."""

    places: Sequence[Place]
    facts: Mapping[str, Json]
    signature: bytes | None
    source: str
    source_sha256: str


class IndexBuilder:
    """Collects an index row by row. `modalities` says of each whether a sample may have several members of it."""

    def __init__(self, modalities: Mapping[str, bool], *, task: str = "classes", extras: Sequence[str] = ()) -> None:
        self.modalities = dict(modalities)
        self.task = task
        self.keys: list[str] = []
        self.labels: list[Json] = []
        self._extras: dict[str, list[Json]] = {name: [] for name in extras}
        self._cells: dict[str, list[Cell | None]] = {name: [] for name in modalities}

    def add(self, key: str, label: Json, cells: Mapping[str, Cell | None], extras: Sequence[Json] = ()) -> None:
        """Add a sample: one cell per modality (None where it is missing), one value per further column."""
        self.keys.append(key)
        self.labels.append(label)
        for name, column in self._cells.items():
            column.append(cells[name])
        for values, value in zip(self._extras.values(), extras, strict=True):
            values.append(value)

    def present(self) -> dict[str, int]:
        """Samples that have each modality."""
        return {name: sum(cell is not None for cell in cells) for name, cells in self._cells.items()}

    def whole(self) -> int:
        """Samples that have every modality."""
        return sum(all(cell is not None for cell in row) for row in zip(*self._cells.values(), strict=True))

    def classes(self) -> dict[str, int]:
        """Samples of each class; none where labels are numbers or absent."""
        if self.task == "multilabel":
            return count_by(name for label in self.labels for name in label or ())
        return count_by(label for label in self.labels if label is not None) if self.task == "classes" else {}

    def views(self) -> dict[str, str]:
        """What names each modality's content: see `ShardEntry.views`."""
        return {
            name: digest({"keys": self.keys, "checksums": self._column(name, "sha256")}) for name in self.modalities
        }

    def labels_digest(self) -> str:
        return digest([[key, label] for key, label in zip(self.keys, self.labels, strict=True)])

    def write(self, path: Path) -> None:
        columns = {"key": pa.array(self.keys, pa.string()), "label": pa.array(self.labels, LABELS[self.task])}
        for extra, values in self._extras.items():
            columns[extra] = pa.array(values, pa.float64() if extra == "weight" else pa.string())
        for name, several in self.modalities.items():
            columns[f"{name}.present"] = pa.array([cell is not None for cell in self._cells[name]], pa.bool_())
            for part, kind in PLACES.items():
                columns[f"{name}.{part}"] = pa.array(self._column(name, part), pa.list_(kind) if several else kind)
            columns |= {f"{name}.{part}": pa.array(self._column(name, part), kind) for part, kind in CELLS.items()}
        # Nearly every value is another one, and whole columns are read: neither dictionaries nor statistics pay.
        parquet.write_table(pa.table(columns), path, compression="zstd", use_dictionary=False, write_statistics=False)

    def _column(self, name: str, part: str) -> list[Json]:
        """One column of a modality; a place's as lists where there may be several."""
        cells = self._cells[name]
        if part == "facts":
            texts = iter(canonical_texts([cell.facts for cell in cells if cell is not None]))
            return [None if cell is None else next(texts) for cell in cells]
        if part in CELLS:
            at = Cell._fields.index(part)
            return [None if cell is None else cell[at] for cell in cells]
        at = Place._fields.index(part)
        if self.modalities[name]:
            return [None if cell is None else [place[at] for place in cell.places] for cell in cells]
        return [None if cell is None else cell.places[0][at] for cell in cells]
