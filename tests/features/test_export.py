"""Features written for other tools, and summed up."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import parquet

from mmcore.errors import ConfigError, DamagedError
from mmcore.features import export as exporting
from mmcore.features import open_features
from mmcore.features.export import export_features
from mmcore.features.reading import Features
from mmcore.features.summary import neighbours, summarise
from tests.features.conftest import Work
from tests.features.test_reading import publish_run


@pytest.fixture
def features(work: Work, monkeypatch: pytest.MonkeyPatch) -> Features:
    monkeypatch.setattr(exporting, "ROWS_AT_ONCE", 7)
    dataset, entry = work.encode(work.config("text", dtype="float16"))
    publish_run(work.store, "digits-1", dataset, [entry])
    return open_features(work.store)


@pytest.mark.parametrize(("float32", "kind"), [(False, pa.float16()), (True, pa.float32())])
def test_parquet(features: Features, tmp_path: Path, float32: bool, kind: pa.DataType) -> None:
    done: list[int] = []
    files = export_features([features], tmp_path / "new", "parquet", float32=float32, advance=done.append)
    assert files == [tmp_path / "new" / "text.parquet"]
    assert sum(done) == 60
    table = parquet.ParquetFile(files[0]).read(use_threads=False)
    assert table.schema.field("vector").type == pa.list_(kind)
    assert table["key"].to_pylist() == features.keys
    assert table["label"].to_pylist() == features.labels
    assert table["split"].to_pylist() == features.splits.tolist()
    for row, vector in enumerate(table["vector"].to_pylist()):
        if not features.present[row]:
            assert vector is None
        else:
            assert vector == features[row].tolist()
    if float32:
        assert pl.read_parquet(files[0])["vector"].null_count() == 5


def test_npy(features: Features, tmp_path: Path) -> None:
    files = export_features([features.of(slice(10, 40))], tmp_path / "new", "npy")
    assert [file.name for file in files] == ["text.csv", "text.npy"]
    np.testing.assert_array_equal(np.load(files[1]), features[10:40])
    assert np.load(files[1]).dtype == np.float16
    with files[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == features.keys[10:40]
    assert [row["label"] for row in rows] == features.labels[10:40]
    assert [row["split"] for row in rows] == features.splits[10:40].tolist()


def test_nothing_is_overwritten_unasked(features: Features, tmp_path: Path) -> None:
    target = tmp_path / "new"
    (file,) = export_features([features.of([0])], target, "parquet")
    (target / "notes.txt").write_text("mine")
    before = file.read_bytes()
    with pytest.raises(ConfigError, match="is not empty. Name a new folder, or replace what is in it with --force"):
        export_features([features], target, "parquet")
    assert file.read_bytes() == before
    export_features([features], target, "parquet", force=True)
    assert len(parquet.ParquetFile(file).read(use_threads=False)) == 60
    assert (target / "notes.txt").read_text() == "mine"
    with pytest.raises(ConfigError, match="cannot be written"):
        export_features([features], file / "below", "parquet")
    with pytest.raises(ConfigError, match="is there already"):
        export_features([features], file, "parquet", force=True)


def test_an_export_that_fails_leaves_nothing(features: Features, work: Work, tmp_path: Path) -> None:
    path = Path(features.files[-1])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedError, match="missing or cut off"):
        export_features([features], tmp_path / "deep" / "new", "parquet")
    assert list((tmp_path / "deep").iterdir()) == []


def test_summaries_and_neighbours_are_brute_forces(features: Features) -> None:
    values, there = features[:].astype(np.float64), features.present
    found = summarise(features)
    assert (found.rows, found.present, found.dead) == (60, 55, 0)
    np.testing.assert_allclose(found.mean_norm, np.linalg.norm(values[there], axis=1).mean())
    row = int(np.flatnonzero(there)[3])
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    cosines = unit @ unit[row]
    cosines[row] = np.nan
    near = neighbours(features, row, 4)
    np.testing.assert_allclose([one.cosine for one in near], np.sort(cosines[~np.isnan(cosines)])[::-1][:4], atol=1e-5)
    np.testing.assert_allclose([cosines[one.row] for one in near], [one.cosine for one in near], atol=1e-5)
    absent = features.of(~there)
    assert np.isnan(summarise(absent).mean_norm)
    assert neighbours(absent, 0) == []
