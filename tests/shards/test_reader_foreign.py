from __future__ import annotations

import gc
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import webdataset

from mmcore.errors import DamagedError, SourceError
from mmcore.shards import ShardCache, ShardLoader, ShardStream, open_tars

pytestmark = pytest.mark.filterwarnings(
    # webdataset leaves the tars it has read to the end open.
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


def _sample(number: int) -> dict[str, Any]:
    random = np.random.default_rng(number)
    sample = {"__key__": f"part{number % 3}/key{number:04d}", "JPG": random.bytes(int(random.integers(0, 3000)))}
    if number % 4:
        sample["seg.png"] = random.bytes(50)
    return {**sample, "json": {"number": number}}


def _write(folder: Path, samples: int = 30, per_shard: int = 8) -> list[str]:
    """Tars by webdataset's own writer, with a PAX record before each member."""
    with webdataset.ShardWriter(f"{folder}/train-%06d.tar", maxcount=per_shard, verbose=0) as writer:
        for number in range(samples):
            writer.write(_sample(number))
    return sorted(str(file) for file in folder.glob("*.tar"))


def _theirs(urls: list[str]) -> list[dict[str, Any]]:
    found = [
        {name: value for name, value in sample.items() if name not in {"__url__", "__local_path__"}}
        for sample in webdataset.WebDataset(urls, shardshuffle=False)
    ]
    gc.collect()
    return found


def _ours(shards: Any) -> list[dict[str, Any]]:
    samples = [sample for batch in shards.batches(7) for sample in batch]
    return [{k: v for k, v in sample.items() if v is not None and k != "label"} for sample in samples]


def test_samples_are_those_of_webdataset(tmp_path: Path) -> None:
    urls = _write(tmp_path)
    shards = open_tars(f"{tmp_path}/*.tar")
    assert shards.fields == ("jpg", "json", "seg.png")
    assert [file.url for file in shards.files] == urls
    assert _ours(shards) == _theirs(urls)
    assert shards.read([4])[0]["seg.png"] is None


def test_names_are_grouped_as_webdataset_does(tmp_path: Path) -> None:
    names = [
        "./a.txt",
        "./a.seg.PNG",
        "b/c.d/e.txt",
        "b/c.d/e.f.g.txt",
        "nodot",
        "__meta__/x.txt",
        "d/é.txt",
        ".h",
        "z.txt",
    ]
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(name.encode())
            archive.addfile(info, io.BytesIO(name.encode()))
    assert _ours(open_tars(str(tmp_path / "x.tar"))) == _theirs([str(tmp_path / "x.tar")])


def _plain(path: Path, names: list[str]) -> str:
    with tarfile.open(path, "w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
    return str(path)


def test_members_that_webdataset_would_split_or_merge(tmp_path: Path) -> None:
    apart = _plain(tmp_path / "a.tar", ["k.jpg", "l.jpg", "k.txt"])
    with pytest.raises(SourceError, match=r"the members of sample 'k' do not follow each other \('k.txt' comes late\)"):
        open_tars(apart)
    joined = open_tars(apart, scattered="join")
    assert (joined.keys, joined.read([0])[0]["txt"]) == (["k", "l"], b"x")
    with pytest.raises(SourceError, match=r"two members 'k\.JPG' of one sample"):
        open_tars(_plain(tmp_path / "b.tar", ["k.jpg", "k.JPG"]))


def test_damaged_tars_are_errors_where_webdataset_is_silent(tmp_path: Path) -> None:
    url = _write(tmp_path, per_shard=100)[0]
    whole = Path(url).read_bytes()
    with tarfile.open(url) as archive:
        middle = archive.getmembers()[40]
    header = middle.offset_data - 512
    for damaged in (whole[: middle.offset], whole[: header + 100], whole[:header] + bytes(512) + whole[header + 512 :]):
        Path(url).write_bytes(damaged)
        with pytest.raises(DamagedError, match=r"000000\.tar"):
            open_tars(url)
    with pytest.raises(DamagedError, match="is missing"):
        open_tars(str(tmp_path / "none.tar"))
    with pytest.raises(SourceError, match="nothing matches"):
        open_tars(str(tmp_path / "none*.tar"))


@pytest.mark.parametrize("where", ["beside", "folder"])
def test_saved_indexes_are_used_until_the_tar_changes(where: str, tmp_path: Path) -> None:
    url = _write(tmp_path, per_shard=100)[0]
    folder = "beside" if where == "beside" else str(tmp_path / "indexes")
    first = _ours(open_tars(url, indexes=folder))
    saved = list((tmp_path / "indexes").glob("*") if where == "folder" else tmp_path.glob("*.parquet"))
    assert len(saved) == 1
    assert {file.name for file in tmp_path.iterdir()} <= {"indexes", Path(url).name, Path(url).name + ".index.parquet"}
    before = saved[0].stat().st_mtime_ns
    assert _ours(open_tars(url, indexes=folder)) == first
    assert saved[0].stat().st_mtime_ns == before
    # A flip that leaves size and time alone is found by the saved checksums.
    status = os.stat(url)
    data = bytearray(Path(url).read_bytes())
    at = data.index(first[3]["jpg"]) + 5
    data[at] ^= 1
    Path(url).write_bytes(data)
    os.utime(url, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DamagedError, match=r"member part0/key0003\.jpg \(sample 'part0/key0003'\) is damaged"):
        _ours(open_tars(url, indexes=folder))
    os.utime(url, ns=(1, 1))
    assert _ours(open_tars(url, indexes=folder)) != first
    saved[0].write_bytes(b"broken")
    assert len(_ours(open_tars(url, indexes=folder))) == 30


def test_tars_on_a_bucket(tmp_path: Path) -> None:
    urls = _write(tmp_path)
    system = fsspec.filesystem("memory")
    for url in urls:
        system.pipe_file(f"memory://foreign/{Path(url).name}", Path(url).read_bytes())
    for cache in (None, ShardCache(tmp_path / "cache", 1 << 20)):
        shards = open_tars("memory://foreign/*.tar", indexes="memory://indexes", cache=cache)
        assert _ours(shards) == _theirs(urls)
    assert len(system.ls("memory://indexes")) == len(urls)


def test_epochs_over_foreign_tars(tmp_path: Path) -> None:
    _write(tmp_path)
    loader = ShardLoader(ShardStream(open_tars(f"{tmp_path}/*.tar"), 4, decode={"json": json.loads}), num_workers=2)
    numbers = [sample["json"]["number"] for batch in loader for sample in batch]
    assert sorted(numbers) == list(range(30))
    assert numbers != list(range(30))
