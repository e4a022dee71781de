"""The user's manifest: which samples there are, and where their media lie."""

from __future__ import annotations

import functools
import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mmcore.config.data import DataConfig
from mmcore.errors import DataError, Problem, SourceError
from mmcore.records import SPLITS, Reject, count_by
from mmcore.sources.keys import longest_key, why_unfit
from mmcore.sources.paths import file_system, is_remote
from mmcore.sources.tables import Malformed, Sheet, read_sheet


@dataclass(frozen=True)
class Manifest:
    """The usable rows of all partitions in order, and why the others are not."""

    table: pa.Table
    """String columns `key`, `label`, `split`, one `media.<modality>` each (null = missing), and int32 `partition`."""
    roots: tuple[str, ...]
    """Per partition, the folder or URL that its references start from."""
    rejects: tuple[Reject, ...]
    """One per row that cannot be used."""
    rows: int
    """Rows read, usable or not."""
    extras: tuple[str, ...] = ()
    """Further columns of the table that go into the shards' indexes: `group`, `domain`, `weight`, `meta.<column>`."""


def read_manifest(data: DataConfig) -> Manifest:
    """The manifest that `data` names, its faulty rows set aside.

    Raises SourceError for faults of files and columns and DataError for data nothing can be learned from, with all
    problems found.
    """
    files = _files([data.manifest] if isinstance(data.manifest, str) else data.manifest)
    sheets = _sheets(files, _wanted(data))
    parts, rejects, rows = [], [], 0
    for partition, (file, sheet) in enumerate(zip(files, sheets, strict=True)):
        left = None if data.limit is None else data.limit - rows
        part, malformed = _first(sheet, left)
        rows += part.num_rows + len(malformed)
        name = file.rsplit("/", 1)[-1]
        rejects += [Reject(bad.key, "", "malformed-row", bad.message, f"{name}, row {bad.number}") for bad in malformed]
        parts.append(part.append_column("partition", pa.array([partition] * part.num_rows, pa.int32())))
    if not rows:
        raise SourceError([Problem(file, "there are column names, but no rows.", "Add rows.") for file in files])
    renamed = _renamed(pa.concat_tables(parts), data)
    table, faults = _without_faults(renamed, data, files)
    rejects += faults
    _check_learnable(table, data, rejects, files, renamed["split"])
    return Manifest(table.drop_columns(["row"]), tuple(_root(data, file) for file in files), tuple(rejects), rows)


def labels_problems(labels: Mapping[str, Mapping[str, int]], where: str, aside: Mapping[str, int]) -> list[Problem]:
    """What keeps samples from being learned from, given the samples per split and label and those set aside."""
    counts = {split: sum(labels.get(split, {}).values()) for split in SPLITS}
    found = ", ".join(f"{split} {counts[split]:,}" for split in SPLITS)
    if aside:
        found += "; set aside: " + ", ".join(f"{code} {count:,}" for code, count in aside.items())
    problems = [
        Problem(where, f"no usable row has split {split!r} ({found}).", "train, val and test all need rows.")
        for split in SPLITS
        if not counts[split]
    ]
    train = sorted(labels.get("train", {}))
    if len(train) == 1:
        what = f"all {counts['train']:,} rows of train have one label, {train[0]!r}."
        problems.append(Problem(where, what, "There is nothing to learn: two classes or more are needed."))
    for split in ("val", "test") if train else ():
        if unseen := sorted(set(labels.get(split, {})) - set(train)):
            names = ", ".join(map(repr, unseen[:5])) + (f" and {len(unseen) - 5} more" if len(unseen) > 5 else "")
            what = f"{split} has {'labels' if len(unseen) > 1 else 'a label'} that no row of train has: {names}."
            problems.append(Problem(where, what, "Correct the label, or give train rows of it."))
    return problems


