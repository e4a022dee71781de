"""Encoders trained here, over real shards: held-out scores by group, sequences, and learning without labels."""

import json

import numpy as np
import pytest

from mmcore.config import RunConfig
from mmcore.errors import DataError
from mmcore.features.extract import encode_modality
from mmcore.features.store import read_view
from mmcore.progress import Silent
from tests.features.conftest import Work, read_manifest, write_manifest

SMALL = {"epochs": 2, "hidden": 4, "width": 2, "batch_size": 16}


def grouped(config: RunConfig) -> RunConfig:
    columns = config.data.columns.model_copy(update={"group": "speaker"})
    return config.model_copy(update={"data": config.data.model_copy(update={"columns": columns})})


def test_rows_of_one_speaker_are_held_out_together(work: Work) -> None:
    # Whoever speaks, speaks in one split only.
    lines = read_manifest(work.folder)
    speakers = {line["id"]: f"{line['split']}{n % 4}" for n, line in enumerate(lines)}
    write_manifest(work.folder, [{**line, "speaker": speakers[line["id"]]} for line in lines])
    config = grouped(work.config("image", cross_fit=2))
    dataset, entry = work.encode(config)
    receipt = work.store.read_json(f"encoders/{entry.digest}/receipt.json")
    assert set(receipt["scores"]) == {"train", "val", "train_held_out"}
    assert len(receipt["folds"]) == 2
    # The views of train hold what the receipt counted; those of the other splits are of the network of all rows.
    right: dict[str, list[bool]] = {"train": [], "val": []}
    for split in right:
        for shard in dataset.of(split):
            made = work.store.read_json(f"features/{entry.digest}/{shard.views['image']}.json")
            assert made["held_out"] == (split == "train")
            view = read_view(work.store, entry, str(shard.views["image"]))
            wanted = [int(key[1:]) % 2 for key in view.keys]
            right[split] += (view.vectors.argmax(axis=1) == wanted).tolist()
    assert np.mean(right["train"]) == pytest.approx(receipt["scores"]["train_held_out"]["accuracy"], abs=1e-6)
    assert np.mean(right["val"]) == pytest.approx(receipt["scores"]["val"]["accuracy"], abs=1e-6)
    folds = work.store.read_bytes(next(file["path"] for file in receipt["files"] if file["path"].endswith(".json")))
    assert {name[:-1] for name in json.loads(folds)["groups"]} == {"train"}


@pytest.mark.parametrize("modality", ["image", "text"])
def test_other_groups_make_another_encoder_where_rows_are_held_out(work: Work, modality: str) -> None:
    settings = {"cross_fit": 2} if modality == "image" else {}
    lines = read_manifest(work.folder)
    write_manifest(work.folder, [{**line, "speaker": f"{line['split']}{n % 4}"} for n, line in enumerate(lines)])
    plain, by_speaker = work.config(modality, **settings), grouped(work.config(modality, **settings))
    without, entry = work.encode(plain)[1], work.encode(by_speaker)[1]
    assert entry.digest != without.digest
    assert {step.action for step in work.foresee(by_speaker)[1]} == {"reuse"}
    never = grouped(work.config(modality, **settings, refit="never"))
    work.store.remove(f"encoders/{entry.digest}")
    assert work.encode(never)[1].digest == entry.digest, "folds by key are of no use to groups"
    write_manifest(work.folder, [{**line, "speaker": f"{line['split']}{n % 3}"} for n, line in enumerate(lines)])
    work.prepare(by_speaker)
    step = work.foresee(by_speaker)[1][0]
    assert (step.action, step.reason) == ("compute", "groups changed")


@pytest.mark.parametrize(
    ("modality", "encoder"),
    [("image", "resnet"), ("audio", "logmel-crnn"), ("text", "bigru"), ("text", "text-transformer")],
)
def test_sequences_are_kept(work: Work, modality: str, encoder: str) -> None:
    config = RunConfig.model_validate(
        {
            **work.config(modality).model_dump(mode="json"),
            "features": {
                modality: {"encoder": encoder, **SMALL, "width": 4, "keep_tokens": True},
                "beside": {"encoder": "ngram"},
            },
        }
    )
    dataset, entry = work.encode(config)
    receipt = work.store.read_json(f"encoders/{entry.digest}/receipt.json")
    view = read_view(work.store, entry, str(dataset.of("test")[0].views[modality]))
    assert view.tokens is not None
    for there, sequence in zip(view.present, view.tokens, strict=True):
        assert (sequence is None) == (not there)
        if sequence is not None:
            assert sequence.shape[1] == receipt["token_dim"]
            assert len(sequence) >= 1
    assert {step.action for step in work.foresee(config)[1]} == {"reuse"}


def test_without_labels_a_corrected_one_costs_nothing(work: Work) -> None:
    config = work.config("image", objective="contrastive")
    _, entry = work.encode(config)
    assert entry.dim == 4
    before = work.files("encoders", "features")
    lines = read_manifest(work.folder)
    for line in lines[:10]:
        line["label"] = {"high": "low", "low": "high"}[line["label"]]
    write_manifest(work.folder, lines)
    dataset = work.prepare(config)
    assert encode_modality(config, dataset, "image", work.store, work.pool, Silent()) == entry
    assert work.files("encoders", "features") == before


def test_without_labels_a_class_may_lack_the_modality_in_train(work: Work) -> None:
    lines = read_manifest(work.folder)
    for line in lines:
        if line["split"] == "train" and line["label"] == "low":
            line["image"] = ""
    write_manifest(work.folder, lines)
    with pytest.raises(DataError, match="in 1 of 2 classes: 'low'"):
        work.encode(work.config("image"))
    _, entry = work.encode(work.config("image", objective="contrastive"))
    assert work.store.read_json(f"encoders/{entry.digest}/receipt.json")["samples"]["train"] == 18


def test_checkpoints_left_by_a_run_killed_after_the_receipt_are_removed(work: Work) -> None:
    config = work.config("image", cross_fit=2)
    _, entry = work.encode(config)
    before = work.files("encoders", "features")
    for name in ("all", "fold-1"):
        work.store.publish_bytes(f"encoders/{entry.digest}/checkpoints/{name}.safetensors", b"left")
    work.encode(config)
    assert work.files("encoders", "features") == before
