from __future__ import annotations

import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mmcore.errors import DamagedError, DataError
from mmcore.shards import ShardDataset, ShardLoader, Shards, ShardStream, open_pairs
from mmcore.shards.datasets import as_it_is
from tests.shards.reader_shards import expected, key_of, write_shards

SAMPLES = 83
KEYS = [key_of(n) for n in range(SAMPLES)]
Batches = list[list[str]]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    return open_pairs(write_shards(tmp_path_factory.mktemp("shards"), SAMPLES, 9))


def _keys(batches: Any) -> Batches:
    return [[sample["__key__"] for sample in batch] for batch in batches]


def _streams(shards: Shards, ranks: int, batch_size: int = 4, **settings: Any) -> list[ShardStream]:
    return [ShardStream(shards, batch_size, rank=rank, ranks=ranks, **settings) for rank in range(ranks)]


def _as_loaded(stream: ShardStream, workers: int) -> Batches:
    """A rank's batches as a DataLoader takes them: from each worker in turn."""
    lists = [list(stream._batches(worker, workers or 1)) for worker in range(workers or 1)]
    return _keys(batch for turn in itertools.zip_longest(*lists) for batch in turn if batch is not None)


@pytest.mark.parametrize("shuffle", [True, "shards", False])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 8])
def test_an_epoch_is_every_sample_once_in_equal_steps(shards: Shards, ranks: int, shuffle: Any) -> None:
    whole = {
        workers: [_as_loaded(s, workers) for s in _streams(shards, ranks, shuffle=shuffle)] for workers in range(4)
    }
    assert all(found == whole[0] for found in whole.values()), "workers change nothing"
    assert len({len(batches) for batches in whole[0]}) == 1
    assert sorted(key for batches in whole[0] for batch in batches for key in batch) == KEYS
    assert {len(batch) for batches in whole[0] for batch in batches} <= {3, 4}


