"""Encoding shards with encoders that learn nothing: failures, memory, sequences, several members."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmcore.config import EncoderSettings, RunConfig
from mmcore.errors import StageError, TooManyRejectsError
from mmcore.features.extract import encode_modality
from mmcore.features.opening import open_encoder
from mmcore.features.reading import Features
from mmcore.fusion.data import load_views
from mmcore.parallel import open_pool, serial_pool
from mmcore.progress import Silent
from mmcore.records import Dataset, EncoderEntry
from tests.features.conftest import Work, read_manifest, write_manifest
from tests.features.made_encoders import (
    CountedEncoder,
    CountedSettings,
    SmallMemoryEncoder,
    SmallMemorySettings,
    sequence_of,
    vector_of,
)


def config_with(work: Work, settings: EncoderSettings, max_rejected: float = 1.0) -> RunConfig:
    config = work.config("text")
    data = config.data.model_copy(update={"max_rejected": max_rejected})
    return config.model_copy(update={"features": {"text": settings}, "data": data})


def texts_of(work: Work) -> dict[str, str]:
    """Each key's text."""
    rows = read_manifest(work.folder)
    return {row["id"]: (work.folder / row["text"]).read_text() for row in rows if row["text"]}


def mark(work: Work, **marks: str) -> None:
    """Write a mark into the texts of these keys."""
    for row in read_manifest(work.folder):
        if row["id"] in marks:
            (work.folder / row["text"]).write_text(f"{marks[row['id']]} {row['id']}")


def features_of(work: Work, dataset: Dataset, entry: EncoderEntry) -> Features:
    return open_encoder(work.store, dataset, entry)


