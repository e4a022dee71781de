"""Held against scikit-image and numpy's own histograms."""

import numpy as np
import pytest
from skimage.color import rgb2hsv
from skimage.feature import hog

from mmcore.config import HogSettings
from mmcore.features.encoders.hog import HogEncoder, colours, oriented_gradients
from tests.features.encoders.encoding import encoded


def pictures(count: int, height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("size", "cell", "block", "orientations"),
    [((64, 64), 16, 2, 9), ((128, 64), 8, 2, 9), ((37, 50), 6, 3, 8), ((28, 28), 28, 1, 180), ((9, 9), 4, 2, 1)],
)
def test_gradients_are_those_of_scikit_image(
    size: tuple[int, int], cell: int, block: int, orientations: int, channels: int
) -> None:
    values = np.sqrt(pictures(3, *size, channels) / 255)
    expected = [
        hog(
            one if channels == 3 else one[:, :, 0],
            orientations=orientations,
            pixels_per_cell=(cell, cell),
            cells_per_block=(block, block),
            block_norm="L2-Hys",
            channel_axis=-1 if channels == 3 else None,
        )
        for one in values
    ]
    found = oriented_gradients(values, cell, block, orientations)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    if (size, cell) == ((128, 64), 8):
        assert found.shape[1] == 3780, "the detector of Dalal and Triggs"


def test_colours_are_numpys_histogram_of_scikit_images_hsv() -> None:
    values = pictures(4, 20, 30, 3)
    values[0, :10] = values[0, :10, :, :1]  # greys
    values[1] = 0
    values[2, 0, :3] = np.array([[255, 0, 0], [0, 255, 0], [255, 255, 255]])
    # Rounded, since scikit-image divides by 255 first and may miss the edge of a bin by a last bit.
    hsv = [rgb2hsv(one).reshape(-1, 3).round(12) for one in values]
    expected = [np.histogramdd(one, bins=(8, 2, 4), range=[(0, 1)] * 3)[0].ravel() / 600 for one in hsv]
    found = colours(values, (8, 2, 4))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_the_vector_is_both_of_the_stretched_picture() -> None:
    settings = HogSettings(size=32, cell=8)
    encoder = HogEncoder(settings, {})
    (one,) = pictures(1, 32, 32, 3)
    (found,) = encoded(encoder, [one])
    assert found.shape == (settings.dim(10),) == (64 + 3 * 3 * 4 * 9,)
    np.testing.assert_allclose(found[:64], colours(one[None], (8, 2, 4))[0], atol=1e-7)
    expected = hog(np.sqrt(one / 255), 9, (8, 8), (2, 2), channel_axis=-1)
    np.testing.assert_allclose(found[64:], expected, atol=1e-5)
    twice = np.repeat(np.repeat(one, 2, axis=0), 2, axis=1)
    np.testing.assert_allclose(encoded(encoder, [twice])[0], found, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_any_size(channels: int) -> None:
    sizes = [(1, 1), (1, 300), (7, 5), (28, 28), (500, 333)]
    found = encoded(HogEncoder(HogSettings(), {}), [pictures(1, *size, channels)[0] for size in sizes] * 30)
    assert found.shape == (150, 388)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[:5], found[145:], err_msg="batches of 64 change nothing")


def test_a_block_must_fit() -> None:
    with pytest.raises(ValueError, match="no room for a block of 3 x 3 cells of 16 pixels"):
        HogSettings(size=40, block=3)
