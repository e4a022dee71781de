"""How large the rows of a plan are, by what is known of their files before any is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from mmcore.records import Json
from mmcore.shards.recipe import refs_of
from mmcore.sources.references import Reference, is_list


def row_bytes(media: Mapping[str, Mapping[str, Json]], partitions: Sequence[int]) -> list[int]:
    """Source bytes per row over all modalities' columns, whose fingerprints are those of `stat`.

    Texts in the manifest have their own length, members of tars theirs; cells of a table share its file's bytes
    equally. What is missing, and what lies at an address (whose size only fetching tells), counts as 0.
    """
    totals = [0] * len(partitions)
    cells: Counter[tuple[int, str]] = Counter()
    of_tables: list[tuple[int, tuple[int, str], int]] = []
    for column in media.values():
        if "texts" in column:
            for row, text in enumerate(refs_of(column)):
                totals[row] += 0 if text is None else len(text.encode())
            continue
        for row, (ref, found) in enumerate(zip(refs_of(column), column["fingerprints"], strict=True)):
            for one, fingerprint in _ones(ref, found):
                if isinstance(one, list) and one[0] == "tar":
                    totals[row] += one[3]
                elif isinstance(one, list) and one[0] == "table":
                    table = (partitions[row], one[1])
                    cells[table] += 1
                    of_tables.append((row, table, _size(fingerprint)))
                else:
                    totals[row] += _size(fingerprint)
    for row, table, size in of_tables:
        totals[row] += size // cells[table]
    return totals


def _ones(ref: Reference | None, found: Json) -> Iterator[tuple[Reference, str | None]]:
    """Each reference of a cell with its fingerprint."""
    if ref is None:
        return
    if is_list(ref):
        yield from zip(ref[1:], found, strict=True)
    else:
        yield ref, found


def _size(fingerprint: str | None) -> int:
    size = (fingerprint or "").partition(":")[0]
    return int(size) if size.isdigit() else 0