def encode(work: Work, settings: EncoderSettings, **more: Any) -> tuple[Dataset, EncoderEntry, Features]:
    dataset, entry = work.encode(config_with(work, settings, **more))
    return dataset, entry, features_of(work, dataset, entry)


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No encoder is open yet, and none has tried anything."""
    monkeypatch.setattr("mmcore.features.opened._open", OrderedDict())
    SmallMemoryEncoder.tried.clear()


def test_vectors_are_the_encoders_own_in_the_order_of_the_shards(work: Work) -> None:
    _, entry, features = encode(work, CountedSettings())
    texts = texts_of(work)
    assert entry.rejects == ()
    assert features.present.tolist() == [key in texts for key in features.keys]
    for key, vector in zip(features.keys, features[:], strict=True):
        if key in texts:
            np.testing.assert_array_equal(vector, np.array(vector_of(texts[key]), np.float32))


def test_what_fails_is_set_aside_alone(work: Work) -> None:
    marks = {"k000": "ready!", "k001": "length!", "k002": "collate!", "k003": "encode!", "k004": "nan!"}
    mark(work, **marks)
    dataset, entry, features = encode(work, CountedSettings())
    assert {reject.key: reject.code for reject in entry.rejects} == {
        **dict.fromkeys(("k000", "k001", "k002", "k003"), "encoder-failed"),
        "k004": "not-finite-vector",
    }
    assert {reject.modality for reject in entry.rejects} == {"text"}
    for reject in entry.rejects:
        if reject.code == "encoder-failed":
            assert reject.message == (
                f"the counted encoder failed on it (ValueError: no {marks[reject.key][:-1]} of this)"
            )
    texts = texts_of(work)
    for key, vector, there in zip(features.keys, features[:], features.present, strict=True):
        assert there == (key in texts and key not in marks)
        if there:
            np.testing.assert_array_equal(vector, np.array(vector_of(texts[key]), np.float32))
    assert encode(work, CountedSettings())[1] == entry, "they are told again where nothing is computed"
    work.store.remove("features")
    with pytest.raises(TooManyRejectsError, match=r"text: \d samples could not be encoded .* \(5%\) allows"):
        encode_modality(config_with(work, CountedSettings(), 0.05), dataset, "text", work.store, work.pool, Silent())


def test_what_float16_cannot_hold_is_set_aside(work: Work) -> None:
    mark(work, k005="large!")
    _, entry, features = encode(work, CountedSettings(dtype="float16"))
    ((key, code, message),) = [(reject.key, reject.code, reject.message) for reject in entry.rejects]
    assert (key, code) == ("k005", "not-finite-vector")
    assert message == "what the counted encoder gives is not finite in float16"
    assert not features.present[features.keys.index("k005")]
    assert encode(work, CountedSettings())[1].rejects == (), "float32 holds it"


def test_sequences_are_kept_in_full_length(work: Work) -> None:
    mark(work, k003="encode!")
    dataset, entry, features = encode(work, CountedSettings(tokens=True, dtype="float16"))
    texts = texts_of(work)
    rows = load_views(work.store, dataset, [entry], "train", "val", "test", tokens=["text"])
    view = rows.views["text"]
    assert rows.keys.tolist() == features.keys
    for row, (key, sequence) in enumerate(zip(features.keys, features.tokens(), strict=True)):
        if key not in texts or key == "k003":
            assert sequence is None
            assert (view.lengths[row], view.present[row]) == (0, False)
            continue
        wanted = sequence_of(texts[key]).astype(np.float16)
        np.testing.assert_array_equal(sequence, wanted)
        assert view.lengths[row] == len(wanted)
        np.testing.assert_array_equal(view.values[row, : len(wanted)], wanted)
        assert not view.values[row, len(wanted) :].any()
    assert view.values.shape[1] == max(map(len, texts.values()))


def test_several_members_are_averaged_and_their_sequences_joined(work: Work) -> None:
    rows, texts = read_manifest(work.folder), texts_of(work)
    files = {row["id"]: row["text"] for row in rows if row["text"]}
    pairs = {key: [one for one in (key, f"k{int(key[1:]) + 1:03d}") if one in files] for key in files}
    for row in rows:
        if row["text"]:
            row["text"] = json.dumps([files[one] for one in pairs[row["id"]]])
    write_manifest(work.folder, rows)
    config = config_with(work, CountedSettings(tokens=True))
    text = config.data.modalities["text"].model_copy(update={"several": True})
    data = config.data.model_copy(update={"modalities": {**config.data.modalities, "text": text}})
    dataset, entry = work.encode(config.model_copy(update={"data": data}))
    features = features_of(work, dataset, entry)
    assert sum(len(pair) == 2 for pair in pairs.values()) > 40
    for key, vector, sequence in zip(features.keys, features[:], features.tokens(), strict=True):
        if key in pairs:
            vectors = np.array([vector_of(texts[one]) for one in pairs[key]], np.float32)
            np.testing.assert_allclose(vector, vectors.mean(axis=0), rtol=1e-6)
            np.testing.assert_array_equal(sequence, np.concatenate([sequence_of(texts[one]) for one in pairs[key]]))


def test_a_batch_that_memory_does_not_hold_is_halved_for_good(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    _, entry, features = encode(work, SmallMemorySettings(batch=8, most=3))
    assert entry.rejects == ()
    assert work.store.read_json(f"encoders/{entry.digest}/receipt.json")["batch"] == 2
    too_large = [size for size in SmallMemoryEncoder.tried if size > 3]
    assert 1 <= len(too_large) <= 2, "no size was tried again that memory did not hold"
    halved = work.files("features")
    receipts = [json.loads(data) for name, data in halved.items() if name.endswith(".json")]
    assert {receipt["batch"] for receipt in receipts} == {2}
    assert features[:][features.present][:, 2].max() == 2

    # The next run starts with what sufficed.
    work.store.remove("features")
    monkeypatch.setattr("mmcore.features.opened._open", OrderedDict())
    SmallMemoryEncoder.tried.clear()
    encode(work, SmallMemorySettings(batch=8, most=3))
    assert max(SmallMemoryEncoder.tried) == 2
    assert work.files("features") == halved

    # One that had this size from the start gives the same vectors.
    _, _, other = encode(work, SmallMemorySettings(batch=2))
    np.testing.assert_array_equal(other[:], features[:])


def test_what_was_finished_before_memory_ran_out_stays(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SmallMemorySettings(batch=4)
    encode(work, settings)
    before = work.files("features")
    arrows = sorted(name for name in before if name.endswith(".arrow"))
    for name in arrows[2:]:
        work.store.remove(name)
        work.store.remove(name.replace(".arrow", ".json"))
    # Another process, on a device with less memory.
    monkeypatch.setattr("mmcore.features.opened._open", OrderedDict())
    encode(work, settings.model_copy(update={"most": 2}))
    after = work.files("features")
    assert {name: after[name] for name in arrows[:2]} == {name: before[name] for name in arrows[:2]}
    sizes = [json.loads(after[name.replace(".arrow", ".json")])["batch"] for name in arrows]
    assert sizes == [4, 4] + [2] * (len(arrows) - 2)


def test_two_workers_make_the_same_bytes(work: Work) -> None:
    mark(work, k000="ready!", k003="encode!", k004="nan!")
    config = config_with(work, CountedSettings(tokens=True))
    dataset, entry = work.encode(config)
    before = work.files("encoders", "features")
    for name in ("encoders", "features"):
        work.store.remove(name)
    compute = config.compute.model_copy(update={"dask": config.compute.dask.model_copy(update={"workers": 2})})
    with open_pool(compute) as pool:
        again = encode_modality(config, dataset, "text", work.store, pool, Silent())
    assert work.files("encoders", "features") == before
    assert sorted(again.rejects, key=lambda reject: reject.key) == sorted(entry.rejects, key=lambda reject: reject.key)
    assert len(before) == 1 + 2 * len(dataset.shards)
    assert Path(work.store.url(f"encoders/{entry.digest}/receipt.json")).exists()


def test_the_limit_holds_for_what_an_earlier_run_finished(work: Work) -> None:
    mark(work, k000="encode!", k001="nan!")
    strict = config_with(work, CountedSettings(), max_rejected=0.001)
    for _ in range(3):
        with pytest.raises(TooManyRejectsError, match="text: 2 samples could not be encoded|text: 1 samples"):
            work.encode(strict)
    _, entry, _ = encode(work, CountedSettings())
    assert sorted(reject.key for reject in entry.rejects) == ["k000", "k001"]


def test_memory_that_does_not_hold_one_text_is_no_fault_of_it(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StageError, match="does not fit into memory with one sample: CUDA out of memory"):
        encode(work, SmallMemorySettings(batch=4, most=0))
    assert not [name for name in work.files("features") if name.endswith(".json")]
    monkeypatch.setattr("mmcore.features.opened._open", OrderedDict())
    _, entry, features = encode(work, SmallMemorySettings(batch=4))
    assert entry.rejects == ()
    assert features.present.sum() == len(texts_of(work))


def test_a_job_tried_again_repeats_nothing(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmcore.features import encode as engine

    mark(work, k000="encode!", k001="nan!")
    config = config_with(work, CountedSettings())
    dataset, written, write = work.prepare(config), [], engine.write_view

    def fails_once(*arguments: Any) -> Any:
        if len(written) == 5 and arguments[2] not in written:
            written.append("the failure")
            raise OSError("the disk is away for a moment")
        written.append(arguments[2])
        return write(*arguments)

    monkeypatch.setattr(engine, "write_view", fails_once)
    pool = serial_pool(config.compute.model_copy(update={"retries": 1}))
    entry = encode_modality(config, dataset, "text", work.store, pool, Silent())
    views = [view for view in written if view != "the failure"]
    assert len(views) == len(set(views)) == len({shard.views["text"] for shard in dataset.shards})
    assert sorted(reject.key for reject in entry.rejects) == ["k000", "k001"]


def test_sequences_that_are_not_finite_are_set_aside(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    encode_batch = CountedEncoder.encode

    def broken(self: CountedEncoder, batch: Any, part: int = -1) -> Any:
        found = encode_batch(self, batch, part)
        found.tokens[0, 0] = np.inf
        return found

    monkeypatch.setattr(CountedEncoder, "encode", broken)
    _, entry, _ = encode(work, CountedSettings(tokens=True))
    assert entry.rejects
    assert {reject.code for reject in entry.rejects} == {"not-finite-vector"}
