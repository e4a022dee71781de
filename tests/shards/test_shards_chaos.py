"""Killing a run at random moments: what is there afterwards is finished, and the end is the same."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from mmcore.parallel import Pool
from mmcore.progress import Silent
from mmcore.shards.prepare import prepare
from mmcore.storage import Store

from .conftest import Bench, files_of

SCRIPT = """
import sys
from mmcore.config import RunConfig
from mmcore.parallel import serial_pool
from mmcore.progress import Silent
from mmcore.shards.prepare import prepare
from mmcore.storage import Store
config = RunConfig.model_validate_json(sys.argv[1])
print("ready", flush=True)
prepare(config, Store(sys.argv[2]).open(), serial_pool(config.compute), Silent())
"""


@pytest.mark.chaos
def test_killed_runs_end_in_the_same_bytes(bench: Bench, serial: Pool) -> None:
    config = bench.write()
    prepare(config, bench.store, serial, Silent())
    whole = files_of(bench.store)
    rng = random.Random(0)
    for trial in range(5):
        other = Store(bench.folder / f"killed-{trial}")
        for _ in range(4):
            command = [sys.executable, "-c", SCRIPT, config.model_dump_json(), other.root]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as run:
                assert run.stdout is not None
                run.stdout.readline()
                try:
                    run.wait(rng.uniform(0, 0.15))
                except subprocess.TimeoutExpired:
                    run.kill()
        prepare(config, other.open(), serial, Silent())
        left = {name: data for name, data in files_of(other).items() if not name.startswith("tmp/")}
        assert left == whole
        assert Path(other.root, "format.json").exists()
