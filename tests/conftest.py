"""Fixtures that many tests share: where the real data lie, and an empty store."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from mmcore.storage import Store

# Started in the background by a shell, this process ignores Ctrl-C, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _data(name: str) -> Path:
    here = Path(__file__).resolve().parent.parent
    root = Path(os.environ.get("MMCORE_DATA", here.parent / "shared" / "data"))
    if not (root / name).is_dir():
        pytest.skip(f"no data set {name!r}: set MMCORE_DATA to the folder that holds it")
    return root / name


@pytest.fixture(scope="session")
def digits_dir() -> Path:
    """2,500 samples of image, audio and text with a manifest.csv; see its README."""
    return _data("digits")


@pytest.fixture(scope="session")
def word_cards_dir() -> Path:
    """412 words with picture, sound and definition, and a manifest.jsonl; see its README."""
    return _data("word-cards")


@pytest.fixture(scope="session")
def mfeat_dir() -> Path:
    """Six ready feature sets of 2,000 digits; see its README."""
    return _data("mfeat")


@pytest.fixture(scope="session")
def edge_cases_dir() -> Path:
    """185 damaged, odd and hostile files with cases.csv; see its README."""
    return _data("edge-cases")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty, opened store in a temporary folder."""
    return Store(tmp_path / "output").open()
