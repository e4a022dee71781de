"""A disk that fills up ends the run with a sentence; with more space the same command ends in the same bytes."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmcore.config import RunConfig, load
from mmcore.errors import NoSpaceError
from mmcore.storage import Store
from tests.flows.conftest import Server, mmcore
from tests.flows.test_incremental import run_stages

SETTINGS = [
    "shards.samples=64",
    "features.image.epochs=1",
    "features.audio.epochs=1",
    "features.text.folds=2",
    "fusion.methods=[concat]",
    "compute.dask.workers=2",
    "compute.device=cpu",
]
STEPS = 12
"""How often the disk grows until all fits."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, too small until it is mounted again with another size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting is not permitted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def resize(folder: Path, kib: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kib}k", folder], check=True)


def objects(output: Path) -> dict[str, str]:
    """The SHA-256 of every file that must be the same whatever happened on the way."""
    return {
        str(file.relative_to(output)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in output.rglob("*")
        if file.is_file() and file.relative_to(output).parts[0] not in ("runs", "tmp") and file.name != "costs.json"
    }


def config_for(sample: Path, output: Path) -> RunConfig:
    """The same run with all work in this process."""
    return load(sample / "pipeline.yaml", [*SETTINGS, "compute.dask.workers=0", f"output={output}"])


@pytest.fixture(scope="module")
def whole(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that never lacks space."""
    output = tmp_path_factory.mktemp("whole") / "output"
    run_stages(config_for(sample, output), Store(output))
    return output


def kib(output: Path, *folders: str) -> int:
    """What these folders take on a disk of 4 KiB blocks."""
    files = (file for name in folders for file in (output / name).rglob("*") if file.is_file())
    return sum(-(-file.stat().st_size // 4096) * 4 for file in files)


def whole_so_far(output: Path, expected: dict[str, str]) -> None:
    """What was published is what it should be, as far as it goes; a training may have left its state."""
    found = {path: sha256 for path, sha256 in objects(output).items() if "checkpoint" not in path}
    assert found == {path: expected.get(path) for path in found}


@pytest.mark.timeout(300)
def test_the_run_says_so_and_goes_on(server: Server, sample: Path, whole: Path, small_disk: Path) -> None:
    output = small_disk / "output"
    command = ["run", sample / "pipeline.yaml", f"output={output}", *SETTINGS]
    expected = objects(whole)
    shards, encoders = kib(whole, "shards", "quarantine", "datasets", "quality"), kib(whole, "encoders")
    # The first falls into prepare, the second into extract.
    for size, stage in ((shards // 2, "prepare"), (shards + encoders // 2, "extract")):
        resize(small_disk, size)
        full = mmcore(*command, env=server.env)
        assert full.returncode == 1, full.stdout + full.stderr
        assert full.stderr == (
            f"Failed: output: no space left below {output}. What was finished is kept: free some space and run the "
            "same command again.\n"
        )
        assert any(output.glob("datasets/*")) == (stage == "extract")
        whole_so_far(output, expected)
    resize(small_disk, 200_000)
    done = mmcore(*command, env=server.env)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert objects(output) == expected
    states = [json.loads(file.read_text())["state"] for file in output.glob("runs/*/run.json")]
    assert "finished" in states


@pytest.mark.timeout(300)
def test_wherever_the_space_ends(sample: Path, whole: Path, small_disk: Path) -> None:
    """The stages by themselves, on a disk that grows by a little each time."""
    output, expected, full = small_disk / "output", objects(whole), kib(whole, ".")
    config, failed_with = config_for(sample, output), set[str]()
    # What train and evaluate add is small.
    for size in [4, *(full * step // STEPS for step in range(1, STEPS)), full - 120, full - 60, full - 12]:
        resize(small_disk, size)
        with pytest.raises(NoSpaceError, match="free some space and run the same command again"):
            run_stages(config, Store(output))
        whole_so_far(output, expected)
        failed_with.add(", ".join(sorted({path.split("/")[0] for path in objects(output)})))
        assert not list(output.glob("tmp/*"))
    assert len(failed_with) >= 5, failed_with
    resize(small_disk, 200_000)
    run_stages(config, Store(output))
    assert objects(output) == expected
