"""The ways to open samples for reading: a finished data set, tars with their indexes, and tars of other makers."""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from mmcore.errors import ConfigError, DamagedError, Problem, SourceError
from mmcore.modalities.base import Modality
from mmcore.records import SPLITS, Dataset, Json, ShardEntry
from mmcore.shards.access import TarFile
from mmcore.shards.cache import ShardCache
from mmcore.shards.catalogue import Catalogue
from mmcore.shards.foreign import Scattered, index_of
from mmcore.shards.read import read_dataset, read_index, table_of
from mmcore.shards.reader import Shards
from mmcore.shards.recipe import open_modality
from mmcore.storage import Store, file_system

READERS = 8
"""Indexes that are read at a time."""


def open_dataset(
    root: str | os.PathLike[str] | Store,
    dataset: str | None = None,
    *,
    run: str | None = None,
    splits: Sequence[str] = SPLITS,
    columns: Sequence[str] = (),
    cache: ShardCache | None = None,
) -> Shards:
    """The samples of a data set below an output root, without those that it names as removed.

    `dataset` is its digest or the beginning of it; else that of the run `run`, else that of the latest run. Samples
    hold `label` and the index's `columns` (as `group` or `meta.<column>`). `cache` keeps shards of a bucket.

    Raises ConfigError where there is no such data set, split or column, and DamagedError where an index is damaged.
    """
    store = root if isinstance(root, Store) else Store(os.fspath(root))
    store.check_layout()
    found = read_dataset(store, find_dataset(store, dataset, run))
    return open_shards(store, found, splits=splits, columns=columns, cache=cache)


def open_shards(
    store: Store,
    dataset: Dataset,
    *,
    splits: Sequence[str] = SPLITS,
    columns: Sequence[str] = (),
    cache: ShardCache | None = None,
) -> Shards:
    """`open_dataset` where the data set has been read already."""
    if unknown := set(splits) - set(SPLITS):
        raise ConfigError(Problem("splits", f"no split {min(unknown)!r}.", f"There are: {', '.join(SPLITS)}."))
    return open_entries(store, dataset, dataset.of(*splits), columns=columns, cache=cache)


def open_entries(
    store: Store,
    dataset: Dataset,
    entries: Sequence[ShardEntry],
    *,
    columns: Sequence[str] = (),
    cache: ShardCache | None = None,
    removed_too: bool = False,
) -> Shards:
    """The samples of these shards of a data set, without those that it names as removed unless told otherwise."""
    with ThreadPoolExecutor(READERS) as pool:
        indexes = list(pool.map(lambda entry: read_index(store, entry), entries))
    files = [TarFile(store.url(e.tar.path), e.tar.size_bytes, e.tar.sha256) for e in entries if e.tar is not None]
    decoders = {name: MemberDecoder(settings) for name, settings in dataset.modalities.items()}
    shards = Shards(files, _catalogue(indexes, columns), cache=cache, decoders=decoders)
    return shards if removed_too or not dataset.removed else _without(shards, dataset.removed)


def open_pairs(
    pairs: Sequence[tuple[str, str]], *, columns: Sequence[str] = (), cache: ShardCache | None = None
) -> Shards:
    """The samples of tars with their indexes, each a path or URL, as `[("a.tar", "a.parquet")]`.

    Raises DamagedError where an index is missing or is none, and ConfigError for a column that is in none of them.
    """
    with ThreadPoolExecutor(READERS) as pool:
        indexes = list(pool.map(lambda pair: read_table(os.fspath(pair[1])), pairs))
    files = [TarFile(plain_path(os.fspath(tar))) for tar, _ in pairs]
    return Shards(files, _catalogue(indexes, columns), cache=cache)


def open_tars(
    tars: str | Sequence[str],
    *,
    indexes: str | os.PathLike[str] | None = None,
    scattered: Scattered = "error",
    cache: ShardCache | None = None,
) -> Shards:
    """The samples of tars that other tools wrote, grouped as webdataset does: paths, URLs, or patterns with `*`.

    Each tar is read once for its index: where every member is, and its checksum, by which later reads are checked.
    `indexes` is where these are saved: a folder, `"beside"` the tars (`NAME.tar.index.parquet`), or nowhere. A saved
    one is used for as long as the tar's size and time (or version) stay the same. Samples have no label; fields are
    what follows the key, as `jpg` or `seg.png`. Members of a sample that do not follow each other are an error, since
    webdataset would make two samples of them, or are put together with `scattered="join"`.

    Raises DamagedError for a tar that is damaged or missing, and SourceError where members cannot be grouped.
    """
    patterns = [tars] if isinstance(tars, str) else list(tars)
    urls = [url for pattern in patterns for url in _matching(plain_path(os.fspath(pattern)))]
    folder = None if indexes is None else os.fspath(indexes)
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda url: index_of(url, folder, scattered), urls))
    return Shards([TarFile(url) for url in urls], _catalogue(found, ()), cache=cache, escaped=False)


