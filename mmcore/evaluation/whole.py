"""Reading what a model or an evaluation left behind, and only where it is what its receipt says."""

from __future__ import annotations

from mmcore.errors import DamagedError
from mmcore.records import DataFile
from mmcore.storage import Store, sha256


def read_whole(store: Store, folder: str, name: str) -> bytes:
    """The file `name` that the receipt in `folder` names.

    Raises DamagedError where it is missing or another file, and first removes the receipt: a run takes an output
    without one for not made yet, so that the next one makes it again.
    """
    path = f"{folder}/{name}"
    try:
        described = {file["path"]: DataFile(**file) for file in store.read_json(f"{folder}/receipt.json")["files"]}
        data = store.read_bytes(path)
        if path in described and sha256(data) == described[path].sha256:
            return data
    except (FileNotFoundError, DamagedError):
        pass
    store.remove(f"{folder}/receipt.json")
    raise DamagedError(f"{store.url(path)} was damaged; it will be made again: run the same command again.")
