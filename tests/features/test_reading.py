"""Features by row, against what was written."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from mmcore.errors import ConfigError, DamagedError, FusionError, StageError
from mmcore.features import Features, mapped, open_features
from mmcore.features.extract import encode_modality
from mmcore.features.opening import choose_encoder, open_encoder
from mmcore.features.store import Made, Table, write_view
from mmcore.fusion.data import load_views
from mmcore.progress import Silent
from mmcore.records import Dataset, EncoderEntry, ShardEntry
from mmcore.storage import Store
from tests.features.conftest import Work

SIZES = {"v0": 5, "v1": 1, "v2": 0, "v3": 9, "v4": 4}
DIM = 3


def write(store: Store, dtype: str = "float32", *, tokens: bool = False) -> tuple[Features, np.ndarray]:
    """Views of some sizes, every fourth row absent; their features, and what they hold."""
    total = sum(SIZES.values())
    values = np.random.default_rng(0).normal(size=(total, DIM)).astype(dtype)
    present = np.arange(total) % 4 != 2
    keys = [f"k{n:02d}" for n in range(total)]
    shards, start = [], 0
    for view, size in SIZES.items():
        rows = slice(start, start + size)
        sequences = [sequence_of(n).astype(dtype) if present[n] else None for n in range(total)[rows]]
        table = Table(keys[rows], values[rows], present[rows], sequences if tokens else None)
        write_view(store, "e0", view, table, Made("w0"))
        shards.append(ShardEntry(view, "train", size, {"image": view}, None))
        start += size
    entry = EncoderEntry("image", "e0", "cnn", DIM, True)
    wanted = np.where(present[:, None], values, np.nan).astype(dtype)
    return Features(store, entry, shards, cache_bytes=200), wanted


def sequence_of(n: int) -> np.ndarray:
    return np.arange(n % 3 * 2, dtype=np.float64).reshape(-1, 2) + n


@pytest.fixture(params=["local", "bucket"])
def kept(request: pytest.FixtureRequest, store: Store) -> Store:
    return store if request.param == "local" else Store(f"memory://{store.root}")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_are_those_that_were_written(kept: Store, dtype: str) -> None:
    features, wanted = write(kept, dtype)
    assert (len(features), features.dim, features.dtype) == (19, DIM, np.dtype(dtype))
    np.testing.assert_array_equal(features[:], wanted)
    np.testing.assert_array_equal(features.present, ~np.isnan(wanted[:, 0]))
    random = np.random.default_rng(1)
    for _ in range(30):
        rows = random.integers(-19, 19, size=random.integers(0, 40))
        found = features[rows]
        np.testing.assert_array_equal(found, wanted[rows])
        assert found.dtype == dtype
        assert found.flags.writeable
    np.testing.assert_array_equal(features[features.present], wanted[features.present])
    np.testing.assert_array_equal(features[-1], wanted[-1])
    np.testing.assert_array_equal(features[[]], wanted[:0])


def test_slices_are_numpys(store: Store) -> None:
    features, wanted = write(store)
    for step in (1, 2, -1, -3):
        for start in (None, *range(-21, 22)):
            for stop in (None, -20, -3, 0, 5, 6, 15, 30):
                np.testing.assert_array_equal(features[start:stop:step], wanted[start:stop:step])


def test_a_part_of_a_file_is_the_file_itself(store: Store) -> None:
    features, wanted = write(store)
    part = features[7:10]
    assert not part.flags.owndata
    assert not part.flags.writeable
    assert features[7:9].ctypes.data == part.ctypes.data, "no copy was made"
    assert features[7:11].flags.writeable, "row 10 is absent: NaN has to be put there"
    del features
    gc.collect()
    np.testing.assert_array_equal(part, wanted[7:10])


def test_some_rows_alone(store: Store) -> None:
    features, wanted = write(store)
    there = features.of(features.present)
    np.testing.assert_array_equal(there[:], wanted[features.present])
    assert there.present.all()
    reversed_ = there.of(slice(None, None, -1))
    np.testing.assert_array_equal(reversed_[:3], wanted[features.present][::-1][:3])
    for error in ([19], [-20], np.zeros(3, bool), [0.5], [[1]]):
        with pytest.raises(IndexError):
            features[error]
    with pytest.raises(IndexError, match="row 19 of 19"):
        features[19]


@pytest.mark.parametrize("shuffle", [False, True, "shards"])
def test_batches_hold_every_row_once(kept: Store, shuffle: bool | str) -> None:
    features, wanted = write(kept)
    for chosen, values in ((features, wanted), (features.of([3, 18, 0, 7, 8]), wanted[[3, 18, 0, 7, 8]])):
        batches = list(chosen.batches(4, shuffle=shuffle, seed=1, shards_at_once=2))
        rows = np.concatenate([rows for rows, _ in batches])
        assert sorted(rows.tolist()) == list(range(len(chosen)))
        assert [len(rows) for rows, _ in batches[:-1]] == [4] * (len(batches) - 1)
        for rows, found in batches:
            np.testing.assert_array_equal(found, values[rows])
        again = np.concatenate([rows for rows, _ in chosen.batches(5, shuffle=shuffle, seed=1, shards_at_once=2)])
        assert rows_of(batches) == again.tolist(), "the order does not depend on the size"
        other = rows_of(list(chosen.batches(4, shuffle=shuffle, seed=1, epoch=1, shards_at_once=2)))
        assert (other == rows_of(batches)) == (shuffle is False)
    with pytest.raises(ValueError, match="'rows'"):
        list(features.batches(4, shuffle="rows"))
    with pytest.raises(ValueError, match="batches of 0"):
        list(features.batches(0))


def rows_of(batches: list[tuple[np.ndarray, np.ndarray]]) -> list[int]:
    return np.concatenate([rows for rows, _ in batches]).tolist()


def test_shards_are_read_few_at_a_time(store: Store) -> None:
    features, _ = write(store)
    order = rows_of(list(features.batches(4, shuffle="shards", shards_at_once=1)))
    views = np.repeat(np.arange(5), list(SIZES.values()))[order]
    assert (np.diff(views) != 0).sum() == 3, "each of the four that hold rows is read in one go"


def test_tensors_share_the_memory(store: Store) -> None:
    features, wanted = write(store, "float16")
    part = features.tensor(slice(7, 10))
    assert (part.dtype, part.data_ptr()) == (torch.float16, features[7:10].ctypes.data)
    np.testing.assert_array_equal(features.tensor([18, 0]).numpy(), wanted[[18, 0]])


def test_sequences(kept: Store) -> None:
    features, _ = write(kept, "float16", tokens=True)
    rows = [18, 0, 2, 7, 1]
    found = features.tokens(rows)
    assert [row is None for row in found] == [True, False, True, False, False]
    for row, sequence in zip(rows, found, strict=True):
        if sequence is not None:
            np.testing.assert_array_equal(sequence, sequence_of(row).astype(np.float16).reshape(-1, 2))
    plain, _ = write(Store(f"{kept.root}-plain"))
    with pytest.raises(ValueError, match="the cnn encoder of image keeps no sequences"):
        plain.tokens()


def test_a_bucket_keeps_no_more_than_it_may(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    features, wanted = write(Store(f"memory://{store.root}"))
    fetched: list[str] = []
    read = Store.read_bytes
    monkeypatch.setattr(Store, "read_bytes", lambda self, path: (fetched.append(path), read(self, path))[1])
    for row in (0, 7, 7, 0):
        np.testing.assert_array_equal(features[[row]], wanted[[row]])
    arrows = [path for path in fetched if path.endswith(".arrow")]
    assert len(arrows) == 3, "the first one was given up for the second, which stayed"
    assert len(features._mapped._open.tables) == 1


def test_too_many_files_to_map_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "MOST_MAPPED", 2)
    features, wanted = write(store)
    for row in (0, 5, 8, 16, 0, 8):
        np.testing.assert_array_equal(features[[row]], wanted[[row]])
        assert len(features._mapped._open.tables) <= 2
    np.testing.assert_array_equal(features[::-1], wanted[::-1])


def test_threads_that_open_files_under_each_other(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "MOST_MAPPED", 2)
    features, wanted = write(store)
    wrong = []

    def read(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(200):
            rows = random.integers(0, 19, 3)
            if not np.array_equal(features[rows], wanted[rows], equal_nan=True):
                wrong.append(rows)

    threads = [threading.Thread(target=read, args=[seed]) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_other_processes_map_files_of_their_own(store: Store) -> None:
    features, wanted = write(store)
    assert features[0].tolist() == wanted[0].tolist()
    for other in (pickle.loads(pickle.dumps(features)), copy.copy(features.of([4, 0]))):
        np.testing.assert_array_equal(other[:][-1], wanted[0] if len(other) == 2 else wanted[-1])


def test_damage_names_the_file(kept: Store) -> None:
    features, wanted = write(kept)
    data = bytearray(kept.read_bytes("features/e0/v3.arrow"))
    at = data.index(wanted[7].tobytes())
    data[at] ^= 1
    if kept.local:
        Path(kept.url("features/e0/v3.arrow")).write_bytes(data)
    else:
        kept._filesystem.pipe_file(kept.url("features/e0/v3.arrow"), bytes(data))
    np.testing.assert_array_equal(features[[0, 18]], wanted[[0, 18]])
    with pytest.raises(DamagedError, match=r"v3\.arrow is not the file that its receipt names"):
        features[[0, 7]]
    careless = Features(kept, features.entry, features.shards, verify=False, cache_bytes=1)
    assert careless[7].tolist() != wanted[7].tolist()
    kept.remove("features/e0/v3.arrow")
    with pytest.raises(DamagedError, match=r"v3\.arrow is missing or cut off"):
        Features(kept, features.entry, features.shards, cache_bytes=1)[7]


def test_views_that_do_not_fit_are_named(store: Store) -> None:
    features, _ = write(store)
    table = Table(["a"], np.zeros((1, 2), np.float32), np.ones(1, bool))
    write_view(store, "e0", "v1", table, Made("w1"))
    with pytest.raises(DamagedError, match=r"v1\.arrow holds 1 x 2 float32, and not 1 x 3 float32"):
        features[:]
    stale = Features(store, features.entry, features.shards, weights="w0", cache_bytes=1)
    with pytest.raises(DamagedError, match=r"v1\.arrow was made by other weights"):
        stale[:]
    store.remove("features/e0/v0.json")
    with pytest.raises(DamagedError, match=r"v0\.json is missing"):
        Features(store, features.entry, features.shards, cache_bytes=1)
    unknown = ShardEntry("s9", "train", 3, {"image": None}, None)
    with pytest.raises(StageError, match="shard s9: its view of image is not known yet"):
        Features(store, features.entry, [unknown], cache_bytes=1)


@pytest.fixture
def extracted(work: Work) -> tuple[Work, Dataset, EncoderEntry]:
    dataset, entry = work.encode(work.config("text"))
    publish_run(work.store, "digits-1", dataset, [entry])
    return work, dataset, entry


def publish_run(store: Store, run: str, dataset: Dataset | None, entries: list[EncoderEntry], **more: str) -> None:
    from dataclasses import asdict

    record = {
        "run_id": run,
        "name": run.partition("-")[0],
        "started": f"2026-01-01T00:00:{run[-1]}",
        "dataset": dataset.digest if dataset else None,
        "encoders": [asdict(entry) for entry in entries],
        "state": "finished" if entries else "running",
        **more,
    }
    store.publish_json(f"runs/{run}/run.json", record)


def test_the_features_of_a_run(extracted: tuple[Work, Dataset, EncoderEntry]) -> None:
    work, dataset, entry = extracted
    features = open_features(work.store.root)
    assert sorted(features.keys) == [f"k{n:03d}" for n in range(60)]
    assert features.labels == [("high", "low")[int(key[1:]) % 2] for key in features.keys]
    assert {key for key, there in zip(features.keys, features.present, strict=True) if not there} == {
        f"k{n:03d}" for n in (7, 18, 29, 40, 51)
    }
    assert features.splits.tolist() == [shard.split for shard in dataset.shards for _ in range(shard.samples)]
    test = open_features(work.store, "text", run="digits-1", splits=["test"])
    assert test.keys == [key for key, split in zip(features.keys, features.splits, strict=True) if split == "test"]
    np.testing.assert_array_equal(test[:], features[features.splits == "test"])
    assert [Path(file).name for file in test.files] == [f"{shard.views['text']}.arrow" for shard in dataset.of("test")]
    removed = Dataset(**{**dataset.__dict__, "removed": {features.keys[1]: "duplicate"}})
    assert open_encoder(work.store, removed, entry).keys == [features.keys[0], *features.keys[2:]]


def test_what_is_not_there_is_named(extracted: tuple[Work, Dataset, EncoderEntry], tmp_path: Path) -> None:
    work, dataset, _ = extracted
    publish_run(work.store, "digits-2", dataset, [])
    assert len(open_features(work.store)) == 60, "the latest that has features"
    for arguments, words in (
        ({"modality": "video"}, "no features of 'video'. There are: text"),
        ({"splits": ["dev"]}, "no split 'dev'"),
        ({"run": "none"}, "no run 'none'"),
        ({"run": "digits-2"}, "run 'digits-2' .* has no features: it is running"),
    ):
        with pytest.raises(ConfigError, match=words):
            open_features(work.store, **arguments)
    with pytest.raises(ConfigError, match="no run below"):
        open_features(tmp_path / "nowhere")


def test_vectors_of_other_keys_are_refused(extracted: tuple[Work, Dataset, EncoderEntry]) -> None:
    work, dataset, entry = extracted
    shard = dataset.shards[0]
    receipt = work.store.read_json(f"features/{entry.digest}/{shard.views['text']}.json")
    keys = [f"x{n}" for n in range(shard.samples)]
    table = Table(keys, np.zeros((len(keys), entry.dim), np.float32), np.ones(len(keys), bool))
    write_view(work.store, entry.digest, shard.views["text"], table, Made(receipt["weights"], True))
    features = open_features(work.store)
    assert len(features.keys) == 60
    with pytest.raises(DamagedError, match="holds other keys than its shard"):
        features[0]
    opened = open_features(work.store)
    opened[0]
    with pytest.raises(DamagedError, match="holds other keys than its shard"):
        opened.labels  # noqa: B018


def test_floors_have_names_of_their_own(work: Work) -> None:
    config = work.config("image").model_copy(update={"floor": True})
    dataset = work.prepare(config)
    entries = [
        encode_modality(config, dataset, view, work.store, work.pool, Silent()) for view in ("image", "floor-image")
    ]
    assert [entry.view for entry in entries] == ["image", "floor-image"]
    assert choose_encoder(entries, None) == entries[0]
    assert choose_encoder(entries, "floor-image") == entries[1]
    with pytest.raises(ConfigError, match="There are: image, floor-image"):
        choose_encoder(entries, "sound")
    with pytest.raises(FusionError, match="two encoders of one modality"):
        load_views(work.store, dataset, entries, "train")
