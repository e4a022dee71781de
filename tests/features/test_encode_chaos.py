"""Encoding that is killed at random moments ends in the bytes of one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.features.conftest import Work, write_data

KILLS = 10
EXTRACT = """
import sys
from mmcore.config import RunConfig
from mmcore.features.extract import encode_modality
from mmcore.parallel import open_pool
from mmcore.progress import Silent
from mmcore.shards.read import read_dataset
from mmcore.storage import Store
import mmcore.features.encode, mmcore.features.encoders.cnn
config = RunConfig.model_validate_json(open(sys.argv[1]).read())
store = Store(config.output).open()
dataset = read_dataset(store, sys.argv[2])
with open_pool(config.compute) as pool:
    print("at work", flush=True)
    encode_modality(config, dataset, next(iter(config.features)), store, pool, Silent())
"""


@pytest.mark.chaos
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_ten_times(work: Work, tmp_path: Path, workers: int) -> None:
    write_data(work.folder, 800)
    config = work.config("image")
    whole, _ = work.encode(config)
    before = work.files("encoders", "features")
    encoders = {name: data for name, data in before.items() if name.startswith("encoders")}
    work.store.remove("features")
    dask = config.compute.dask.model_copy(update={"workers": workers})
    config = config.model_copy(update={"compute": config.compute.model_copy(update={"dask": dask})})
    (tmp_path / "config.json").write_text(config.model_dump_json())
    chance, kills, found = random.Random(workers), 0, set()
    command = [sys.executable, "-W", "ignore", "-c", EXTRACT, str(tmp_path / "config.json"), whole.digest]
    while kills < KILLS:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, start_new_session=True, cwd=Path(__file__).parents[2]
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"at work\n"
            time.sleep(chance.uniform(0, 0.4 if workers == 0 else 2.5))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
        views = {name for name in work.files("features") if name.endswith(".json")}
        assert views >= found, "what was finished is kept"
        found = views
        if len(views) == len(whole.shards) and kills < KILLS:
            # All was done before the tenth kill: begin again.
            work.store.remove("features")
            found = set()
    subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[2])
    after = work.files("encoders", "features")
    assert after == before
    assert {name: after[name] for name in encoders} == encoders
