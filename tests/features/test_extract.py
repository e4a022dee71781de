import json
import os
import signal
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mmcore.errors import DamagedError, DataError, StageError, TooManyRejectsError
from mmcore.features.encoders.base import WHOLE, Encoded
from mmcore.features.encoders.cnn import CnnEncoder
from mmcore.features.encoders.ngram import NgramEncoder
from mmcore.features.extract import encode_modality
from mmcore.features.store import read_view
from mmcore.parallel import open_pool
from mmcore.progress import Silent
from mmcore.records import Dataset, EncoderEntry
from mmcore.training.checkpoint import StoreCheckpoints
from tests.features.conftest import Work, read_manifest, write_manifest


def vectors(
    work: Work, dataset: Dataset, entry: EncoderEntry, *splits: str
) -> tuple[list[str], np.ndarray, np.ndarray]:
    views = [read_view(work.store, entry, str(shard.views[entry.modality])) for shard in dataset.of(*splits)]
    keys = [key for found in views for key in found.keys]
    return keys, np.concatenate([v.vectors for v in views]), np.concatenate([v.present for v in views])


@pytest.mark.parametrize(
    ("modality", "missing"), [("image", ()), ("audio", (7, 17, 27, 37, 47, 57)), ("text", (7, 18, 29, 40, 51))]
)
def test_every_sample_gets_its_vector(work: Work, modality: str, missing: tuple[int, ...]) -> None:
    config = work.config(modality)
    dataset, entry = work.encode(config)
    keys, values, present = vectors(work, dataset, entry, "train", "val", "test")
    assert sorted(keys) == [f"k{n:03d}" for n in range(60)]
    assert {key for key, there in zip(keys, present, strict=True) if not there} == {f"k{n:03d}" for n in missing}
    assert values.shape[1] == entry.dim == config.features[modality].dim(2)
    assert np.isfinite(values[present]).all()
    assert np.abs(values[present][:, :2].sum(axis=1)).max() < 1e-4, "scores are centred"


@pytest.mark.parametrize("modality", ["image", "audio", "text"])
def test_the_encoder_learns(work: Work, modality: str) -> None:
    dataset, entry = work.encode(work.config(modality, **({} if modality == "text" else {"epochs": 12, "width": 4})))
    keys, values, present = vectors(work, dataset, entry, "test")
    wanted = np.array([int(key[1:]) % 2 for key in keys])
    assert (values[:, :2].argmax(axis=1) == wanted)[present].mean() > 0.9
    receipt = work.store.read_json(f"encoders/{entry.digest}/receipt.json")
    assert receipt["scores"]["val"]["accuracy"] > 0.9
    assert receipt["samples"]["train"] == sum(shard.present[modality] for shard in dataset.of("train"))
    if modality != "text":
        assert len(receipt["curves"]["val_loss"]) == len(receipt["curves"]["train_loss"]) <= 12


def test_a_second_run_computes_nothing(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    config = work.config("image")
    work.encode(config)
    before = work.files("encoders", "features")
    for name in ("fit", "encode"):
        monkeypatch.setattr(CnnEncoder, name, None)
    work.encode(config)
    assert work.files("encoders", "features") == before
    assert {step.action for step in work.foresee(config)[1]} == {"reuse"}


ELSEWHERE = """
import json, sys
from mmcore.config import RunConfig
from mmcore.features.extract import encode_modality
from mmcore.parallel import serial_pool
from mmcore.progress import Silent
from mmcore.shards.prepare import prepare
from mmcore.storage import Store
for file in sys.argv[1:]:
    config = RunConfig.model_validate_json(open(file).read())
    store, pool = Store(config.output).open(), serial_pool(config.compute)
    dataset = prepare(config, store, pool, Silent())
    encode_modality(config, dataset, next(iter(config.features)), store, pool, Silent())
print(json.dumps([name for name in ("torch", "dask", "distributed") if name in sys.modules]))
"""


@pytest.mark.parametrize(("modalities", "loaded"), [(("image", "audio"), ["torch"]), (("text",), [])])
def test_another_process_makes_the_same_bytes(
    work: Work, modalities: tuple[str, ...], loaded: list[str], tmp_path: Path
) -> None:
    for modality in modalities:
        config = work.config(modality)
        work.encode(config)
        other = config.model_copy(update={"output": str(tmp_path / "other")})
        (tmp_path / f"{modality}.json").write_text(other.model_dump_json())
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            ELSEWHERE,
            *(str(tmp_path / f"{modality}.json") for modality in modalities),
        ],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert json.loads(done.stdout) == loaded, "text needs no torch, and nothing here needs dask"
    root = tmp_path / "other"
    found = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    made = work.files("encoders", "features")
    assert made == {name: data for name, data in found.items() if name.startswith(("encoders", "features"))}
    assert len(made) > 10


