"""Out of core: real feature tables, read group by group, against the fit that sees all rows at once."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmcore.config import ComputeConfig, RunConfig
from mmcore.errors import DamagedError, FusionError, StageError
from mmcore.features.store import Made, Table, write_view
from mmcore.fusion import sampled, streamed
from mmcore.fusion.cca import CcaFusion
from mmcore.fusion.data import load_views
from mmcore.fusion.gcca import GccaFusion
from mmcore.fusion.moments import Moments
from mmcore.fusion.pls import PlsFusion
from mmcore.fusion.sampled import class_shares, key_shares, sample_rows
from mmcore.fusion.shared_factor import SharedFactorFusion
from mmcore.fusion.streamed import fit_streamed, make_moments, read_moments
from mmcore.parallel import open_pool, serial_pool
from mmcore.progress import Silent
from mmcore.records import Dataset, EncoderEntry
from mmcore.shards.prepare import prepare
from mmcore.shards.read import read_index
from mmcore.storage import Store

DIMS = {"image": 5, "audio": 4}
METHODS: dict[str, Callable[..., Any]] = {
    "cca": lambda **given: CcaFusion(n_components=3, C=1.0, **given),
    "gcca": lambda **given: GccaFusion(n_components=3, C=1.0, **given),
    "pls": lambda **given: PlsFusion(n_components=2, C=1.0, mode="canonical", **given),
    "shared-factor": lambda **given: SharedFactorFusion(n_components=3, C=1.0, tolerance=1e-12, **given),
}


@dataclass
class Bench:
    """A data set of two modalities in a store, with features whose means are 10⁴ deviations away from zero."""

    store: Store
    dataset: Dataset
    encoders: tuple[EncoderEntry, ...]


def prepared(folder: Path, store: Store, rows: int) -> Dataset:
    """Rows of three classes and a rare one, one in five of val, some without sound."""
    lines = ["id,label,split,image,audio"]
    for n in range(rows):
        label = "rare" if n in (7, 11) else "abc"[n % 3]
        lines.append(f"k{n:04d},{label},{'val' if n % 5 == 4 else 'train'},picture {n},{f'sound {n}' if n % 7 else ''}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    config = RunConfig.model_validate(
        {
            "data": {
                "manifest": str(folder / "manifest.csv"),
                "modalities": {name: {"kind": "text", "column": name, "inline": True} for name in DIMS},
            },
            "shards": {"samples": 20},
            "compute": {"dask": {"workers": 0}},
        }
    )
    return prepare(config, store, serial_pool(config.compute), Silent())


def write_features(store: Store, dataset: Dataset, encoders: tuple[EncoderEntry, ...], weights: str = "first") -> None:
    for encoder in encoders:
        store.publish_json(f"encoders/{encoder.digest}/receipt.json", {"weights": weights})
        for shard in dataset.shards:
            index = read_index(store, shard)
            keys, labels = index["key"].to_pylist(), index["label"].to_pylist()
            numbers = [int(key[1:]) for key in keys]
            shared = np.array([np.random.default_rng(n).normal(size=3) for n in numbers])
            maps = np.random.default_rng(encoder.dim).normal(size=(3, encoder.dim))
            noise = np.array([np.random.default_rng((n, encoder.dim)).normal(size=encoder.dim) for n in numbers])
            shift = np.array(["abcr".index(label[0]) for label in labels])[:, None]
            values = 1e4 + shared @ maps + noise + shift
            present = np.array([encoder.modality == "image" or n % 7 != 0 for n in numbers])
            made = Table(keys, np.where(present[:, None], values, np.nan).astype(np.float32), present)
            write_view(store, encoder.digest, shard.views[encoder.modality], made, Made(weights))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("streamed")
    store = Store(folder / "output").open()
    encoders = tuple(EncoderEntry(name, f"{name}-encoder", "ngram", dim, True) for name, dim in DIMS.items())
    dataset = prepared(folder, store, 800)
    write_features(store, dataset, encoders)
    return Bench(store, dataset, encoders)


@pytest.fixture
def bench(made: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Small groups, small batches, and no moments yet."""
    monkeypatch.setattr(streamed, "GROUP_ROWS", 60)
    monkeypatch.setattr(streamed, "ROWS_PER_COLUMN", 1)
    monkeypatch.setattr(sampled, "NUMBERS_AT_ONCE", 30 * 9)
    made.store.remove("moments")
    yield made
    if made.store.read_json("encoders/audio-encoder/receipt.json") != {"weights": "first"}:
        write_features(made.store, made.dataset, made.encoders)


