"""The examples of docs/features.md, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmcore.features import open_features
from mmcore.features.export import export_features
from tests.features.conftest import Work
from tests.features.test_reading import publish_run

TEXT = (Path(__file__).resolve().parent.parent.parent / "docs" / "features.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT.partition("## Reading features")[2], re.DOTALL)


@pytest.fixture
def output(work: Work, monkeypatch: pytest.MonkeyPatch) -> Path:
    dataset, entry = work.encode(work.config("image"))
    publish_run(work.store, "digits-1", dataset, [entry])
    folder = Path(work.store.root).parent
    features = open_features(work.store)
    export_features([features], folder / "exported", "parquet", float32=True)
    export_features([features], folder / "arrays", "npy")
    monkeypatch.chdir(folder)
    return folder


def test_the_examples_run(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(BLOCKS) == 7
    names: dict[str, Any] = {"np": np}
    for block in BLOCKS:
        exec(compile(block, "docs/features.md", "exec"), names)
    features, vectors = names["features"], names["vectors"]
    assert "image by cnn: 60 x 2 float32" in capsys.readouterr().out
    assert vectors.shape == (60, 2)
    np.testing.assert_array_equal(names["some"], vectors[[17, 3, 3]])
    np.testing.assert_array_equal(names["tensor"].numpy(), vectors[[17, 3]])
    assert not names["one_shard"].flags.owndata
    assert len(names["batch"]) == len(names["inputs"]) == len(names["train"]) == 36
    assert names["frame"]["key"].tolist() == names["table"]["key"].to_list() == features.keys
    np.testing.assert_array_equal(np.stack(names["frame"]["vector"]), vectors)
    np.testing.assert_array_equal(names["matrix"], vectors)
    sums = dict(zip(features.keys, vectors.sum(axis=1).tolist(), strict=True))
    assert [key for key, _ in names["found"]] == sorted(sums)
    np.testing.assert_allclose([total for _, total in names["found"]], [sums[key] for key in sorted(sums)], atol=1e-6)
    assert names["exported"] == [("high", 30), ("low", 30)]
    np.testing.assert_array_equal(np.stack(names["again"]["vector"]), vectors)
    np.testing.assert_array_equal(names["array"], vectors)