@pytest.mark.parametrize("before", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("after", [1, 2, 3, 4, 8])
def test_stopped_at_any_step_it_goes_on_on_any_number_of_ranks(shards: Shards, before: int, after: int) -> None:
    uninterrupted = [_as_loaded(stream, 0) for stream in _streams(shards, before, seed=5)]
    for stop in range(len(uninterrupted[0]) + 1):
        seen, states = [], []
        for stream in _streams(shards, before, seed=5):
            batches = iter(stream)
            seen += [key for batch in _keys(itertools.islice(batches, stop)) for key in batch]
            states.append(json.loads(json.dumps(stream.state_dict())))
        assert all(state == states[0] for state in states)
        left = SAMPLES - len(seen)
        again = _streams(shards, after, batch_size=7 if after == 3 else 4)
        if 0 < left < after:
            with pytest.raises(DataError, match=f"{left} samples of the epoch are left, fewer than the {after} ranks"):
                again[0].load_state_dict(states[0])
            continue
        for stream in again:
            stream.load_state_dict(states[0])
            stream.set_epoch(states[0]["epoch"])
        workers = stop % 4
        rest = [_as_loaded(stream, workers) for stream in again]
        assert len({len(batches) for batches in rest}) == 1
        assert sorted(seen + [key for batches in rest for batch in batches for key in batch]) == KEYS
        if before == after and after != 3:
            assert rest == [batches[stop:] for batches in uninterrupted], "as if it had not been stopped"


def test_epochs_follow_each_other(shards: Shards) -> None:
    stream = ShardStream(shards, 8, seed=1)
    first, second = list(stream), list(stream)
    assert stream.epoch == 2
    assert _keys(first) != _keys(second)
    for epoch, batches in ((0, first), (1, second)):
        again = ShardStream(shards, 8, seed=1)
        again.set_epoch(epoch)
        assert list(again) == batches
    # One that was left early begins again where it began.
    assert next(iter(again)) == next(iter(again))
    assert again.epoch == 2


def test_a_finished_epoch_resumes_as_the_next(shards: Shards) -> None:
    stream = ShardStream(shards, 8)
    batches = iter(stream)
    for _ in range(len(stream)):
        next(batches)
    state = stream.state_dict()
    assert (state["epoch"], state["delivered"]) == (0, SAMPLES)
    other = ShardStream(shards, 8)
    other.load_state_dict(state)
    assert (len(other), list(other), other.epoch) == (0, [], 1)
    assert len(list(other)) == 11


def test_states_of_other_data_are_refused(shards: Shards) -> None:
    state = ShardStream(shards, 8).state_dict()
    other = ShardStream(shards.of(range(20)), 8)
    with pytest.raises(DataError, match="83 other samples; there are 20 here"):
        other.load_state_dict(state)


def test_fewer_samples_than_ranks(shards: Shards) -> None:
    with pytest.raises(DataError, match="3 samples of the epoch are left, fewer than the 4 ranks"):
        ShardStream(shards.of([0, 1, 2]), 8, rank=0, ranks=4)
    with pytest.raises(DataError, match="0 samples"):
        ShardStream(shards.of([]), 8)


def test_the_rank_comes_from_the_environment(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (ShardStream(shards, 8).rank, ShardStream(shards, 8).ranks) == (0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert (ShardStream(shards, 8).rank, ShardStream(shards, 8).ranks) == (2, 3)
    with pytest.raises(ValueError, match="rank 3 of 3"):
        ShardStream(shards, 8, rank=3, ranks=3)


# Under torch's DataLoader


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_loader_counts_what_was_delivered(shards: Shards, workers: int) -> None:
    whole = _keys(ShardStream(shards, 5, seed=2))
    for stop in (0, 4, len(whole)):
        loader = ShardLoader(ShardStream(shards, 5, seed=2), num_workers=workers)
        assert len(loader) == len(whole)
        batches = iter(loader)
        assert _keys(itertools.islice(batches, stop)) == whole[:stop]
        state = loader.state_dict()
        del batches
        other = ShardLoader(ShardStream(shards, 5), num_workers=3 - workers)
        other.load_state_dict(state)
        other.set_epoch(0)
        assert _keys(other) == whole[stop:]


def test_worker_processes_that_stay_see_the_next_epoch(shards: Shards) -> None:
    loader = ShardLoader(ShardStream(shards, 5), num_workers=2, persistent_workers=True)
    reference = ShardStream(shards, 5)
    for epoch in (0, 1, 4):
        loader.set_epoch(epoch)
        reference.set_epoch(epoch)
        assert _keys(loader) == _keys(reference)


def test_the_streams_own_state_is_refused_where_workers_read_ahead(shards: Shards) -> None:
    stream = ShardStream(shards, 5)
    loader = DataLoader(stream, batch_size=None, num_workers=1, collate_fn=as_it_is)
    assert _keys(loader) == _keys(ShardStream(shards, 5))
    with pytest.raises(RuntimeError, match="use ShardLoader"):
        stream.state_dict()


def test_spawned_workers(shards: Shards) -> None:
    stream = ShardStream(shards, 30, collate=_only_keys)
    loader = ShardLoader(stream, num_workers=1, multiprocessing_context="spawn")
    assert list(loader) == _keys(ShardStream(shards, 30))


def _only_keys(batch: list[dict[str, Any]]) -> list[str]:
    return [sample["__key__"] for sample in batch]


def test_files_opened_before_a_fork_are_read_after_it(shards: Shards) -> None:
    expected_batches = list(ShardStream(shards, 5, shuffle=False))  # opens every tar in this process
    loader = ShardLoader(ShardStream(shards, 5, shuffle=False), num_workers=2, multiprocessing_context="fork")
    for _ in range(2):
        loader.set_epoch(0)
        assert list(loader) == expected_batches


def test_damage_in_a_worker_ends_the_epoch(tmp_path: Path) -> None:
    pairs = write_shards(tmp_path, 20, 10)
    tar = Path(pairs[1][0])
    tar.write_bytes(bytes(tar.stat().st_size))
    with pytest.raises(DamagedError, match=r"000001\.tar: member key%2E00010\.image"):
        list(ShardLoader(ShardStream(open_pairs(pairs), 4, shuffle=False), num_workers=1))


def test_the_map_style_dataset_with_torchs_own_sampler(shards: Shards) -> None:
    dataset = ShardDataset(shards, fields=["text"])
    assert (
        dataset[-1]
        == dataset[SAMPLES - 1]
        == {k: v for k, v in expected([82])[0].items() if k not in {"image", "video"}}
    )
    with pytest.raises(IndexError, match="sample 83 of 83"):
        dataset[83]
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(dataset, batch_size=6, shuffle=True, num_workers=2, collate_fn=as_it_is, generator=generator)
    assert sorted(key for batch in _keys(loader) for key in batch) == KEYS
    assert pickle.loads(pickle.dumps(dataset))[4] == dataset[4]


def test_decoding(shards: Shards) -> None:
    dataset = ShardDataset(shards, decode={"text": bytes.decode, "video": len})
    wanted = expected(range(4))
    for sample in wanted:
        sample["text"] = sample["text"] and sample["text"].decode()
        sample["video"] = sample["video"] if sample["video"] is None else tuple(map(len, sample["video"]))
    assert dataset.__getitems__(range(4)) == wanted
    with pytest.raises(ValueError, match="give a function per field"):
        ShardDataset(shards, decode=True)
    with pytest.raises(ValueError, match="no field 'sound': there are image, text, video"):
        ShardStream(shards, 4, fields=["sound"])
    with pytest.raises(ValueError, match="True, False or 'shards'"):
        ShardStream(shards, 4, shuffle="buffer")  # type: ignore[arg-type]


def test_shuffled_batches_are_not_in_order(shards: Shards) -> None:
    order = [int(key[-5:]) for batch in _keys(ShardStream(shards, 8)) for key in batch]
    assert abs(np.corrcoef(order, range(SAMPLES))[0, 1]) < 0.4
