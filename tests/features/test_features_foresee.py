import subprocess
import sys
from pathlib import Path

import pytest

from mmcore.config import RunConfig
from mmcore.errors import DamagedError
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


def move(work: Work, old: str, new: str, rows: int = 2) -> None:
    """Move the first rows of one split to another."""
    lines = read_manifest(work.folder)
    for line in [line for line in lines if line["split"] == old][:rows]:
        line["split"] = new
    write_manifest(work.folder, lines)


LEAK = ("compute", "rows it learned from are now in val or test")


@pytest.mark.parametrize(
    ("old", "new", "stays"),
    [
        ("train", "test", False),
        ("train", "val", False),
        ("val", "test", False),
        ("val", "train", True),
        ("test", "train", True),
        ("test", "val", True),
    ],
)
def test_an_encoder_that_learned_from_what_it_is_tested_on_is_not_kept(
    work: Work, old: str, new: str, stays: bool
) -> None:
    config = work.config("text", refit="never")
    _, entry = work.encode(config)
    move(work, old, new)
    work.prepare(config)
    assert encoder_step(work, config) == (("reuse", "kept (refit: never)") if stays else LEAK)
    assert (work.encode(config)[1] == entry) == stays


def test_whether_an_encoder_is_kept_is_unknown_before_val_and_test_are_made(work: Work) -> None:
    config = work.config("text", refit="never")
    work.encode(config)
    move(work, "val", "test")
    foreseen, steps = work.foresee(config)
    assert foreseen is None
    assert (steps[0].action, steps[0].reason) == ("compute", "follows from shards that are not made yet")
    assert steps[0].digest is None


def test_an_encoder_that_lost_its_keys_is_not_kept(work: Work) -> None:
    config = work.config("text", refit="never")
    _, entry = work.encode(config)
    file = Path(work.store.url(work.store.read_json(f"encoders/{entry.digest}/receipt.json")["keys"]["train"]["path"]))
    move(work, "test", "train")
    work.prepare(config)
    packed = file.read_bytes()
    file.write_bytes(packed[::-1])
    with pytest.raises(DamagedError, match="not the file that its receipt names"):
        work.foresee(config)
    file.unlink()
    assert encoder_step(work, config)[0] == "compute"


def test_an_encoder_of_another_data_set_is_not_kept(work: Work) -> None:
    config = work.config("text", refit="never")
    _, entry = work.encode(config)
    for path in (work.folder / "text").iterdir():
        path.write_text(path.read_text().replace("number", "count"))
    lines = [{**line, "id": f"other-{line['id']}"} for line in read_manifest(work.folder)]
    write_manifest(work.folder, lines)
    work.prepare(config)
    assert encoder_step(work, config) == ("compute", "text of train changed; text of val changed")
    assert work.encode(config)[1].digest != entry.digest


def test_an_encoder_of_another_modality_is_not_kept(work: Work) -> None:
    config = work.config("text", refit="never")
    _, entry = work.encode(config)
    values = config.model_dump()
    for section in (values["data"]["modalities"], values["features"]):
        section["words"] = section.pop("text")
    values["features"] = {name: values["features"][name] for name in ("words", "beside")}
    other = RunConfig.model_validate(values)
    _, words = work.encode(other)
    assert (words.modality, words.digest != entry.digest) == ("words", True)
    assert encoder_step(work, config) == ("reuse", "trained here already")


def test_another_device_trains_another_encoder(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    image, text = work.config("image"), work.config("text")
    work.encode(image)
    work.encode(text)
    monkeypatch.setattr("mmcore.features.foresee.device_of", lambda compute: "cuda")
    assert encoder_step(work, image) == ("compute", "device changed: cpu -> cuda")
    assert encoder_step(work, text) == ("reuse", "trained here already")
