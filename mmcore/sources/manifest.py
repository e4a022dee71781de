"""The user's manifest: which samples there are, and where their media lie."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mmcore.config.data import DataConfig
from mmcore.errors import DataError, Problem, SourceError
from mmcore.records import SPLITS, Reject, count_by
from mmcore.sources.keys import longest_key, why_unfit
from mmcore.sources.paths import is_remote
from mmcore.sources.sheets import NO_KEY, is_folder, read_sheets
from mmcore.sources.tables import Malformed, Sheet
from mmcore.sources.targets import bad_numbers, divided, torn_groups


@dataclass(frozen=True)
class Manifest:
    """The usable rows of all partitions in order, and why the others are not."""

    table: pa.Table
    """String columns `key`, `label` (a JSON list for several labels, null where there is none), `split`, one
    `media.<modality>` each (null = missing; see `references.unpack`), those in `extras`, and int32 `partition`."""
    roots: tuple[str, ...]
    """Per partition, the folder or URL that its references start from."""
    rejects: tuple[Reject, ...]
    """One per row that cannot be used."""
    rows: int
    """Rows read, usable or not."""
    extras: tuple[str, ...] = ()
    """Further columns of the table that go into the shards' indexes: `group`, `domain`, `weight`, `meta.<column>`."""


def read_manifest(data: DataConfig, *, learnable: bool = True) -> Manifest:
    """The manifest that `data` names, its faulty rows set aside.

    Raises SourceError for faults of files and columns, and DataError for a group in several splits and, if
    `learnable`, for data nothing can be learned from, with all problems found.
    """
    sheets = read_sheets(data)
    files = list(sheets)
    parts, rejects, rows = [], [], 0
    for partition, (file, sheet) in enumerate(sheets.items()):
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
    _check_groups(table, data)
    if learnable:
        _check_learnable(table, data, rejects, files, renamed["split"])
    elif not table.num_rows:
        raise DataError(_nothing_left(rejects, files, renamed["split"], longest_key(tuple(data.modalities))))
    roots = tuple(_root(data, file) for file in files)
    return Manifest(table.drop_columns(["row"]), roots, tuple(rejects), rows, _extras(data))


def labels_problems(
    samples: Mapping[str, int], labels: Mapping[str, Iterable[str]], task: str, where: str, aside: Mapping[str, int]
) -> list[Problem]:
    """What keeps samples from being learned from, given how many each split has, its labels, and those set aside.

    Of numbers `labels` are not looked at.
    """
    counts = {split: samples.get(split, 0) for split in SPLITS}
    found = ", ".join(f"{split} {counts[split]:,}" for split in SPLITS)
    if aside:
        found += "; set aside: " + ", ".join(f"{code} {count:,}" for code, count in aside.items())
    problems = [
        Problem(where, f"no usable row has split {split!r} ({found}).", "train, val and test all need rows.")
        for split in SPLITS
        if not counts[split]
    ]
    if task == "regression":
        return problems
    train = sorted(labels.get("train", ()))
    if task == "multilabel" and counts["train"] and not train:
        problems.append(Problem(where, "no row of train has a label.", "There is nothing to learn: give rows some."))
    if task == "classes" and len(train) == 1:
        what = f"all {counts['train']:,} rows of train have one label, {train[0]!r}."
        problems.append(Problem(where, what, "There is nothing to learn: two classes or more are needed."))
    for split in ("val", "test") if train else ():
        if unseen := sorted(set(labels.get(split, ())) - set(train)):
            names = ", ".join(map(repr, unseen[:5])) + (f" and {len(unseen) - 5} more" if len(unseen) > 5 else "")
            what = f"{split} has {'labels' if len(unseen) > 1 else 'a label'} that no row of train has: {names}."
            problems.append(Problem(where, what, "Correct the label, or give train rows of it."))
    return problems


def _root(data: DataConfig, file: str) -> str:
    here = file if is_folder(file) else file.rpartition("/")[0] or "."
    root = (data.root if data.root is not None else here).removeprefix("file://")
    return root if is_remote(root) else os.path.abspath(root)


def _first(sheet: Sheet, rows: int | None) -> tuple[pa.Table, list[Malformed]]:
    """At most the first `rows` rows, each with its number."""
    table = sheet.table.append_column("row", sheet.numbers)
    if rows is None or sheet.rows <= rows:
        return table, sheet.malformed
    return table.filter(pc.less_equal(table["row"], rows)), [bad for bad in sheet.malformed if bad.number <= rows]


