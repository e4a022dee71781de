"""Views to correlate: those that cca-zoo tests itself on, drawn the same way, and views with a shared signal."""

from __future__ import annotations

import numpy as np


def two_views() -> list[np.ndarray]:
    """cca-zoo's `two_views`: unrelated, 50 rows of 10 and 8."""
    random = np.random.default_rng(0)
    return [random.standard_normal((50, 10)), random.standard_normal((50, 8))]


def three_views() -> list[np.ndarray]:
    """cca-zoo's `three_views`: unrelated, 50 rows of 10, 8 and 6."""
    random = np.random.default_rng(0)
    return [random.standard_normal((50, width)) for width in (10, 8, 6)]


def correlated_views() -> list[np.ndarray]:
    """cca-zoo's `correlated_views`: two of 10 and 8 that share two variables, with little noise."""
    random = np.random.default_rng(0)
    shared = random.standard_normal((50, 2))
    return [
        shared @ random.standard_normal((2, width)) + 0.1 * random.standard_normal((50, width)) for width in (10, 8)
    ]


PEER_VIEWS = {"two": two_views, "three": three_views, "correlated": correlated_views}


def related(seed: int, n: int = 60, widths: tuple[int, ...] = (4, 3)) -> dict[str, np.ndarray]:
    """Views a, b, c … of these widths that share two variables."""
    random = np.random.default_rng(seed)
    shared = random.normal(size=(n, 2))
    return {
        name: shared @ random.normal(size=(2, width)) + random.normal(size=(n, width))
        for name, width in zip("abcdef", widths, strict=False)
    }


def named(views: list[np.ndarray]) -> dict[str, np.ndarray]:
    return dict(zip("abcdef", views, strict=False))


def up_to_sign(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> None:
    """Columns are equal within `tolerance`, or each other's negative."""
    assert found.shape == wanted.shape
    signs = np.where((found * wanted).sum(axis=0) < 0, -1.0, 1.0)
    np.testing.assert_allclose(found * signs, wanted, atol=tolerance)