def _matching(pattern: str) -> list[str]:
    """The files that a pattern names, by name. Raises SourceError where there are none."""
    if not any(sign in pattern for sign in "*?["):
        return [pattern]
    system, path = file_system(pattern, "tars", SourceError)
    found = sorted(str(one) for one in system.glob(path))
    if not found:
        raise SourceError(Problem("tars", f"nothing matches {pattern}."))
    return [one if "://" not in pattern else str(system.unstrip_protocol(one)) for one in found]


def find_dataset(store: Store, dataset: str | None = None, run: str | None = None, *, name: str | None = None) -> str:
    """The digest of a data set below a root: see `open_dataset`; the latest run is one of this name where there is one.

    Raises ConfigError where there is none, or several.
    """
    if dataset is not None:
        known = sorted(name.removesuffix(".json") for name in store.listing("datasets"))
        found = [name for name in known if name.startswith(dataset)]
        if len(found) != 1:
            what = f"{len(found)} data sets whose digest starts with {dataset!r} below {store.root}."
            raise ConfigError(Problem("dataset", what, f"There are: {', '.join(known[:5]) or 'none'}."))
        return found[0]
    for record in run_records(store, run, name=name):
        if record.get("dataset"):
            return str(record["dataset"])
    raise ConfigError(Problem("dataset", f"no finished data set below {store.root}.", "Make one: mmcore run FILE."))


def run_records(store: Store, run: str | None = None, *, name: str | None = None) -> list[dict[str, Json]]:
    """The records of all runs (of this name), the latest first; or that of one run.

    Raises ConfigError where there is no run of the id `run`.
    """
    if run is not None:
        if not store.exists(f"runs/{run}/run.json"):
            raise ConfigError(Problem("run", f"no run {run!r} below {store.root}."))
        return [store.read_json(f"runs/{run}/run.json")]
    records = []
    for each in store.folders("runs"):
        try:
            records.append(store.read_json(f"runs/{each}/run.json"))
        except (FileNotFoundError, DamagedError):
            continue
    found = [record for record in records if name is None or record["name"] == name]
    return sorted(found, key=lambda record: str(record["started"]), reverse=True)


class MemberDecoder:
    """Makes what encoders take (an array, a text) of a member's bytes; loads its codec with the first."""

    def __init__(self, settings: Json) -> None:
        self._settings = settings

    @cached_property
    def _modality(self) -> Modality[Any]:
        return open_modality(self._settings)

    def __call__(self, data: bytes) -> Any:
        return self._modality.load(data)


def _catalogue(indexes: Sequence[pa.Table], columns: Sequence[str]) -> Catalogue:
    try:
        return Catalogue.of_indexes(indexes, columns)
    except KeyError as error:
        known = [name for name in indexes[0].column_names if name not in {"key", "label"}]
        what = f"no column {error.args[0]!r} in the index."
        raise ConfigError(Problem("columns", what, f"There are: {', '.join(known)}.")) from None


def _without(shards: Shards, removed: Container[str]) -> Shards:
    return shards.of(np.array([row for row, key in enumerate(shards.keys) if key not in removed], dtype=np.int64))


def read_table(url: str) -> pa.Table:
    """A Parquet file anywhere. Raises DamagedError where it is missing or is none."""
    system, path = file_system(url, "index", SourceError)
    try:
        return table_of(system.cat_file(path))
    except FileNotFoundError:
        raise DamagedError(f"{url} is missing.") from None
    except pa.ArrowException as error:
        raise DamagedError(f"{url} is no Parquet file ({error}).") from error


def plain_path(url: str) -> str:
    """A local path without `file://`; other URLs as they are."""
    return url.removeprefix("file://") if url.startswith("file://") else url
