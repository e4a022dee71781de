"""A few samples as a page can show them: small pictures, sounds to play, the start of texts; all inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mmcore.errors import MmcoreError
from mmcore.records import Dataset, Json, ShardEntry
from mmcore.shards.access import TarFile
from mmcore.shards.catalogue import Catalogue
from mmcore.shards.read import read_index
from mmcore.shards.reader import Shards
from mmcore.storage import Store

THUMBNAIL_PIXELS = 112
MOST_SOUND_BYTES = 400_000
"""A longer sound is only named."""
SHOWN_CHARS = 240


@dataclass(frozen=True)
class Shown:
    """One modality of one sample: `picture` and `sound` are data URIs, `text` is shown as it is."""

    modality: str
    picture: str = ""
    sound: str = ""
    text: str = ""


def shown_samples(store: Store, dataset: Dataset, wanted: Iterable[tuple[int, str]]) -> dict[str, list[Shown]]:
    """Per key what can be shown of it; `wanted` are pairs of a shard's number and a key. What is gone is left out."""
    by_shard: dict[int, list[str]] = {}
    for shard, key in wanted:
        by_shard.setdefault(shard, []).append(key)
    found: dict[str, list[Shown]] = {}
    for number, entry in enumerate(dataset.shards):
        if number in by_shard and entry.tar is not None:
            try:
                found |= _of_shard(store, dataset.modalities, entry, by_shard[number])
            except (MmcoreError, OSError):
                continue  # a page of an old run is worth having without its pictures
    return found


def _of_shard(
    store: Store, modalities: Mapping[str, Json], entry: ShardEntry, keys: list[str]
) -> dict[str, list[Shown]]:
    assert entry.tar is not None
    index = read_index(store, entry)
    catalogue = Catalogue.of_indexes([index])
    shards = Shards([TarFile(store.url(entry.tar.path), entry.tar.size_bytes, entry.tar.sha256)], catalogue)
    rows = {key: row for row, key in enumerate(index["key"].to_pylist())}
    samples = shards.read([rows[key] for key in keys if key in rows])
    return {
        sample["__key__"]: [
            _shown(name, str(recipe["kind"]), sample[name])
            for name, recipe in modalities.items()
            if sample.get(name) is not None
        ]
        for sample in samples
    }


def _shown(modality: str, kind: str, data: bytes | tuple[bytes, ...]) -> Shown:
    first = data if isinstance(data, bytes) else data[0] if data else b""
    if kind == "text":
        text = first.decode("utf-8", "replace")
        return Shown(modality, text=text[:SHOWN_CHARS] + ("…" if len(text) > SHOWN_CHARS else ""))
    if kind == "audio":
        kind_of_file = {b"RIFF": "audio/wav", b"OggS": "audio/ogg"}.get(first[:4], "audio/flac")
        return Shown(modality, sound=_uri(kind_of_file, first) if len(first) <= MOST_SOUND_BYTES else "")
    return Shown(modality, picture=_thumbnail(first))


def _thumbnail(data: bytes) -> str:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as opened:
            small = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return ""  # no picture that a page can show
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    out = io.BytesIO()
    small.save(out, "PNG")
    return _uri("image/png", out.getvalue())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
