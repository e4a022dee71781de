"""Small shards made of members that a test knows, with their indexes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash
from pyarrow import parquet

from mmcore.shards.tar import TarWriter

Members = dict[str, bytes | tuple[bytes, ...] | None]


def content(number: int) -> Members:
    """Members of sample `number`: a picture each, a text where the number is no multiple of 3, some clips."""
    clips = tuple(f"clip {number} {part} ".encode() * 3 for part in range(number % 4))
    return {
        "image": f"picture {number} ".encode() * (number % 50 + 1),
        "text": f"text {number}".encode() if number % 3 else None,
        "video": clips if number % 4 != 2 else None,
    }


def key_of(number: int) -> str:
    return f"key.{number:05d}"


def write_shards(folder: Path, samples: int, per_shard: int, checksum: str = "xxh3") -> list[tuple[str, str]]:
    """Pairs of tar and index, of samples 0 to `samples`."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = range(samples)
    return [
        _write(folder / f"{start // per_shard:06d}", numbers[start : start + per_shard], checksum)
        for start in range(0, samples, per_shard)
    ]


def expected(numbers: Sequence[int]) -> list[dict[str, Any]]:
    return [{"__key__": key_of(n), "label": f"c{n % 5}", **content(n)} for n in numbers]


def _write(stem: Path, numbers: Sequence[int], checksum: str) -> tuple[str, str]:
    tar_path, index_path = stem.with_suffix(".tar"), stem.with_suffix(".parquet")
    columns: dict[str, list[Any]] = {"key": [], "label": [], "group": []}
    with tar_path.open("wb") as file:
        tar = TarWriter(file)
        for number in numbers:
            for name, value in (("key", key_of(number)), ("label", f"c{number % 5}"), ("group", f"g{number % 7}")):
                columns[name].append(value)
            for name, member in content(number).items():
                _add(tar, columns, number, name, member, checksum)
        tar.finish()
    types = {"xxh3": pa.uint64(), "offset": pa.int64(), "size_bytes": pa.int64(), "sha256": pa.string()}
    arrays = {}
    for column, values in columns.items():
        kind = types.get(column.rpartition(".")[2])
        arrays[column] = pa.array(values, pa.list_(kind) if kind and column.startswith("video") else kind)
    parquet.write_table(pa.table(arrays), index_path)
    return str(tar_path), str(index_path)


def _add(  # noqa: PLR0917
    tar: TarWriter, columns: dict[str, list[Any]], number: int, name: str, member: Any, checksum: str
) -> None:
    parts = member if isinstance(member, tuple) else () if member is None else (member,)
    escaped = key_of(number).replace(".", "%2E")
    rows = []
    for place, part in enumerate(parts):
        suffix = f"{place:03d}.mp4" if name == "video" else "bin"
        hashed = xxhash.xxh3_64_intdigest(part) if checksum == "xxh3" else hashlib.sha256(part).hexdigest()[:32]
        rows.append((tar.add(f"{escaped}.{name}.{suffix}", part), len(part), hashed))
    columns.setdefault(f"{name}.present", []).append(member is not None)
    for place, part_name in enumerate(("offset", "size_bytes", checksum)):
        cells: Any = [row[place] for row in rows]
        if name != "video":
            cells = cells[0] if cells else None
        columns.setdefault(f"{name}.{part_name}", []).append(cells if member is not None else None)
