"""Rows' source bytes, of every kind of reference, and shards that are cut by them."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pyarrow import parquet

from mmcore.config.data import ShardsConfig
from mmcore.shards.plan import plan_shards
from mmcore.shards.sizes import row_bytes
from mmcore.sources.web import FINGERPRINT

from .conftest import Bench


def test_each_kind_of_reference_has_its_size() -> None:
    media = {
        "file": {"files": ["a", None, "gone", "b"], "fingerprints": ["100:7", None, None, "20:etag"]},
        "several": {
            "files": [["list", "a", "b"], None, None, ["list", ["web", "http://a/b"], "a"]],
            "fingerprints": [["100:7", "20:etag"], None, None, [FINGERPRINT, "100:7"]],
        },
        "packed": {"files": [["tar", "t", 512, 33], None, None, None], "fingerprints": ["9999:1", None, None, None]},
        "table": {
            "files": [["table", "t.parquet", row, "image"] if row else None for row in range(4)],
            "fingerprints": [None, "3000:1", "3000:1", "3000:1"],
        },
        "text": {"texts": ["äbc", None, "", "x"]},
    }
    assert row_bytes(media, [0, 0, 0, 0]) == [100 + 120 + 33 + 4, 1000, 1000, 20 + 100 + 1000 + 1]


@pytest.mark.parametrize("fingerprint", ["stat", "sha256"])
def test_a_plan_ends_shards_by_rows_or_by_bytes(bench: Bench, fingerprint: str) -> None:
    for number, row in enumerate(bench.rows.values()):
        row[1], row[2] = "train", "x" * (5_000 if number < 30 else 10)
    list(bench.rows.values())[-1][1], list(bench.rows.values())[-2][1] = "test", "val"
    bench.settings["fingerprint"] = fingerprint
    config = bench.write()
    shards = ShardsConfig(samples=8, bytes=10_000)
    plan = plan_shards(config.model_copy(update={"shards": shards}), bench.store)
    assert sorted(key for recipe in plan.recipes for key in recipe.body["keys"]) == sorted(bench.rows)
    of_train = [recipe.body["keys"] for recipe in plan.recipes if recipe.split == "train"]
    large, small = ([keys for keys in of_train if (keys[0] < "k0030") is first] for first in (True, False))
    assert all(len(keys) <= 8 for keys in large[:-1])
    assert 1 <= sum(map(len, large)) / len(large) <= 4
    assert all(4 <= len(keys) <= 32 for keys in small[:-1])
    by_rows = plan_shards(config.model_copy(update={"shards": ShardsConfig(samples=8, bytes=10**9)}), bench.store)
    rows = [recipe.rows for recipe in by_rows.recipes if recipe.split == "train"]
    assert all(4 <= count <= 32 for count in rows[:-1])


def test_cells_of_a_table_are_cut_by_their_share_of_its_file(bench: Bench) -> None:
    bench.write()
    table = pa.table(
        {
            "id": list(bench.rows),
            "label": [row[0] for row in bench.rows.values()],
            "split": [row[1] for row in bench.rows.values()],
            "word": [row[2].encode() * 200 for row in bench.rows.values()],
        }
    )
    parquet.write_table(table, bench.folder / "rows.parquet", compression="none", use_dictionary=False)
    size = (bench.folder / "rows.parquet").stat().st_size
    bench.settings |= {
        "manifest": str(bench.folder / "rows.parquet"),
        "modalities": {"word": {"kind": "text", "column": "word"}},
    }
    config = bench.write().model_copy(update={"shards": ShardsConfig(samples=1_000, bytes=size // 20)})
    rows = [recipe.rows for recipe in plan_shards(config, bench.store).recipes]
    assert sum(rows) == 60
    assert 2 <= sum(rows) / len(rows) <= 5
