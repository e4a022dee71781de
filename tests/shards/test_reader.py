from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcore.errors import ConfigError, DamagedError
from mmcore.shards import ShardCache, Shards, open_pairs
from mmcore.shards.access import Tars, merge
from tests.shards.reader_shards import expected, key_of, write_shards

SAMPLES = 47
Pairs = list[tuple[str, str]]


@pytest.fixture(scope="module", params=["xxh3", "sha256"])
def pairs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    return write_shards(tmp_path_factory.mktemp("pairs"), SAMPLES, 10, request.param)


def test_samples_in_any_order(pairs: Pairs) -> None:
    shards = open_pairs(pairs)
    assert (len(shards), shards.fields, shards.shard_sizes) == (SAMPLES, ("image", "text", "video"), [10] * 4 + [7])
    order = np.random.default_rng(0).permutation(SAMPLES)
    assert shards.read(order) == expected(order.tolist())
    assert [sample for batch in shards.batches(8) for sample in batch] == expected(range(SAMPLES))
    assert shards.read([]) == []
    assert shards.read([5, 5], fields=["text"]) == [
        {name: value for name, value in sample.items() if name in {"__key__", "label", "text"}}
        for sample in expected([5, 5])
    ]


def test_some_of_the_samples(pairs: Pairs) -> None:
    part = open_pairs(pairs).of([40, 3, 12])
    assert part.keys == [key_of(n) for n in (40, 3, 12)]
    assert part.read([2, 0]) == expected([12, 40])
    assert part.digest != open_pairs(pairs).digest


def test_columns_of_the_index(pairs: Pairs) -> None:
    assert [sample["group"] for sample in open_pairs(pairs, columns=["group"]).read([0, 8])] == ["g0", "g1"]
    with pytest.raises(ConfigError, match="no column 'speaker' in the index"):
        open_pairs(pairs, columns=["speaker"])


def test_few_files_are_open_however_many_shards(tmp_path: Path) -> None:
    shards = open_pairs(write_shards(tmp_path, 60, 1))
    shards.tars.most_open = 4
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    order = np.random.default_rng(0).permutation(60)
    assert [sample for start in range(0, 60, 7) for sample in shards.read(order[start : start + 7])] == expected(
        order.tolist()
    )
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 4


def test_threads_share_open_files(tmp_path: Path) -> None:
    shards = open_pairs(write_shards(tmp_path, 60, 3))
    shards.tars.most_open = 2
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: shards.read([n, (n * 7) % 60]), [*range(60)] * 5))
    assert found == [expected([n, (n * 7) % 60]) for n in [*range(60)] * 5]


def test_pickles_without_open_files(pairs: Pairs) -> None:
    shards = open_pairs(pairs)
    shards.read([0])
    assert pickle.loads(pickle.dumps(shards)).read([1, 30]) == expected([1, 30])


# Damage


def _members(shards: Shards) -> list[tuple[int, str, int, int]]:
    """Row, name as errors give it, offset and size of every member."""
    found = []
    for name, members in shards.catalogue.members.items():
        for row in range(len(shards)):
            stem = f"{key_of(row).replace('.', '%2E')}.{name}"
            if members.counts is None:
                found.append((row, stem, int(members.offsets[row]), int(members.sizes[row])))
                continue
            for part in range(int(members.counts[row])):
                at = int(members.firsts[row]) + part
                found.append((row, f"{stem}.{part:03d}", int(members.offsets[at]), int(members.sizes[at])))
    return [one for one in found if one[3] > 0]


