"""What near-duplicates of pictures are found, and what is not taken for one, on real pictures as they are prepared."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from mmcore.config.media import ImageSettings
from mmcore.config.quality import DuplicatesConfig
from mmcore.modalities import looks
from mmcore.modalities.image import ImageModality
from mmcore.quality.clusters import find_clusters

DATA = Path(os.environ.get("MMCORE_DATA", "/nowhere"))
Copy = Callable[[Image.Image], Image.Image]


def _saved_again(quality: int) -> Copy:
    def copy(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return copy


def _scaled(by: float) -> Copy:
    return lambda image: image.resize((round(image.width * by), round(image.height * by)), Image.Resampling.LANCZOS)


def _lighter(by: float) -> Copy:
    return lambda image: image.point(lambda value: min(255, round(value * by)))


def _shifted(pixels: int) -> Copy:
    return lambda image: Image.fromarray(np.roll(np.asarray(image), (pixels, pixels), (0, 1)))


def _cropped(pixels: int) -> Copy:
    return lambda image: image.crop((pixels, pixels, image.width - pixels, image.height - pixels))


COPIES: dict[str, Copy] = {
    **{f"quality {quality}": _saved_again(quality) for quality in (60, 75, 90)},
    **{f"{by} times as large": _scaled(by) for by in (0.5, 0.75, 1.5, 2)},
    **{f"{by} times as light": _lighter(by) for by in (0.95, 1.05)},
}
MOVED: dict[str, Copy] = {
    **{f"moved by {pixels}": _shifted(pixels) for pixels in (1, 2)},
    **{f"cropped by {pixels}": _cropped(pixels) for pixels in (1, 2)},
}


def _pictures(name: str, mode: str, count: int) -> list[Image.Image]:
    files = sorted((DATA / name / "image").glob("*"))[:count]
    if not files:
        pytest.skip(f"MMCORE_DATA holds no {name}")
    return [Image.open(file).convert(mode) for file in files]


def _signatures(images: list[Image.Image], size: int) -> list[bytes | None]:
    modality = ImageModality(ImageSettings(column="image", size=size, resize="pad"))
    found = []
    for image in images:
        file = io.BytesIO()
        image.save(file, "PNG")
        found.append(modality.process(file.getvalue()).signature)
    return found


def _clustered(signatures: list[bytes | None]) -> np.ndarray:
    return find_clusters("image", [], pa.array(signatures, pa.binary()), DuplicatesConfig()).cluster


def _recall(own: list[bytes | None], copies: list[bytes | None]) -> float:
    """The share of copies that are in one cluster with what they are copies of, each looked at by itself."""
    found = [_clustered([one, copy]).tolist() == [0, 0] for one, copy in zip(own, copies, strict=True)]
    return float(np.mean(found))


def test_of_handwritten_digits_hardly_two_are_called_the_same() -> None:
    digits = _pictures("digits", "L", 2_500)
    assert len(digits) > 2_000
    signatures = _signatures(digits, 28)
    false = _clustered(signatures) >= 0
    assert false.mean() <= 0.01
    recalls = {
        name: _recall(signatures[:150], _signatures([c(d) for d in digits[:150]], 28)) for name, c in COPIES.items()
    }
    assert np.mean(list(recalls.values())) >= 0.95, recalls
    assert min(recalls.values()) >= 0.85, recalls


@pytest.mark.parametrize("size", [64, 224])
def test_copies_of_drawings_are_found_also_moved_and_cropped(size: int) -> None:
    cards = _pictures("word-cards", "RGB", 412)
    signatures = _signatures(cards, size)
    assert (_clustered(signatures) >= 0).mean() <= 0.01
    chosen = slice(0, None, 5)
    recalls = {
        name: _recall(signatures[chosen], _signatures([copy(card) for card in cards[chosen]], size))
        for name, copy in {**COPIES, **MOVED}.items()
    }
    assert np.mean(list(recalls.values())) >= 0.95, recalls
    assert min(recalls.values()) >= 0.6, recalls
    assert all(recalls[name] >= 0.98 for name in COPIES), recalls


def test_a_signature_holds_hash_frequencies_and_size() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 300, 3), dtype=np.uint8)
    found = looks.signature(pixels, 1_000)
    assert found is not None
    assert (len(found), found[-1]) == (looks.BYTES, 40)
    assert looks.signature(pixels, 20)[-1] == 20
    assert looks.signature(np.full((40, 40, 1), 9, np.uint8), 40) is None


@pytest.mark.parametrize(
    ("side", "cosine", "same"), [(64, 0.985, True), (64, 0.975, False), (63, 0.985, False), (63, 0.993, True)]
)
def test_small_pictures_must_be_closer(side: int, cosine: float, same: bool) -> None:
    pair = np.zeros((2, looks.BYTES), np.uint8)
    pair[:, -1] = 255, side
    pair[:, looks.HASH_BYTES] = 100, round(100 * cosine)
    pair[1, looks.HASH_BYTES + 1] = 256 - round(100 * float(np.sqrt(1 - cosine**2)))
    one, other = looks.frequencies(pair)
    found = one @ other
    assert found == pytest.approx(cosine, abs=0.002)
    assert looks.alike(np.array([found]), pair[:1, -1], pair[1:, -1], 0.98).tolist() == [same]
