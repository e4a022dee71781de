"""Folders as manifests: one folder per class, where files of the same stem are one sample."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import PurePosixPath

import pyarrow as pa

from mmcore.errors import Problem, SourceError
from mmcore.sources.tables import Malformed, Sheet, check_columns

EXTENSIONS = {
    "image": "jpg jpeg jpe jfif png webp gif apng tif tiff bmp dib avif heic heif jp2 ppm pgm pbm tga ico",
    "audio": "wav flac ogg oga opus mp3 m4a aac aif aiff aifc au snd caf rf64 w64",
    "text": "txt md html htm",
    "video": "mp4 m4v mov mkv webm avi mpg mpeg",
}
"""Which column a file goes to, by the end of its name, in any case."""
_COLUMN = {extension: column for column, names in EXTENSIONS.items() for extension in names.split()}
COLUMNS = ("id", "label", "split", *EXTENSIONS)
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""What folders and files of a split are called."""


def read_folder(folder: str, wanted: dict[str, str]) -> Sheet:
    """The files below a local folder as rows, in name order: `label/x.jpg`, or `train/label/x.jpg`.

    Columns are `id` (the path without its extension, `_` for `/`), `label` (the folder that a file lies in), `split`
    (where the first folders are splits), and one per kind of media with the path. Files of kinds that are not wanted,
    hidden ones and those beside the class folders are passed over; names that are not UTF-8 are malformed rows.
    Raises SourceError for a folder without such files, and for columns that a folder does not have.
    """
    samples: dict[str, dict[str, str]] = {}
    twice: dict[str, list[str]] = {}
    # Notes beside pictures are nothing where only pictures are wanted.
    kinds = [name for name in EXTENSIONS if name in wanted] or list(EXTENSIONS)
    for path in _files(folder):
        parts = PurePosixPath(path)
        column = _COLUMN.get(parts.suffix[1:].lower())
        if column not in kinds or len(parts.parts) < 2:
            continue
        sample = samples.setdefault(str(parts.with_suffix("")), {})
        if column in sample:
            twice.setdefault(sample[column], [sample[column]]).append(path)
        sample[column] = path
    if not samples:
        what = "this folder holds no class folders with images, sounds, texts or videos."
        raise SourceError(Problem(folder, what, "Name a manifest, or a folder of folders, one per class."))
    if twice:
        listed = "; ".join(" and ".join(paths) for paths in list(twice.values())[:3])
        what = f"{len(twice)} samples have two files of one kind: {listed}."
        raise SourceError(Problem(folder, what, "Files of the same stem in one folder are one sample: rename one."))
    unreadable = [row for row in sorted(samples) if not _is_text(row)]
    malformed = [
        Malformed(number, "", f"the name {row!a} is not valid UTF-8")
        for number, row in enumerate(unreadable, start=len(samples) - len(unreadable) + 1)
    ]
    rows = sorted(samples.keys() - unreadable)
    firsts = {row.split("/")[0].lower() for row in rows}
    divided = all(row.count("/") > 1 for row in rows) and firsts <= set(SPLIT_NAMES)
    columns = {
        "id": [row.replace("/", "_") for row in rows],
        "label": [row.split("/")[-2] for row in rows],
        **({"split": [SPLIT_NAMES[row.split("/")[0].lower()] for row in rows]} if divided else {}),
        **{name: cells for name in EXTENSIONS if any(cells := [samples[row].get(name, "") for row in rows])},
    }
    hint = (
        ""
        if divided or "split" not in wanted
        else "Set data.split, or sort the class folders into train, val and test."
    )
    check_columns(folder, wanted, list(columns), hint)
    table = pa.table({name: pa.array(columns[name], pa.string()) for name in wanted})
    return Sheet(table, pa.array(range(1, len(rows) + 1), pa.int64()), malformed)


def _is_text(path: str) -> bool:
    """Whether a path's bytes are UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _files(folder: str) -> Iterator[str]:
    """Files below a folder, relative to it, hidden ones left out."""
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(base, folder).replace(os.sep, "/")
        yield from (name if below == "." else f"{below}/{name}" for name in sorted(names) if not name.startswith("."))
