"""The files that `data.manifest` names, of whatever kind, as columns of strings."""

from __future__ import annotations

import glob
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import pyarrow as pa

from mmcore.config.data import DataConfig
from mmcore.config.media import TextSettings
from mmcore.errors import Problem, SourceError
from mmcore.sources.folders import SPLIT_NAMES, read_folder
from mmcore.sources.hub import is_named, named_files
from mmcore.sources.packed import read_tar
from mmcore.sources.paths import file_system, is_remote
from mmcore.sources.saved import arrow_files
from mmcore.sources.tables import Sheet, read_sheet

Opened = TypeVar("Opened")
NO_KEY = "\0key"
"""Column of keys that were made; no manifest's column is called so."""


@dataclass(frozen=True)
class Wanted:
    """The columns that a configuration reads."""

    columns: Mapping[str, str]
    """Column to the setting that names it; the key's column first, where there is one."""
    lists: frozenset[str]
    """Columns whose cells are lists."""
    media: frozenset[str]
    """Columns whose cells name files, or hold them."""

    @classmethod
    def of(cls, data: DataConfig) -> Wanted:
        columns = data.columns
        named = {
            "key": columns.key,
            "label": columns.label,
            "split": None if data.split else columns.split,
            "group": columns.group,
            "domain": columns.domain,
            "weight": columns.weight,
        }
        wanted = {column: f"data.columns.{name}" for name, column in named.items() if column is not None}
        for column in columns.keep:
            wanted.setdefault(column, "data.columns.keep")
        if data.split and data.split.by:
            wanted.setdefault(data.split.by, "data.split.by")
        lists, media = set(), set()
        for name, modality in data.modalities.items():
            wanted.setdefault(modality.column, f"data.modalities.{name}.column")
            if not (isinstance(modality, TextSettings) and modality.inline):
                media.add(modality.column)
                if modality.several:
                    lists.add(modality.column)
        if data.task == "multilabel" and columns.label is not None:
            lists.add(columns.label)
        return cls(wanted, frozenset(lists), frozenset(media))


def read_sheets(data: DataConfig) -> dict[str, Sheet]:
    """File (or folder) to its rows, in name order. Raises SourceError with the problems of all of them."""
    wanted = Wanted.of(data)
    sheets, problems = {}, []
    for file, split in _files([data.manifest] if isinstance(data.manifest, str) else data.manifest).items():
        try:
            sheets[file] = _keyed(_split(file, split, wanted, data), file, split, data)
        except SourceError as error:
            problems += error.problems
    if problems:
        raise SourceError(problems)
    return sheets


def is_folder(file: str) -> bool:
    """Whether a manifest is a folder of class folders."""
    return not is_remote(file) and os.path.isdir(file)


def split_named_in(file: str) -> str | None:
    """The split that a file's name or its folder's says, as `train-000.tar` or `validation/data.arrow`."""
    *_, folder, name = ["", *file.rstrip("/").split("/")]
    for word in (*re.split(r"[^a-z]+", name.lower()), folder.lower()):
        if word in SPLIT_NAMES:
            return SPLIT_NAMES[word]
    return None


def _split(file: str, split: str | None, wanted: Wanted, data: DataConfig) -> Sheet:
    """The sheet; without a column of splits, all its rows are of the split that is known or that its name says."""
    try:
        return _read(file, wanted)
    except SourceError:
        named = split_named_in(file) if split is None else SPLIT_NAMES.get(split.lower(), split)
        if named is None or data.split is not None or is_folder(file):
            raise
        rest = {column: setting for column, setting in wanted.columns.items() if column != data.columns.split}
        try:
            sheet = _read(file, replace(wanted, columns=rest))
        except SourceError:
            sheet = None
        if sheet is None:
            raise
    column = pa.array([named] * sheet.table.num_rows, pa.string())
    return replace(sheet, table=sheet.table.append_column(data.columns.split, column))


def _keyed(sheet: Sheet, file: str, split: str | None, data: DataConfig) -> Sheet:
    """The sheet with keys made of the file's name and the row's number where no column holds them."""
    if data.columns.key is not None:
        return sheet
    folder, _, name = file.rstrip("/").rpartition("/")
    stem = name.rpartition(".")[0] or name
    # Files of several splits often have the same names.
    start = "-".join(filter(None, [split or split_named_in(folder + "/"), stem])).replace(".", "_")
    keys = pa.array([f"{start}-{number:08d}" for number in sheet.numbers.to_pylist()], pa.string())
    malformed = [replace(bad, key="") for bad in sheet.malformed]
    return replace(sheet, table=sheet.table.append_column(NO_KEY, keys), malformed=malformed)


def _read(file: str, wanted: Wanted) -> Sheet:
    columns = dict(wanted.columns)
    if is_folder(file):
        return read_folder(file, columns)
    if file.rsplit(".", 1)[-1].lower() == "tar":
        if is_remote(file):
            return read_tar(io.BytesIO(_bytes_of(file)), file, columns, wanted.media)
        with _named(file, lambda: open(file.removeprefix("file://"), "rb")) as opened:
            return read_tar(opened, file, columns, wanted.media)
    return read_sheet(_bytes_of(file), file, columns, wanted.lists, wanted.media)


def _bytes_of(file: str) -> bytes:
    def read() -> bytes:
        if is_remote(file):
            system, path = file_system(file)
            data: bytes = system.cat_file(path)
            return data
        with open(file.removeprefix("file://"), "rb") as opened:
            return opened.read()

    return _named(file, read)


def _named(file: str, open_it: Callable[[], Opened]) -> Opened:
    """What `open_it` gives; its errors as SourceErrors that name the file."""

    def fault(what: str, fix: str) -> SourceError:
        return SourceError(Problem(file, what, fix))

    try:
        return open_it()
    except FileNotFoundError:
        raise fault("there is no such file.", "Check data.manifest.") from None
    except IsADirectoryError:
        raise fault("this is a folder.", "Name the manifest in it, or a glob such as *.csv.") from None
    except SourceError:
        raise
    except Exception as error:  # libraries for buckets have errors of their own
        raise fault(f"cannot be read ({error}).", "Check the address and your access.") from error


def _files(patterns: Sequence[str]) -> dict[str, str | None]:
    """The files that paths, globs and names of data sets name, in name order, with the split where it is known."""
    found: dict[str, str | None] = {}
    problems = []
    for pattern in patterns:
        if is_named(pattern):
            try:
                found |= named_files(pattern)
            except SourceError as error:
                problems += error.problems
            continue
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
        for name in names:
            plain = name.removeprefix("file://")
            saved = arrow_files(plain.rstrip("/")) if is_folder(plain) else None
            found.update(dict.fromkeys([name] if saved is None else saved))
    if not found and not problems:
        problems.append(Problem("data.manifest", "the list is empty.", "Name at least one manifest."))
    if problems:
        raise SourceError(problems)
    return dict(sorted(found.items()))


def _glob(pattern: str) -> Iterator[str]:
    if not is_remote(pattern):
        yield from glob.iglob(pattern.removeprefix("file://"), recursive=True)
    else:
        system, path = file_system(pattern)
        yield from (str(system.unstrip_protocol(name)) for name in system.glob(path))