def _renamed(table: pa.Table, data: DataConfig) -> pa.Table:
    """Columns by what they are; empty references become null."""
    nothing = pa.scalar(None, pa.string())
    keys = table[NO_KEY if data.columns.key is None else data.columns.key]
    label = data.columns.label
    columns = {"key": keys, "label": pa.nulls(len(keys), pa.string()) if label is None else table[label]}
    if data.split is None:
        columns["split"] = table[data.columns.split]
    else:
        by = keys if data.split.by is None else table[data.split.by]
        # Rows without a group are each by themselves.
        columns["split"] = divided(pc.if_else(pc.equal(by, ""), keys, by).to_pylist(), data.split)
    for name in ("group", "domain", "weight"):
        if column := getattr(data.columns, name):
            columns[name] = table[column]
    columns |= {f"meta.{column}": table[column] for column in data.columns.keep}
    for name, modality in data.modalities.items():
        cells = table[modality.column]
        columns[f"media.{name}"] = pc.if_else(pc.is_in(cells, value_set=pa.array(["", "[]"])), nothing, cells)
    return pa.table({**columns, "partition": table["partition"], "row": table["row"]})


def _extras(data: DataConfig) -> tuple[str, ...]:
    named = [name for name in ("group", "domain", "weight") if getattr(data.columns, name)]
    return (*named, *(f"meta.{column}" for column in data.columns.keep))


def _bad_targets(table: pa.Table, data: DataConfig) -> list[bool]:
    """Rows whose label or weight is no number where it has to be one."""
    bad = [False] * table.num_rows
    if data.task == "regression" and data.columns.label is not None:
        bad = bad_numbers(table["label"])
    if data.columns.weight:
        heavy = bad_numbers(table["weight"], least=0)
        bad = [one or other for one, other in zip(bad, heavy, strict=True)]
    return bad


def _check_groups(table: pa.Table, data: DataConfig) -> None:
    """Raise DataError where rows that belong together are in several splits."""
    if data.columns.group and (torn := torn_groups(table["group"], table["split"])):
        listed = "; ".join(f"{group!r} in {' and '.join(splits)}" for group, splits in torn[:3])
        what = f"{len(torn):,} groups of column {data.columns.group!r} have rows in several splits: {listed}."
        fix = f"Correct the splits, or divide by groups: data.split.by={data.columns.group}."
        raise DataError([Problem("data.columns.group", what, fix)])


def _nothing_left(
    rejects: Sequence[Reject], files: Sequence[str], splits: pa.ChunkedArray, longest: int
) -> list[Problem]:
    aside = ", ".join(f"{code} {count:,}" for code, count in count_by(reject.code for reject in rejects).items())
    what = f"no row can be used (set aside: {aside})."
    return [
        Problem(files[0], what, "Correct the rows."),
        *_why_set_aside(rejects, splits.unique().to_pylist(), files[0], longest),
    ]


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
        "missing-label": pc.fill_null(pc.equal(table["label"], ""), False),
        "bad-target": pa.chunked_array([pa.array(_bad_targets(table, data), pa.bool_())]),
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
            "bad-target": f"the label {row['label']!r} or weight is no finite number, or the weight is negative",
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
    samples: dict[str, int] = {}
    labels: dict[str, set[str]] = {}
    for item in table.group_by(["split", "label"]).aggregate([([], "count_all")]).to_pylist():
        samples[item["split"]] = samples.get(item["split"], 0) + item["count_all"]
        names = json.loads(item["label"]) if data.task == "multilabel" else [item["label"]]
        labels.setdefault(item["split"], set()).update(names)
    where = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    if data.limit is not None:
        where += f" (data.limit: {data.limit})"
    if problems := labels_problems(samples, labels, data.task, where, count_by(reject.code for reject in rejects)):
        if any(split not in samples for split in SPLITS):
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
    if bad := first.get("duplicate-key"):
        problems.append(
            Problem(where, f"{bad.message}: {bad.key!r} ({bad.source}).", "Each row needs a key of its own.")
        )
    if "unknown-split" in first:
        odd = sorted(set(splits) - set(SPLITS))
        names = ", ".join(map(repr, odd[:5])) + (f" and {len(odd) - 5} more" if len(odd) > 5 else "")
        problems.append(Problem(where, f"the splits {names} are unknown.", f"Use {', '.join(SPLITS)}, spelt so."))
    return problems