def serial() -> Any:
    return serial_pool(ComputeConfig())


def files(store: Store) -> dict[str, bytes]:
    return {name: store.read_bytes(f"moments/{name}") for name in store.listing("moments")}


class Counted(Silent):
    def __init__(self) -> None:
        self.total = self.reused = self.done = 0
        self.said: list[str] = []

    def start(self, total: int, *, reused: int = 0, unit: str = "shards") -> None:
        self.total, self.reused = total, reused

    def advance(self, units: float = 1, *, samples: int = 0, rejected: int = 0, note: str = "") -> None:
        self.done += int(units)

    def log(self, message: str) -> None:
        self.said.append(message)


@pytest.mark.parametrize("scaling", ["none", "standard", "l2"])
@pytest.mark.parametrize("method", METHODS)
def test_the_map_is_that_of_the_fit_in_memory(bench: Bench, method: str, scaling: str) -> None:
    train, val = (load_views(bench.store, bench.dataset, bench.encoders, split) for split in ("train", "val"))
    progress = Counted()
    found = METHODS[method](scaling=scaling)
    fit_streamed(found, bench.store, bench.dataset, bench.encoders, serial(), progress=progress)
    plain = METHODS[method](scaling=scaling).fit(train.views, train.labels, validation=val)
    assert progress.total == progress.done > 3
    for name in DIMS:
        mine, theirs = ((m.loadings_ if method == "shared-factor" else m.weights_)[name] for m in (found, plain))
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-9 * np.abs(theirs).max())
    if scaling == "standard":
        np.testing.assert_allclose(found.scaler_.moments["audio"][0], plain.scaler_.moments["audio"][0], rtol=1e-13)
        np.testing.assert_allclose(found.scaler_.moments["audio"][1], plain.scaler_.moments["audio"][1], rtol=1e-9)
        # The head saw all rows too.
        np.testing.assert_allclose(found.predict_proba(val.views), plain.predict_proba(val.views), atol=1e-5)
        assert progress.said == [f"map from the moments of {len(train):,} rows, head from {len(train):,} of them"]


def test_some_of_the_views_and_a_saved_model(bench: Bench, tmp_path: Path) -> None:
    model = SharedFactorFusion(n_components=2, C=1.0, modalities=["audio"])
    fit_streamed(model, bench.store, bench.dataset, bench.encoders, serial())
    model.save(tmp_path)
    train = load_views(bench.store, bench.dataset, bench.encoders, "train")
    again = SharedFactorFusion.load(tmp_path)
    np.testing.assert_array_equal(again.predict_proba(train.views), model.predict_proba(train.views))
    plain = SharedFactorFusion(n_components=2, C=1.0, modalities=["audio"]).fit(train.views, train.labels)
    np.testing.assert_allclose(model.loadings_["audio"], plain.loadings_["audio"], atol=1e-8)


KILLED = """
import os, pickle, signal, sys
from mmcore.config import ComputeConfig
from mmcore.fusion import sampled, streamed
from mmcore.parallel import serial_pool
from mmcore.storage import Store

streamed.GROUP_ROWS, streamed.ROWS_PER_COLUMN, sampled.NUMBERS_AT_ONCE = 60, 1, 30 * 9
publish, told = Store.publish_json, []

def dies_at_the_third(store, path, value):
    told.append(path)
    if len(told) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return publish(store, path, value)

Store.publish_json = dies_at_the_third
store, dataset, encoders = pickle.load(open(sys.argv[1], "rb"))
streamed.make_moments(store, dataset, encoders, serial_pool(ComputeConfig()))
"""


def test_killed_with_a_group_half_published_it_goes_on_to_the_same_bytes(bench: Bench, tmp_path: Path) -> None:
    make_moments(bench.store, bench.dataset, bench.encoders, serial())
    whole = files(bench.store)
    bench.store.remove("moments")
    (tmp_path / "job").write_bytes(pickle.dumps((bench.store, bench.dataset, bench.encoders)))
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "job")], check=False)
    assert ended.returncode == -signal.SIGKILL
    left = files(bench.store)
    assert sorted(name.rsplit(".")[-1] for name in left) == ["json"] * 2 + ["safetensors"] * 3
    with pytest.raises(DamagedError, match="missing or cut off"):
        read_moments(bench.store, bench.dataset, bench.encoders)
    progress = Counted()
    make_moments(bench.store, bench.dataset, bench.encoders, serial(), progress=progress)
    assert progress.reused == 2
    assert progress.done == progress.total - 2
    assert files(bench.store) == whole