def test_every_damaged_member_is_named(pairs: Pairs, tmp_path: Path) -> None:
    shards = open_pairs(pairs)
    random = np.random.default_rng(0)
    for row, name, offset, size in _members(shards):
        tar = Path(pairs[row // 10][0])
        sound = tar.read_bytes()
        flipped = bytearray(sound)
        flipped[offset + int(random.integers(size))] ^= 1 << int(random.integers(8))
        zeroed = sound[:offset] + bytes(size) + sound[offset + size :]
        cut = sound[: offset + int(random.integers(size))]
        try:
            for damaged, how in ((flipped, "damaged"), (zeroed, "damaged"), (cut, "cut off")):
                tar.write_bytes(damaged)
                with pytest.raises(DamagedError) as caught:
                    shards.read([row])
                assert f"{tar}: member {name} (sample {key_of(row)!r}) is {how}" in str(caught.value)
        finally:
            tar.write_bytes(sound)
    assert shards.read(range(SAMPLES)) == expected(range(SAMPLES))


def test_swapped_and_missing_tars(pairs: Pairs, tmp_path: Path) -> None:
    first, second = (Path(tar).read_bytes() for tar, _ in pairs[:2])
    swapped = [(str(tmp_path / f"{n}.tar"), index) for n, (_, index) in enumerate(pairs[:2])]
    (tmp_path / "0.tar").write_bytes(second)
    (tmp_path / "1.tar").write_bytes(first)
    for row in range(20):
        with pytest.raises(DamagedError, match=rf"{row // 10}\.tar: member key%2E{row:05d}\.image"):
            open_pairs(swapped).read([row])
    (tmp_path / "0.tar").unlink()
    with pytest.raises(DamagedError, match=r"0\.tar is missing"):
        open_pairs(swapped).read([0])
    (tmp_path / "0.tar").write_bytes(b"")
    with pytest.raises(DamagedError, match="cut off: 0 of"):
        open_pairs(swapped).read([0])


def test_a_tar_cut_short_under_its_map_does_not_end_the_process(tmp_path: Path) -> None:
    pairs = write_shards(tmp_path, 300, 300)
    shards = open_pairs(pairs)
    shards.read(range(300))
    os.truncate(pairs[0][0], 4096)
    with pytest.raises(DamagedError, match="cut off"):
        shards.read(range(300))


def test_indexes_that_are_none(pairs: Pairs, tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DamagedError, match="no Parquet file"):
        open_pairs([(pairs[0][0], str(tmp_path / "bad.parquet"))])
    with pytest.raises(DamagedError, match="is missing"):
        open_pairs([(pairs[0][0], str(tmp_path / "none.parquet"))])


# Elsewhere


@pytest.fixture
def remote(pairs: Pairs) -> Pairs:
    system = fsspec.filesystem("memory")
    system.store.clear()
    found = []
    for pair in pairs:
        urls = [f"memory://reader/{Path(file).name}" for file in pair]
        for url, file in zip(urls, pair, strict=True):
            system.pipe_file(url, Path(file).read_bytes())
        found.append((urls[0], urls[1]))
    return found


def test_remote_tars_are_read_by_ranges(remote: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    system = type(fsspec.filesystem("memory"))
    asked = []
    original = system.cat_ranges
    monkeypatch.setattr(
        system, "cat_ranges", lambda self, paths, *a, **k: asked.append(len(paths)) or original(self, paths, *a, **k)
    )
    shards = open_pairs(remote)
    order = np.random.default_rng(1).permutation(SAMPLES)
    assert shards.read(order) == expected(order.tolist())
    assert asked == [5], "neighbours are read at once"
    fsspec.filesystem("memory").rm(remote[1][0])
    with pytest.raises(DamagedError, match=r"memory://reader/.* is missing"):
        shards.read([12])


def test_a_cut_remote_tar_is_an_error(remote: Pairs) -> None:
    system = fsspec.filesystem("memory")
    system.pipe_file(remote[0][0], system.cat_file(remote[0][0])[:3000])
    with pytest.raises(DamagedError, match=r"member .* is cut off"):
        open_pairs(remote).read(range(10))


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 40)), min_size=1), st.integers(0, 30))
def test_merged_spans_hold_the_same_bytes(lengths: list[tuple[int, int]], gap: int) -> None:
    spans = [(start, start + length) for start, length in lengths]
    merged = merge(spans, gap)
    assert all(any(a <= start and stop <= b for a, b in merged) for start, stop in spans)
    assert all(second[0] - first[1] > gap for first, second in pairwise(merged))
    edges = {edge for span in spans for edge in span}
    assert {edge for span in merged for edge in span} <= edges