def _wanted(data: DataConfig) -> dict[str, str]:
    """Column to the setting that names it; the key's column first."""
    columns = data.columns
    wanted = {
        columns.key: "data.columns.key",
        columns.label: "data.columns.label",
        columns.split: "data.columns.split",
    }
    for name, modality in data.modalities.items():
        wanted.setdefault(modality.column, f"data.modalities.{name}.column")
    return wanted


def _files(patterns: Sequence[str]) -> list[str]:
    """The files that paths and globs name, in name order."""
    found: dict[str, None] = {}
    problems = []
    for pattern in patterns:
        is_glob = any(mark in pattern for mark in "*?[")
        try:
            names = list(_glob(pattern)) if is_glob and not os.path.exists(pattern) else [pattern]
        except SourceError as error:
            problems += error.problems
            continue
        except Exception as error:  # libraries for buckets have errors of their own
            problems.append(Problem(pattern, f"cannot be listed ({error}).", "Check the address and your access."))
            continue
        if not names:
            problems.append(Problem(pattern, "no file matches.", "Check data.manifest."))
        found.update(dict.fromkeys(names))
    if not found and not problems:
        problems.append(Problem("data.manifest", "the list is empty.", "Name at least one manifest."))
    if problems:
        raise SourceError(problems)
    return sorted(found)


def _glob(pattern: str) -> Iterator[str]:
    if not is_remote(pattern):
        yield from glob.iglob(pattern.removeprefix("file://"), recursive=True)
    else:
        system, path = file_system(pattern)
        yield from (str(system.unstrip_protocol(name)) for name in system.glob(path))


def _sheets(files: Sequence[str], wanted: dict[str, str]) -> list[Sheet]:
    sheets, problems = [], []
    for file in files:
        try:
            sheets.append(read_sheet(_bytes_of(file), file, wanted))
        except SourceError as error:
            problems += error.problems
    if problems:
        raise SourceError(problems)
    return sheets


def _bytes_of(file: str) -> bytes:
    def fault(what: str, fix: str) -> SourceError:
        return SourceError(Problem(file, what, fix))

    try:
        if is_remote(file):
            system, path = file_system(file)
            data: bytes = system.cat_file(path)
            return data
        with open(file.removeprefix("file://"), "rb") as opened:
            return opened.read()
    except FileNotFoundError:
        raise fault("there is no such file.", "Check data.manifest.") from None
    except IsADirectoryError:
        raise fault("this is a folder.", "Name the manifest in it, or a glob such as *.csv.") from None
    except SourceError:
        raise
    except Exception as error:  # libraries for buckets have errors of their own
        raise fault(f"cannot be read ({error}).", "Check the address and your access.") from error


def _root(data: DataConfig, file: str) -> str:
    root = (data.root if data.root is not None else file.rpartition("/")[0] or ".").removeprefix("file://")
    return root if is_remote(root) else os.path.abspath(root)


def _first(sheet: Sheet, rows: int | None) -> tuple[pa.Table, list[Malformed]]:
    """At most the first `rows` rows, each with its number."""
    table = sheet.table.append_column("row", sheet.numbers)
    if rows is None or sheet.rows <= rows:
        return table, sheet.malformed
    return table.filter(pc.less_equal(table["row"], rows)), [bad for bad in sheet.malformed if bad.number <= rows]


def _renamed(table: pa.Table, data: DataConfig) -> pa.Table:
    """Columns by what they are; empty references become null."""
    columns = {name: table[getattr(data.columns, name)] for name in ("key", "label", "split")}
    for name, modality in data.modalities.items():
        cells = table[modality.column]
        columns[f"media.{name}"] = pc.if_else(pc.equal(cells, ""), pa.scalar(None, pa.string()), cells)
    return pa.table({**columns, "partition": table["partition"], "row": table["row"]})