def test_rows_that_are_added_cost_few_groups(bench: Bench, tmp_path: Path) -> None:
    make_moments(bench.store, bench.dataset, bench.encoders, serial())
    grown = prepared(tmp_path, bench.store, 900)
    write_features(bench.store, grown, bench.encoders)
    progress = Counted()
    make_moments(bench.store, grown, bench.encoders, serial(), progress=progress)
    assert progress.reused >= 5
    assert progress.done <= 4
    train = load_views(bench.store, grown, bench.encoders, "train")
    found = read_moments(bench.store, grown, bench.encoders)
    assert found.rows == len(train)
    np.testing.assert_allclose(found.covariance(), Moments.of(train.views).covariance(), atol=1e-9)


def test_samples_that_were_removed_are_left_out(bench: Bench) -> None:
    gone = read_index(bench.store, bench.dataset.of("train")[0])["key"].to_pylist()[:3]
    shards = tuple(shard.without(gone) if not i else shard for i, shard in enumerate(bench.dataset.shards))
    curated = replace(bench.dataset, shards=shards, removed=dict.fromkeys(gone, "duplicate"))
    make_moments(bench.store, bench.dataset, bench.encoders, serial())
    progress = Counted()
    make_moments(bench.store, curated, bench.encoders, serial(), progress=progress)
    assert progress.done == 1
    whole, found = (read_moments(bench.store, one, bench.encoders) for one in (bench.dataset, curated))
    assert found.rows == whole.rows - 3