# The cache


def test_the_cache_keeps_to_its_limit(remote: Pairs, tmp_path: Path) -> None:
    sizes = [fsspec.filesystem("memory").size(tar) for tar, _ in remote]
    cache = ShardCache(tmp_path / "cache", limit_bytes=max(sizes) * 2 + 100)
    shards = open_pairs(remote, cache=cache)
    for row in (0, 11, 22, 33, 44, 1, 12):
        assert shards.read([row]) == expected([row])
        assert sum(file.stat().st_size for file in (tmp_path / "cache").glob("*.*")) <= cache.limit_bytes
    assert len(list((tmp_path / "cache").glob("*.tar"))) >= 2
    assert len(shards.tars._paths) <= 3, "what the cache dropped is not kept open"


def test_a_tar_larger_than_the_cache_is_read_by_ranges(remote: Pairs, tmp_path: Path) -> None:
    shards = open_pairs(remote, cache=ShardCache(tmp_path, limit_bytes=500))
    assert shards.read(range(SAMPLES)) == expected(range(SAMPLES))
    assert list(tmp_path.glob("*.*")) == []


def test_a_replaced_object_is_fetched_anew(remote: Pairs, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, limit_bytes=1 << 30)
    assert open_pairs(remote, cache=cache).read([0]) == expected([0])
    system = fsspec.filesystem("memory")
    flipped = bytearray(system.cat_file(remote[0][0]))
    flipped[515] ^= 1
    system.pipe_file(remote[0][0], bytes(flipped))
    with pytest.raises(DamagedError, match="damaged"):
        open_pairs(remote, cache=cache).read([0])


def test_content_is_checked_when_it_is_fetched(remote: Pairs, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, limit_bytes=1 << 30)
    with pytest.raises(DamagedError, match="SHA-256"):
        cache.local(remote[0][0], "0" * 32)
    assert list(tmp_path.glob("*.*")) == []


def test_what_a_killed_process_left_in_the_cache_goes(pairs: Pairs, tmp_path: Path) -> None:
    url = f"file://{pairs[0][0]}"
    size = Path(pairs[0][0]).stat().st_size
    cache = ShardCache(tmp_path, limit_bytes=size + 10)
    (tmp_path / "x.0.part").write_bytes(bytes(size))
    (tmp_path / "x.0.arriving").write_bytes(bytes(10))
    assert cache.local(url) is not None
    assert [file.suffix for file in tmp_path.glob("*.*")] == [".tar"]


FETCH = """
import sys
from mmcore.shards import ShardCache
cache = ShardCache(sys.argv[1], int(sys.argv[2]))
for url in sys.argv[3:] * 20:
    path = cache.local(url)
    assert path is None or open(path, "rb").read(5)[:3] == b"key"
"""


def test_processes_share_a_cache(pairs: Pairs, tmp_path: Path) -> None:
    urls = [f"file://{tar}" for tar, _ in pairs]
    limit = max(Path(tar).stat().st_size for tar, _ in pairs) * 3
    command = [sys.executable, "-c", FETCH, str(tmp_path), str(limit)]
    started = [subprocess.Popen([*command, *urls[n:], *urls[:n]], stderr=subprocess.PIPE) for n in range(3)]
    for process in started:
        _, errors = process.communicate()
        # A copy may be removed by another process between being fetched and being opened; that is all.
        assert process.returncode == 0 or b"FileNotFoundError" in errors, errors
    assert sum(file.stat().st_size for file in tmp_path.glob("*.*")) <= limit


def test_no_room_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="room for nothing"):
        ShardCache(tmp_path, 0)


def test_tars_know_how_many_files_may_be_open() -> None:
    assert 8 <= Tars([]).most_open <= 4096
