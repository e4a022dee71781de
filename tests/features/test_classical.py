"""The classical encoders over real shards: what they need, and what they follow from."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmcore.config import CLASSICAL, RunConfig
from mmcore.errors import DataError
from mmcore.features.store import read_view
from tests.features.conftest import Work, read_manifest, write_manifest
from tests.features.test_extract import ELSEWHERE

MODALITIES = ("image", "audio", "text")


def classical(work: Work, modality: str) -> RunConfig:
    config = work.config(modality)
    return config.model_copy(update={"features": config.features | {modality: CLASSICAL[modality]}})


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_sample_that_has_the_modality_gets_a_vector_that_tells_classes_apart(work: Work, modality: str) -> None:
    config = classical(work, modality)
    dataset, entry = work.encode(config)
    assert (entry.dim, entry.rejects) == (config.features[modality].dim(2), ())
    views = [read_view(work.store, entry, str(shard.views[modality])) for shard in dataset.shards]
    keys = [key for view in views for key in view.keys]
    values, present = (np.concatenate([getattr(view, name) for view in views]) for name in ("vectors", "present"))
    assert present.sum() == sum(shard.present[modality] for shard in dataset.shards) > 50
    assert np.isfinite(values[present]).all()
    labels = np.array([int(key[1:]) % 2 for key in keys])[present]
    near = [values[present][labels == label].mean(axis=0) for label in (0, 1)]
    distances = np.stack([np.linalg.norm(values[present] - centre, axis=1) for centre in near])
    assert (distances.argmin(axis=0) == labels).mean() > 0.9
    assert {step.action for step in work.foresee(config)[1]} == {"reuse"}


def test_another_process_makes_the_same_bytes_without_torch(work: Work, tmp_path: Path) -> None:
    files = []
    for modality in MODALITIES:
        config = classical(work, modality)
        work.encode(config)
        files.append(tmp_path / f"{modality}.json")
        files[-1].write_text(config.model_copy(update={"output": str(tmp_path / "other")}).model_dump_json())
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ELSEWHERE, *map(str, files)],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert json.loads(done.stdout) == [], "neither torch nor dask"
    root = tmp_path / "other"
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    made = work.files("encoders", "features")
    assert made == {name: data for name, data in found.items() if name.startswith(("encoders", "features"))}


def test_tfidf_learns_from_the_texts_of_train_alone(work: Work) -> None:
    config = classical(work, "text")
    _, entry = work.encode(config)
    lines = read_manifest(work.folder)
    held = next(line for line in lines if line["split"] == "val" and line["text"])
    (work.folder / held["text"]).write_text("a text of val that was edited")
    lines[0]["label"], lines[1]["label"] = lines[1]["label"], lines[0]["label"]
    write_manifest(work.folder, lines)
    work.prepare(config)
    foreseen, steps = work.foresee(config)
    assert foreseen == entry
    assert sum(step.action == "compute" for step in steps) == 1, "the view of val"
    (work.folder / next(line["text"] for line in lines if line["split"] == "train")).write_text("another text")
    work.prepare(config)
    foreseen, steps = work.foresee(config)
    assert (steps[0].action, steps[0].reason) == ("compute", "text of train changed")
    assert foreseen.digest != entry.digest
    receipt = work.store.read_json(f"encoders/{entry.digest}/receipt.json")
    assert receipt["recipe"]["classes"] == []
    assert receipt["samples"]["val"] == 0


def test_tfidf_needs_a_text(work: Work) -> None:
    lines = read_manifest(work.folder)
    write_manifest(work.folder, [line | ({"text": ""} if line["split"] == "train" else {}) for line in lines])
    with pytest.raises(DataError, match=r"features\.text: no sample of train has text"):
        work.encode(classical(work, "text"))
