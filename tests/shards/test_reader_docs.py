"""The examples of docs/reading.md, run as they stand."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest
import webdataset

from mmcore.parallel import Pool
from mmcore.shards.prepare import prepare
from mmcore.storage import Store
from tests.shards.conftest import Bench, Tally

TEXT = (Path(__file__).resolve().parent.parent.parent / "docs" / "reading.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def output(bench: Bench, serial: Pool, tally: Tally, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    dataset = prepare(bench.write(), bench.store, serial, tally)
    record = {"run_id": "r-1", "name": "r", "started": "2026-01-01", "dataset": dataset.digest}
    bench.store.publish_json("runs/r-1/run.json", record)
    system = fsspec.filesystem("memory")
    for file in (tmp_path / "output").rglob("*.*"):
        system.pipe_file(f"memory://bucket/{file.relative_to(tmp_path)}", file.read_bytes())
    (tmp_path / "pairs").mkdir()
    for file in (dataset.shards[0].tar, dataset.shards[0].index):
        assert file is not None
        ending = file.path.rpartition(".")[2]
        shutil.copy(bench.store.url(file.path), tmp_path / "pairs" / f"000000.{ending}")
    (tmp_path / "tars").mkdir()
    with webdataset.TarWriter(str(tmp_path / "tars" / "train-0.tar")) as writer:
        writer.write({"__key__": "a", "txt": "text"})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_examples_run(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(BLOCKS) == 6
    names: dict[str, Any] = {}
    for block in BLOCKS:
        if not block.startswith("# train.py"):
            exec(compile(block, "docs/reading.md", "exec"), names)
    assert "36 ('note', 'word')" in capsys.readouterr().out
    assert len(names["foreign"]) == 1
    before = {sample["__key__"] for batch in names["first"] for sample in batch}
    assert len(names["rest"]) == len(set(names["rest"]))
    # The other of the two ranks took as many batches, two of them smaller by one.
    assert len(before) + len(names["rest"]) + 10 == 36
    assert len(names["pairs"].read([0])) == 1
    assert len(names["shards"]) == 60
    assert Store("memory://bucket/output").exists("format.json")


@pytest.mark.slow
def test_the_script_for_several_ranks(output: Path) -> None:
    (script,) = (block for block in BLOCKS if block.startswith("# train.py"))
    (output / "train.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"]
    done = subprocess.run(command, cwd=output, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    # 36 samples in steps of 16: three steps of twelve.
    assert sorted(done.stdout.split("\n"))[-2:] == [f"{rank} [6, 6, 6, 6, 6, 6]" for rank in range(2)]