def test_dask_makes_the_same_bytes(work: Work, tmp_path: Path) -> None:
    config = work.config("image")
    work.encode(config)
    before = work.files("encoders", "features")
    for name in ("encoders", "features"):
        work.store.remove(name)
    told: list[float] = []

    class Told(Silent):
        def advance(self, units: float = 1, *, samples: int = 0, rejected: int = 0, note: str = "") -> None:
            told.append(units)

    compute = config.compute.model_copy(update={"dask": config.compute.dask.model_copy(update={"workers": 2})})
    dataset = work.prepare(config)
    with open_pool(compute) as pool:
        encode_modality(config, dataset, "image", work.store, pool, Told())
    assert work.files("encoders", "features") == before
    assert sum(told) == pytest.approx(1 + len({shard.views["image"] for shard in dataset.shards}))


def test_an_edited_test_text_redoes_its_view_alone(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    config = work.config("text")
    dataset, entry = work.encode(config)
    before = work.files("encoders", "features")
    edited = next(row for row in read_manifest(work.folder) if row["split"] == "test" and row["text"])
    (work.folder / edited["text"]).write_text("quite another low text")
    monkeypatch.setattr(NgramEncoder, "fit", None)
    again, same = work.encode(config)
    assert same == entry
    after = work.files("encoders", "features")
    assert {name: after.get(name) for name in before} == before
    new = {str(s.views["text"]) for s in again.shards} - {str(s.views["text"]) for s in dataset.shards}
    assert len(new) == 1
    assert set(after) - set(before) == {
        f"features/{entry.digest}/{view}.{kind}" for view in new for kind in ("arrow", "json")
    }


def test_lost_and_damaged_views_are_made_again(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    config = work.config("image")
    dataset, entry = work.encode(config)
    before = work.files("encoders", "features")
    first, second = (str(shard.views["image"]) for shard in dataset.shards[:2])
    work.store.remove(f"features/{entry.digest}/{first}.arrow")
    Path(work.store.url(f"features/{entry.digest}/{second}.arrow")).write_bytes(b"cut")
    reasons = [step.reason for step in work.foresee(config)[1] if step.action == "compute"]
    assert reasons == ["file missing or truncated"] * 2
    monkeypatch.setattr(CnnEncoder, "fit", None)
    work.encode(config)
    assert work.files("encoders", "features") == before


def test_held_out_scores_are_made_again_where_the_shard_is_in_test(work: Work) -> None:
    config = work.config("text")
    dataset, entry = work.encode(config)
    before = work.files("encoders", "features")
    receipts = {
        shard.split: work.store.read_json(f"features/{entry.digest}/{shard.views['text']}.json")
        for shard in dataset.shards
    }
    assert {split: receipt["held_out"] for split, receipt in receipts.items()} == {
        "train": True,
        "val": False,
        "test": False,
    }
    view = dataset.of("test")[-1].views["text"]
    work.store.publish_json(f"features/{entry.digest}/{view}.json", receipts["test"] | {"held_out": True})
    steps = [step for step in work.foresee(config)[1] if step.action == "compute"]
    assert [(step.digest, step.reason) for step in steps] == [(view, "made for another split")]
    work.encode(config)
    assert work.files("encoders", "features") == before


def test_lost_weights_are_learned_again_and_their_views_stand(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    config = work.config("image")
    _, entry = work.encode(config)
    before = work.files("encoders", "features")
    receipt = work.store.read_json(f"encoders/{entry.digest}/receipt.json")
    work.store.remove(receipt["files"][0]["path"])
    assert work.foresee(config)[1][0].reason == "file missing or truncated"
    monkeypatch.setattr(CnnEncoder, "encode", None)
    work.encode(config)
    assert work.files("encoders", "features") == before


def test_weights_of_other_bytes_are_refused(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    config = work.config("image")
    dataset, entry = work.encode(config)
    receipt = work.store.read_json(f"encoders/{entry.digest}/receipt.json")
    file = Path(work.store.url(receipt["files"][0]["path"]))
    file.write_bytes(b"x" * file.stat().st_size)
    work.store.remove("features")
    monkeypatch.setattr("mmcore.features.opened._open", OrderedDict())
    with pytest.raises(DamagedError, match="not the file that its receipt names"):
        encode_modality(config, dataset, "image", work.store, work.pool, Silent())


class Killed(BaseException):
    pass


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_training_goes_on_where_it_was_and_ends_in_the_same_bytes(
    work: Work, modality: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No time passes, so that every epoch is due.
    monkeypatch.setattr("mmcore.training.keeping.CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr("mmcore.training.keeping.time", SimpleNamespace(monotonic=lambda: 0.0))
    config = work.config(modality, epochs=5)
    work.encode(config)
    whole = work.files("encoders", "features")
    assert not any("checkpoint" in name for name in whole)
    for name in ("encoders", "features"):
        work.store.remove(name)
    save, saved = StoreCheckpoints.save, []

    def save_and_die(self: StoreCheckpoints, data: bytes) -> None:
        save(self, data)
        saved.append(data)
        if len(saved) == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(StoreCheckpoints, "save", save_and_die)
        with pytest.raises(Killed):
            work.encode(config)
    assert [name.rpartition("/")[2] for name in work.files("encoders", "features")] == ["all.safetensors"]
    saved.clear()
    monkeypatch.setattr(StoreCheckpoints, "save", lambda self, data: saved.append(data))
    work.encode(config)
    assert len(saved) == 3, "two of five epochs were not done again"
    assert work.files("encoders", "features") == whole


def test_a_vector_that_is_not_finite_is_set_aside(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = CnnEncoder.encode

    def broken(self, batch, part=WHOLE):
        found = encode(self, batch, part).vectors
        found[2, 1] = np.nan
        return Encoded(found)

    monkeypatch.setattr(CnnEncoder, "encode", broken)
    config = work.config("image")
    lenient = config.model_copy(update={"data": config.data.model_copy(update={"max_rejected": 1.0})})
    dataset, entry = work.encode(lenient)
    keys, _, present = vectors(work, dataset, entry, "train", "val", "test")
    assert len(entry.rejects) == len(dataset.shards), "one in each shard"
    assert {reject.code for reject in entry.rejects} == {"not-finite-vector"}
    assert {key for key, there in zip(keys, present, strict=True) if not there} == {r.key for r in entry.rejects}
    assert work.encode(lenient)[1] == entry, "they are told again by a run that computes nothing"
    work.store.remove("features")
    with pytest.raises(TooManyRejectsError, match=r"image: \d+ samples could not be encoded.*not finite"):
        work.encode(config)


def test_what_cannot_be_learned_is_named(work: Work) -> None:
    lines = read_manifest(work.folder)
    for line in lines:
        if line["split"] == "val" or line["label"] == "low":
            line["audio"] = ""
    write_manifest(work.folder, lines)
    config = work.config("audio")
    dataset = work.prepare(config)
    with pytest.raises(DataError) as caught:
        encode_modality(config, dataset, "audio", work.store, work.pool, Silent())
    assert len(caught.value.problems) == 2
    assert "features.audio" in str(caught.value)
    assert "'low'" in str(caught.value)
    assert "no sample of val has audio" in str(caught.value)


def kill_this_process(_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_training_whose_process_dies_is_told_in_words(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    config = work.config("text")
    dataset = work.prepare(config)
    # Dask gets the function by value, so that the worker runs this one.
    monkeypatch.setattr("mmcore.features.extract.fit_encoder", kill_this_process)
    compute = config.compute.model_copy(update={"dask": config.compute.dask.model_copy(update={"workers": 1})})
    with open_pool(compute) as pool, pytest.raises(StageError, match="training the ngram encoder of text: .*died"):
        encode_modality(config, dataset, "text", work.store, pool, Silent())
    assert work.files("encoders", "features") == {}