def test_dask_gives_the_bytes_that_one_process_gives(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # Workers know nothing of the small batches above.
    monkeypatch.setattr(sampled, "NUMBERS_AT_ONCE", 1 << 22)
    make_moments(bench.store, bench.dataset, bench.encoders, serial())
    alone = files(bench.store)
    bench.store.remove("moments")
    with open_pool(ComputeConfig.model_validate({"dask": {"workers": 2}})) as pool:
        make_moments(bench.store, bench.dataset, bench.encoders, pool)
    assert files(bench.store) == alone


def test_an_encoder_trained_anew_makes_other_moments(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    make_moments(bench.store, bench.dataset, bench.encoders, serial())
    write_features(bench.store, bench.dataset, bench.encoders, "second")
    progress = Counted()
    make_moments(bench.store, bench.dataset, bench.encoders, serial(), progress=progress)
    assert progress.reused == 0
    bench.store.remove("moments")
    in_batches = sampled.in_batches

    def meanwhile(*given: Any) -> Any:
        yield from in_batches(*given)
        bench.store.publish_json("encoders/audio-encoder/receipt.json", {"weights": "second", "batch": 7})

    monkeypatch.setattr(sampled, "in_batches", meanwhile)
    with pytest.raises(StageError, match="another run trained the encoder of audio anew"):
        make_moments(bench.store, bench.dataset, bench.encoders, serial())
    assert files(bench.store) == {}


def test_damaged_moments_are_made_again_or_named(bench: Bench) -> None:
    make_moments(bench.store, bench.dataset, bench.encoders, serial())
    name = next(name for name in files(bench.store) if name.endswith("safetensors"))
    data = bench.store.read_bytes(f"moments/{name}")
    bench.store.publish_bytes(f"moments/{name}", data[:-1])
    progress = Counted()
    make_moments(bench.store, bench.dataset, bench.encoders, serial(), progress=progress)
    assert progress.done == 1
    bench.store.publish_bytes(f"moments/{name}", data[:-1] + b"?")
    with pytest.raises(DamagedError, match=name):
        read_moments(bench.store, bench.dataset, bench.encoders)


def test_a_split_without_shards_is_an_error(bench: Bench) -> None:
    with pytest.raises(FusionError, match="no shards of test"):
        make_moments(bench.store, bench.dataset, bench.encoders, serial(), split="test")


# The sample


def test_a_sample_is_bounded_and_holds_every_class(bench: Bench) -> None:
    sample = partial(sample_rows, bench.store, bench.dataset, bench.encoders, "train", rows=100, every_class=True)
    found, weights = sample(seed=0)
    every = load_views(bench.store, bench.dataset, bench.encoders, "train")
    assert 60 < len(found) < 160
    assert (found.labels == "rare").sum() == 2
    rows = np.flatnonzero(np.isin(every.keys, found.keys))
    np.testing.assert_array_equal(found.keys, every.keys[rows])
    for name, view in found.views.items():
        np.testing.assert_array_equal(view.present, every.views[name].present[rows])
        np.testing.assert_array_equal(view.values[view.present], every.views[name].values[rows][view.present])
    other, _ = sample(seed=1)
    assert set(other.keys) != set(found.keys)
    # All of the rare class are taken, about 1 in 6.4 of the others.
    np.testing.assert_allclose(weights[found.labels == "rare"], 100 / len(every))
    assert 0.95 < weights[found.labels != "rare"].min() <= weights.max() < 1.05
    assert 60 < weights.sum() < 160


def test_a_streamed_fit_has_the_true_shares_of_classes(bench: Bench) -> None:
    every = load_views(bench.store, bench.dataset, bench.encoders, "train")
    names, counts = np.unique(every.labels, return_counts=True)
    shares = counts / len(every)
    found, unweighted = [], []
    for seed in range(30):
        model = CcaFusion(n_components=3, C=1.0, random_state=seed)
        fit_streamed(model, bench.store, bench.dataset, bench.encoders, serial(), rows=100)
        found.append(model.prior_)
        train, _ = sample_rows(
            bench.store, bench.dataset, bench.encoders, "train", rows=100, seed=seed, every_class=True
        )
        unweighted.append(np.mean(train.labels == "rare"))
    assert model.classes_.tolist() == names.tolist()
    # Of 100 rows, 30 times.
    errors = 4 * np.sqrt(shares * (1 - shares) / (100 * 30))
    assert (np.abs(np.mean(found, axis=0) - shares) < errors).all()
    assert np.mean(unweighted) > 5 * shares[names == "rare"].item()


def test_a_tiny_sample_holds_every_class_too(bench: Bench) -> None:
    for seed in range(10):
        found, weights = sample_rows(
            bench.store, bench.dataset, bench.encoders, "train", rows=4, seed=seed, every_class=True
        )
        assert set(found.labels.tolist()) == {"a", "b", "c", "rare"}
        assert len(set(found.keys.tolist())) == len(found) == len(weights) < 20


def test_rows_of_val_are_drawn_alike(bench: Bench) -> None:
    every = load_views(bench.store, bench.dataset, bench.encoders, "train")
    found, weights = sample_rows(bench.store, bench.dataset, bench.encoders, "train", rows=100, seed=0)
    np.testing.assert_array_equal(found.keys, every.keys[key_shares(every.keys, 0) < 100 / len(every)])
    np.testing.assert_array_equal(weights, 1.0)


@pytest.mark.parametrize("classes", [1, 3, 100, 10_000])
def test_a_sample_keeps_its_bound_whatever_the_classes(classes: int) -> None:
    counts = {str(n): 1 + 100_000 // (n + 1) for n in range(classes)}
    total = sum(counts.values())
    shares = class_shares(counts, total, 5000)
    taken = {name: share * counts[name] for name, share in shares.items()}
    assert 4500 < sum(taken.values()) <= 5000 + 1e-6
    least = min(30, 2500 / classes)
    assert all(taken[name] >= min(count, least) - 1e-9 for name, count in counts.items())


def test_a_split_that_is_small_enough_is_taken_whole(bench: Bench) -> None:
    found, weights = sample_rows(bench.store, bench.dataset, bench.encoders, "val", rows=10_000, seed=0)
    np.testing.assert_array_equal(weights, 1.0)
    np.testing.assert_array_equal(found.keys, load_views(bench.store, bench.dataset, bench.encoders, "val").keys)


def test_a_row_is_drawn_by_its_key_alone() -> None:
    keys = [f"k{n}" for n in range(20_000)]
    shares = key_shares(keys, 3)
    np.testing.assert_array_equal(shares[7:9], key_shares(keys[7:9], 3))
    counts, _ = np.histogram(shares, bins=20, range=(0, 1))
    assert (np.abs(counts - 1000) < 5 * np.sqrt(1000)).all()
    assert abs(np.corrcoef(shares, key_shares(keys, 4))[0, 1]) < 0.03
