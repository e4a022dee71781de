"""Where a pretrained model's files lie, what they say of it, and the hashes that name them. Loads no torch."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from mmcore.errors import ConfigError, Problem
from mmcore.records import Json

WEIGHTS = "*.safetensors"
PATTERNS = ("*.json", WEIGHTS, "*.txt", "*.model")
"""Files of a model that may decide its vectors; pickles and code are never fetched or read."""
ASK_S = 5.0
"""How long the hub may take to say what a model consists of."""
SETTINGS_FILE = "config.json"


def folder_of(model: str, revision: str | None, *, fetch: bool = True) -> str:
    """The folder of a model: the one that `model` names, or the copy of a hub model, made whole where need be.

    Without a network, or with HF_HUB_OFFLINE=1, the copy that is there is used. Raises ConfigError, saying what to do,
    where there is none.
    """
    if os.path.isdir(os.path.expanduser(model)):
        return os.path.expanduser(model)
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise _fault(model, "there is no such folder.", "Give the folder of a saved model, or its name on the hub.")
    if find_spec("huggingface_hub") is None:
        raise _missing_extra(model)
    return _snapshot(model, revision) if fetch else _copy_of(model, revision)


def sources_of(model: str, revision: str | None) -> dict[str, Json]:
    """Name and SHA-256 of every file that decides what the model gives. Raises ConfigError where it may not be used."""
    folder = folder_of(model, revision)
    described = settings_of(folder, model)
    names = [
        os.path.relpath(os.path.join(top, file), folder)
        for top, folders, files in os.walk(folder)
        for file in sorted(files)
        if _decides(file) and not _ignored(folders)
    ]
    if not any(name.endswith(".safetensors") for name in names):
        fix = "Save it with save_pretrained(..., safe_serialization=True), or take a revision that has safetensors."
        raise _fault(model, "it has no weights in safetensors; pickled ones are never loaded.", fix)
    if "auto_map" in described:
        what = "it brings its own code (auto_map in config.json), which is never run."
        raise _fault(model, what, "Take a model of an architecture that transformers knows.")
    return {name: _hash(os.path.join(folder, name)) for name in sorted(names)}


def settings_of(folder: str, model: str, file: str = SETTINGS_FILE) -> dict[str, Any]:
    """What a JSON file of the model's folder holds; {} where it has none of this name, unless it is its config."""
    try:
        with open(os.path.join(folder, file), encoding="utf-8") as opened:
            found = json.load(opened)
    except FileNotFoundError:
        if file != SETTINGS_FILE:
            return {}
        fix = "Give the folder that save_pretrained wrote."
        raise _fault(model, f"{folder} is no model: it holds no {SETTINGS_FILE}.", fix) from None
    except (OSError, ValueError) as error:
        raise _fault(model, f"{file} cannot be read ({error}).", "Fetch or save it again.") from None
    return found if isinstance(found, dict) else {"": found}


def _decides(file: str) -> bool:
    return file.endswith((".json", ".safetensors", ".txt", ".model")) and not file.startswith((".", "training_"))


def _ignored(folders: list[str]) -> bool:
    """Keep the walk out of hidden folders and of other formats' weights."""
    folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in {"onnx", "openvino"})
    return False


def _hash(path: str) -> str:
    found = os.stat(path)
    return _hash_of(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1024)
def _hash_of(path: str, _size: int, _mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _copy_of(model: str, revision: str | None) -> str:
    """The copy of a hub model that is on this machine, whole or not."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return str(snapshot_download(model, revision=revision, allow_patterns=list(PATTERNS), local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        raise _fault(model, "no copy of it is on this machine.", "It is fetched once it is needed.") from None


@lru_cache(maxsize=64)
def _snapshot(model: str, revision: str | None) -> str:
    """The copy of a hub model, made whole where the hub answers: another program may have fetched a part of it only."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        patterns = list(PATTERNS)
        return str(snapshot_download(model, revision=revision, allow_patterns=patterns, etag_timeout=ASK_S))
    except HFValidationError as error:
        raise _fault(model, f"this is neither a folder nor a name on the hub ({error}).", "Correct it.") from None
    except GatedRepoError:
        fix = "Accept its terms on its page and log in with `hf auth login`, or set HF_TOKEN."
        raise _fault(model, "its owner lets only some people have it, and you are not known to be one.", fix) from None
    except RevisionNotFoundError:
        raise _fault(model, f"it has no revision {revision!r}.", "Give a commit, tag or branch of it.") from None
    except RepositoryNotFoundError:
        what = "there is neither such a folder nor such a model on the hub (or it is private)."
        raise _fault(model, what, "Correct the name, or log in with `hf auth login`.") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        with suppress(ConfigError):
            return _copy_of(model, revision)
        told = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        what = f"it is no folder, no copy of it is on this machine, and the hub cannot be reached ({told})."
        fix = "Give the folder of a saved model, or fetch it once where there is a network: hf download " + model
        raise _fault(model, what, fix) from None


def _missing_extra(model: str) -> ConfigError:
    what = "pretrained encoders need transformers, which is not installed."
    return _fault(model, what, "pip install mmcore[transformers]")


def demand_transformers(model: str) -> None:
    """Raise ConfigError where transformers is not installed."""
    if find_spec("transformers") is None:
        raise _missing_extra(model)


def _fault(model: str, what: str, fix: str) -> ConfigError:
    return ConfigError(Problem(f"features: model {model!r}", what, fix))
