"""Encoders made ready to work: those trained here, and those that come from outside."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from mmcore.config import EncoderSettings
from mmcore.errors import DamagedError
from mmcore.features.encoders.base import Encoder, LearnedEncoder
from mmcore.features.foresee import Receipt, weights_of
from mmcore.records import Json, digest
from mmcore.storage import Store, sha256

KEPT = 2
"""Encoders that a process keeps open: the next job most often has the same one, and opening takes seconds."""

_open: OrderedDict[str, Encoder] = OrderedDict()


def new_encoder(settings: EncoderSettings, recipe: Mapping[str, Json]) -> Encoder:
    """The encoder of this recipe, before it has learned or loaded anything."""
    kind: type[Encoder] = settings.load()
    threads, device, precision = recipe["threads"] or 1, recipe["device"] or "cpu", recipe["precision"] or "float32"
    encoder = kind(settings, recipe["modality"], recipe["classes"], threads=threads, device=device, precision=precision)
    encoder.planned = recipe["sources"]
    return encoder


def opened_encoder(store: Store, settings: EncoderSettings, receipt: Receipt) -> Encoder:
    """The encoder of this receipt, ready to encode, at the batch size that the receipt tells.

    Kept open in this process. Raises DamagedError where files are not those that the receipt names.
    """
    name = digest([receipt["recipe"], weights_of(receipt)])
    encoder = _open.pop(name, None)
    if encoder is None:
        encoder = new_encoder(settings, receipt["recipe"])
        if isinstance(encoder, LearnedEncoder):
            encoder.unpack(_files(store, receipt))
        encoder.width = receipt["dim"]
        encoder.open()
    _open[name] = encoder
    while len(_open) > KEPT:
        _open.popitem(last=False)
    if receipt["batch"] is not None:
        encoder.batch = receipt["batch"]
    return encoder


def _files(store: Store, receipt: Receipt) -> dict[str, bytes]:
    files = {}
    for file in receipt["files"]:
        try:
            data = store.read_bytes(file["path"])
        except FileNotFoundError:
            data = b""
        if sha256(data) != file["sha256"]:
            where = store.url(file["path"])
            raise DamagedError(f"{where} is not the file that its receipt names; remove it and run again.")
        files[f"encoder.{file['path'].rpartition('.')[2]}"] = data
    return files