def _without_faults(table: pa.Table, data: DataConfig, files: Sequence[str]) -> tuple[pa.Table, list[Reject]]:
    """The usable rows and one reject for each of the others."""
    keys = table["key"]
    longest = longest_key(tuple(data.modalities))
    odd = pc.or_(pc.match_substring_regex(keys, "[^A-Za-z0-9_-]"), pc.greater(pc.binary_length(keys), longest))
    unfit = {index: why_unfit(keys[index].as_py(), longest) for index in pc.indices_nonzero(odd).to_pylist()}
    unfit_mask = [False] * table.num_rows
    for index, why in unfit.items():
        unfit_mask[index] = why is not None
    counted = keys.value_counts()
    counts = {item["values"]: item["counts"] for item in counted.filter(pc.greater(counted.field(1), 1)).to_pylist()}
    absent = [pc.is_null(table[f"media.{name}"]) for name in data.modalities]
    faults = {  # the first that holds is the reason
        "missing-key": pc.equal(keys, ""),
        "bad-key": pa.chunked_array([pa.array(unfit_mask, pa.bool_())]),
        "duplicate-key": pc.is_in(keys, value_set=pa.array(list(counts), pa.string())),
        "missing-label": pc.equal(table["label"], ""),
        "unknown-split": pc.invert(pc.is_in(table["split"], value_set=pa.array(SPLITS))),
        "no-modality": functools.reduce(pc.and_, absent),
    }
    bad = functools.reduce(pc.or_, faults.values())
    rejects = []
    for index in pc.indices_nonzero(bad).to_pylist():
        code = next(code for code, mask in faults.items() if mask[index].as_py())
        row = table.slice(index, 1).to_pylist()[0]
        message = {
            "missing-key": f"column {data.columns.key!r} is empty",
            "bad-key": f"the key {unfit.get(index)}",
            "duplicate-key": f"{counts.get(row['key'])} rows have this key",
            "missing-label": f"column {data.columns.label!r} is empty",
            "unknown-split": f"the split {row['split']!r} is none of {', '.join(SPLITS)}",
            "no-modality": f"empty: {', '.join(data.modalities)}",
        }[code]
        source = f"{files[row['partition']].rsplit('/', 1)[-1]}, row {row['row']}"
        rejects.append(Reject(row["key"], "", code, message, source))
    return table.filter(pc.invert(bad)), rejects


def _check_learnable(
    table: pa.Table, data: DataConfig, rejects: Sequence[Reject], files: Sequence[str], splits: pa.ChunkedArray
) -> None:
    """Raise DataError for rows that nothing can be learned from; `splits` are those of all rows, usable or not."""
    labels: dict[str, dict[str, int]] = {}
    for item in table.group_by(["split", "label"]).aggregate([([], "count_all")]).to_pylist():
        labels.setdefault(item["split"], {})[item["label"]] = item["count_all"]
    where = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    if data.limit is not None:
        where += f" (data.limit: {data.limit})"
    if problems := labels_problems(labels, where, count_by(reject.code for reject in rejects)):
        if any(split not in labels for split in SPLITS):
            problems += _why_set_aside(rejects, splits.unique().to_pylist(), where, longest_key(tuple(data.modalities)))
        raise DataError(problems)


def _why_set_aside(rejects: Sequence[Reject], splits: Sequence[str], where: str, longest: int) -> list[Problem]:
    """One problem per fault that tends to be in all rows alike, with an example and the rule."""
    first = {reject.code: reject for reject in reversed(rejects)}
    problems = []
    if bad := first.get("malformed-row"):
        problems.append(
            Problem(where, f"the first malformed row is {bad.source}: {bad.message}.", "Correct such rows.")
        )
    if bad := first.get("bad-key"):
        rule = f"Keys hold no slash or control character, start with no dot and take at most {longest} bytes."
        problems.append(Problem(where, f"{bad.key!r} ({bad.source}) is no usable key: {bad.message}.", rule))
    if "unknown-split" in first:
        odd = sorted(set(splits) - set(SPLITS))
        names = ", ".join(map(repr, odd[:5])) + (f" and {len(odd) - 5} more" if len(odd) > 5 else "")
        problems.append(Problem(where, f"the splits {names} are unknown.", f"Use {', '.join(SPLITS)}, spelt so."))
    return problems
