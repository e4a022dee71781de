"""The table beside each tar: labels, and where each member lies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from mmcore.records import Json, canonical_json, digest

PARTS = {
    "present": pa.bool_(),
    "offset": pa.int64(),
    "size_bytes": pa.int64(),
    "sha256": pa.string(),
    "facts": pa.string(),
}
"""Columns per modality, as `image.offset`: its member's first byte in the tar, size, hash, and facts as JSON."""


class IndexBuilder:
    """Collects an index row by row."""

    def __init__(self, modalities: Iterable[str]) -> None:
        self.modalities = tuple(modalities)
        self.keys: list[str] = []
        self.labels: list[str] = []
        self._cells: dict[str, dict[str, list[Json]]] = {name: {part: [] for part in PARTS} for name in self.modalities}

    def add_row(self, key: str, label: str) -> None:
        self.keys.append(key)
        self.labels.append(label)

    def add_member(self, modality: str, offset: int, size_bytes: int, sha256: str, facts: Mapping[str, Json]) -> None:
        values = (True, offset, size_bytes, sha256, canonical_json(dict(facts)).decode())
        for part, value in zip(PARTS, values, strict=True):
            self._cells[modality][part].append(value)

    def add_absent(self, modality: str) -> None:
        for part in PARTS:
            self._cells[modality][part].append(False if part == "present" else None)

    def present(self) -> dict[str, int]:
        """Samples that have each modality."""
        return {name: sum(cells["present"]) for name, cells in self._cells.items()}

    def whole(self) -> int:
        """Samples that have every modality."""
        columns = [cells["present"] for cells in self._cells.values()]
        return sum(map(all, zip(*columns, strict=True)))

    def views(self) -> dict[str, str]:
        """What names each modality's content: see `ShardEntry.views`."""
        return {name: digest({"keys": self.keys, "checksums": cells["sha256"]}) for name, cells in self._cells.items()}

    def labels_digest(self) -> str:
        return digest([[key, label] for key, label in zip(self.keys, self.labels, strict=True)])

    def write(self, path: Path) -> None:
        columns = {"key": pa.array(self.keys, pa.string()), "label": pa.array(self.labels, pa.string())}
        for name, cells in self._cells.items():
            columns |= {f"{name}.{part}": pa.array(cells[part], kind) for part, kind in PARTS.items()}
        parquet.write_table(pa.table(columns), path, compression="zstd")
