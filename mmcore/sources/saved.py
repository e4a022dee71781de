"""Hugging Face data sets that were saved to disk, as the Arrow files that they are."""

from __future__ import annotations

import json
import os

from mmcore.errors import Problem, SourceError
from mmcore.records import Json


def arrow_files(folder: str) -> list[str] | None:
    """The Arrow files of a saved data set or dictionary of data sets, in order; None where the folder is none.

    Raises SourceError for one that is not whole.
    """
    several = _read(f"{folder}/dataset_dict.json")
    if several is not None:
        return [
            file for name in several["splits"] for file in arrow_files(f"{folder}/{name}") or _missing(folder, name)
        ]
    state = _read(f"{folder}/state.json")
    if state is None:
        return None
    files = [f"{folder}/{one['filename']}" for one in state["_data_files"]]
    for file in files:
        if not os.path.exists(file):
            _missing(folder, os.path.basename(file))
    return files


def _read(path: str) -> dict[str, Json] | None:
    try:
        with open(path, encoding="utf-8") as file:
            found: dict[str, Json] = json.load(file)
            return found
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise SourceError(Problem(path, f"is no JSON ({error}).", "Save the data set again.")) from error


def _missing(folder: str, name: str) -> list[str]:
    raise SourceError(Problem(folder, f"names {name!r}, which is not there.", "Save the data set again."))
