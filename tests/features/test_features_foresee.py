import subprocess
import sys
from pathlib import Path

import pytest

from mmcore.config import RunConfig
from tests.features.conftest import Work, read_manifest, write_data, write_manifest


def encoder_step(work: Work, config: RunConfig) -> tuple[str, str]:
    step = work.foresee(config)[1][0]
    return step.action, step.reason


def test_before_anything_is_made(work: Work) -> None:
    entry, steps = work.foresee(work.config("text"))
    assert entry is None
    assert {step.action for step in steps} == {"compute"}
    assert steps[0].reason == "new"
    assert steps[0].digest is None
    assert steps[0].samples > 20


def test_the_digest_is_known_before_training(work: Work) -> None:
    config = work.config("text")
    work.prepare(config)
    foreseen, steps = work.foresee(config)
    assert foreseen is not None
    assert steps[0].digest == foreseen.digest
    assert {step.reason for step in steps[1:]} == {"the text encoder is trained first"}
    _, entry = work.encode(config)
    assert entry == foreseen
    assert encoder_step(work, config) == ("reuse", "trained here already")


def test_reasons(work: Work) -> None:
    config = work.config("image")
    work.encode(config)
    assert encoder_step(work, work.config("image", epochs=2)) == ("compute", "settings changed: epochs 3 -> 2")
    changed = work.config("image", epochs=2, seed=1)
    assert set(encoder_step(work, changed)[1].split("; ")) == {
        "settings changed: epochs 3 -> 2",
        "settings changed: seed 0 -> 1",
    }
    threads = config.model_copy(update={"compute": config.compute.model_copy(update={"threads": 2})})
    assert encoder_step(work, threads) == ("compute", "compute.threads changed: 1 -> 2")


def test_edited_training_file(work: Work) -> None:
    config = work.config("text")
    work.encode(config)
    edited = next(row for row in read_manifest(work.folder) if row["split"] == "train" and row["text"])
    (work.folder / edited["text"]).write_text("quite another text, high")
    assert encoder_step(work, config) == ("compute", "follows from shards that are not made yet")
    work.prepare(config)
    assert encoder_step(work, config) == ("compute", "text of train changed")


def test_corrected_label(work: Work) -> None:
    config = work.config("text")
    dataset, _ = work.encode(config)
    lines = read_manifest(work.folder)
    for split, expected in (("test", "trained here already"), ("train", "labels changed")):
        line = next(row for row in lines if row["split"] == split)
        line["label"] = "low" if line["label"] == "high" else "high"
        write_manifest(work.folder, lines)
        again = work.prepare(config)
        assert [s.views for s in again.shards] == [s.views for s in dataset.shards]
        assert encoder_step(work, config)[1] == expected


@pytest.mark.parametrize(("refit", "stays"), [("always", False), ("never", True), ("20%", True), ("5%", False)])
def test_refit(work: Work, refit: str, stays: bool) -> None:
    first = work.config("text", refit="always")
    _, entry = work.encode(first)
    kept = read_manifest(work.folder)
    write_data(work.folder, 66)
    grown = read_manifest(work.folder)
    assert len(grown) == len(kept) + 6
    config = work.config("text", refit=refit)
    work.prepare(config)
    action, reason = encoder_step(work, config)
    assert action == ("reuse" if stays else "compute")
    if stays:
        assert f"(refit: {refit})" in reason
        dataset, same = work.encode(config)
        assert same == entry
        assert {step.action for step in work.foresee(config)[1]} == {"reuse"}
        assert sum(shard.samples for shard in dataset.shards) == 66
    else:
        assert work.encode(config)[1].digest != entry.digest


def test_refit_is_no_part_of_the_recipe(work: Work) -> None:
    _, entry = work.encode(work.config("text", refit="always"))
    assert work.foresee(work.config("text", refit="10%"))[0] == entry


def test_foreseeing_is_cheap(work: Work, tmp_path: Path) -> None:
    code = """
import sys
import mmcore.features.extract, mmcore.features.store
print([name for name in ("torch", "sklearn", "scipy", "dask", "distributed", "prefect") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
