"""Hugging Face data sets by name, as the Arrow files that their library makes of them.

Nothing is decoded and no code of a data set is run: its library fetches the files and writes Arrow into its own cache,
and the columns are read from there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmcore.errors import Problem, SourceError
from mmcore.sources.saved import arrow_files
from mmcore.sources.tables import holds_bytes

SCHEME = "hf://"
SPELLING = "hf://USER/NAME[:CONFIG][@REVISION]"
_PARTS = re.compile(r"(?P<name>/?[^:@]+)(?::(?P<config>[^@]+))?(?:@(?P<revision>.+))?").fullmatch


def is_named(manifest: str) -> bool:
    """Whether a manifest is a data set by name; `hf://datasets/…` is a file on the Hub, as fsspec spells it."""
    return manifest.startswith(SCHEME) and not manifest.startswith(f"{SCHEME}datasets/")


def named_files(url: str) -> dict[str, str]:
    """The Arrow files of a data set by name (or of a folder, `hf:///data/folder`), and the split that each is of.

    Fetches what is not in the library's cache yet. Raises SourceError where the library is missing, where there is no
    such data set, and where it names files outside of it.
    """
    parts = _PARTS(url.removeprefix(SCHEME))
    if not parts:
        raise SourceError(Problem(url, "is no name of a data set.", f"Spell it {SPELLING}."))
    try:
        import datasets
    except ImportError as error:
        fix = "Run: pip install 'mmcore[huggingface]'"
        raise SourceError(Problem(url, f"needs a library that is not installed ({error}).", fix)) from error
    with _quietly(datasets):
        try:
            builder = datasets.load_dataset_builder(parts["name"], parts["config"], revision=parts["revision"])
            builder.download_and_prepare()
            sets: Mapping[str, Any] = builder.as_dataset()
        except Exception as error:  # the library raises what its many readers stumble on
            raise SourceError(Problem(url, f"cannot be loaded ({_short(error)}).", _fix(error))) from error
        found: dict[str, str] = {}
        for split, one in sets.items():
            files = [str(file["filename"]) for file in one.cache_files]
            if _names_files(files):
                files = _with_bytes(url, parts["name"], one, builder.cache_dir, split)
            found |= dict.fromkeys(files, split)
    if not found:
        raise SourceError(Problem(url, "has no rows.", "Check its name and configuration."))
    return found


def _names_files(files: list[str]) -> bool:
    """Whether cells of media name files of their own in place of holding bytes."""
    return next(_outside(files), None) is not None


def _outside(files: list[str]) -> Iterator[str]:
    """Paths in cells that hold a path and no bytes."""
    for file in files:
        with pa.memory_map(file) as source, pa.ipc.open_stream(source) as batches:
            columns = [
                field.name
                for field in batches.schema
                if pa.types.is_struct(field.type) and holds_bytes(field.type) and _has_path(field.type)
            ]
            for batch in batches if columns else ():
                for column in columns:
                    yield from (cell["path"] for cell in batch[column].to_pylist() if _names_a_file(cell))


def _has_path(kind: pa.DataType) -> bool:
    return any(field.name == "path" for field in kind)


def _names_a_file(cell: Mapping[str, Any] | None) -> bool:
    return cell is not None and cell["bytes"] is None and bool(cell["path"])


def _with_bytes(url: str, name: str, rows: Any, cache_dir: str, split: str) -> list[str]:
    """A copy with the files' bytes in the cells, beside the library's own files; made once."""
    import datasets

    allowed = [os.path.realpath(folder) for folder in (datasets.config.HF_CACHE_HOME, cache_dir, name)]
    for path in _outside([str(file["filename"]) for file in rows.cache_files]):
        real = os.path.realpath(path)
        if not any(real.startswith(folder.rstrip("/") + "/") for folder in allowed):
            what = f"names {path!r}, which is no file of it."
            raise SourceError(Problem(url, what, "Do not use this data set, or save it yourself with its bytes."))
    folder = Path(cache_dir) / f"mmcore-{split}"
    if not (folder / "state.json").exists():
        rows.save_to_disk(str(folder))
    return arrow_files(str(folder)) or []


@contextmanager
def _quietly(datasets: Any) -> Iterator[None]:
    """Without the library's bars and notes on each try: what matters is in the one error at the end."""
    import huggingface_hub.utils.logging as hub_logging

    silent = datasets.are_progress_bars_disabled()
    told, hub_told = datasets.utils.logging.get_verbosity(), hub_logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity_error()
    hub_logging.set_verbosity(50)
    try:
        yield
    finally:
        datasets.utils.logging.set_verbosity(told)
        hub_logging.set_verbosity(hub_told)
        if not silent:
            datasets.enable_progress_bars()


def _short(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__


def _fix(error: Exception) -> str:
    if "script" in str(error).lower():
        return "Code of a data set is never run: name its Parquet files, as hf://USER/NAME@refs/convert/parquet."
    if "config" in str(error).lower():
        return f"Name one of its configurations: {SPELLING}."
    return (
        f"Check the name ({SPELLING}), the network and, for a private one, `hf auth login`. Without a network, save it "
        "elsewhere with save_to_disk, copy the folder here and name that."
    )
