"""What is unfit is kept beside the shards: within limits, equal to the byte, and never without being checked."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from mmcore.errors import DamagedError
from mmcore.parallel import serial_pool
from mmcore.records import Json
from mmcore.shards.foresee import Shelf
from mmcore.shards.plan import plan_shards
from mmcore.shards.prepare import prepare
from mmcore.shards.quarantine import Quarantined, ending_of, kept_bytes, read_quarantine
from mmcore.shards.write import make_shard
from mmcore.storage import Store, sha256

from .conftest import Bench, Tally, files_of
from .test_shard_write import _job

BAD = b"no utf-8: \xff \xe9"


@pytest.fixture
def bad(bench: Bench) -> Bench:
    """Sixty rows: two files that are no text, one that is too large, one that is not there."""
    bench.settings = {"max_rejected": 1.0}
    bench.write()
    for key, data in (("k0000", BAD), ("k0001", BAD * 2), ("k0002", b"x" * 2000)):
        (bench.folder / "data" / "word" / f"{key}.txt").write_bytes(data)
        bench.rows[key][2] = ""
    return bench


def _prepared(bench: Bench, store: Store | None = None, **quarantine: int) -> list[Json]:
    """The receipts of all shards."""
    bench.settings |= {"quarantine": quarantine}
    config = bench.write()
    manifest = bench.folder / "data" / "manifest.csv"
    lines = manifest.read_text().splitlines()
    bad = {f"k000{n}": f"word/k000{n}.txt" for n in range(3)} | {"k0003": "word/none.txt"}
    manifest.write_text("\n".join(_with_file(line, bad) for line in lines) + "\n")
    word = config.data.modalities["word"].model_copy(update={"max_bytes": 1000})
    data = config.data.model_copy(update={"modalities": {**config.data.modalities, "word": word}})
    config = config.model_copy(update={"data": data})
    store = store or bench.store
    prepare(config, store, serial_pool(config.compute), Tally())
    return [receipt for receipt in Shelf(plan_shards(config, store), store).receipts if receipt]


def _with_file(line: str, files: dict[str, str]) -> str:
    key, label, split, word, note = line.split(",")
    return ",".join((key, label, split, files.get(key, word), note))


def _cells(store: Store, receipts: list[Json]) -> dict[str, tuple[Json, Quarantined]]:
    return {cell.key: (receipt, cell) for receipt in receipts for cell in read_quarantine(store, receipt)}


def test_bad_bytes_are_kept_and_others_named(bad: Bench) -> None:
    cells = _cells(bad.store, _prepared(bad))
    codes = {key: (cell.modality, cell.code, cell.source, cell.size_bytes) for key, (_, cell) in cells.items()}
    assert codes == {
        "k0000": ("word", "not-utf8", "word/k0000.txt", len(BAD)),
        "k0001": ("word", "not-utf8", "word/k0001.txt", 2 * len(BAD)),
        "k0002": ("word", "too-many-bytes", "word/k0002.txt", None),
        "k0003": ("word", "missing-file", "word/none.txt", None),
    }
    assert kept_bytes(bad.store, *cells["k0000"]) == ("k0000.word.txt", BAD)
    assert cells["k0001"][1].sha256 == sha256(BAD * 2)
    assert kept_bytes(bad.store, *cells["k0002"]) is None
    tars = sorted(Path(bad.store.url("quarantine")).glob("*.tar"))
    members = {}
    for tar in tars:
        with tarfile.open(tar) as archive:
            members |= {member.name: archive.extractfile(member).read() for member in archive}
    assert members == {"k0000.word.txt": BAD, "k0001.word.txt": BAD * 2}
    assert [tar.stem for tar in tars] == [sha256(tar.read_bytes()) for tar in tars]


def test_receipts_without_rejects_say_nothing_of_it(bad: Bench) -> None:
    for receipt in _prepared(bad):
        cells = [reject for reject in receipt["rejects"] if reject["modality"]]
        assert ("quarantine" in receipt) == bool(cells)


def test_limits_of_a_file_and_of_a_shard(bad: Bench) -> None:
    cells = _cells(bad.store, _prepared(bad, file_bytes=len(BAD)))
    assert [cells[key][1].offset is not None for key in ("k0000", "k0001")] == [True, False]
    cells = _cells(bad.store, _prepared(bad, shard_bytes=len(BAD) - 1))
    assert all(cell.offset is None for _, cell in cells.values())
    assert all(receipt["quarantine"]["tar"] is None for receipt, _ in cells.values())


def test_equal_bytes_twice(bad: Bench, tmp_path: Path) -> None:
    _prepared(bad)
    again = Store(tmp_path / "again").open()
    _prepared(bad, again)
    assert files_of(again) == files_of(bad.store)


def test_limits_do_not_touch_the_samples(bad: Bench) -> None:
    before = [receipt["files"] for receipt in _prepared(bad)]
    assert [receipt["files"] for receipt in _prepared(bad, file_bytes=0)] == before


def test_what_circumstances_set_aside_is_kept_undecoded(store: Store) -> None:
    receipt = make_shard(_job(store))
    cells = {cell.key: cell for cell in read_quarantine(store, receipt)}
    assert cells["v1.3"].code == "time-limit"
    assert kept_bytes(store, receipt, cells["v1.3"]) == ("v1%2E3.caption.txt", b"two")
    assert kept_bytes(store, receipt, cells["empty"]) == ("empty.caption.txt", b" ")


def test_damage_of_the_quarantine_is_seen_and_its_loss_is_none(bad: Bench) -> None:
    receipts = _prepared(bad)
    receipt, cell = _cells(bad.store, receipts)["k0000"]
    tar = Path(bad.store.url(receipt["quarantine"]["tar"]["path"]))
    data = bytearray(tar.read_bytes())
    data[cell.offset] ^= 1
    tar.write_bytes(data)
    with pytest.raises(DamagedError, match="word of 'k0000' is not what was set aside"):
        kept_bytes(bad.store, receipt, cell)
    table = Path(bad.store.url(receipt["quarantine"]["table"]["path"]))
    table.write_bytes(b"PAR1")
    with pytest.raises(DamagedError, match="remove it"):
        read_quarantine(bad.store, receipt)
    tar.unlink()
    table.unlink()
    assert kept_bytes(bad.store, receipt, cell) is None
    assert read_quarantine(bad.store, receipt) == []
    # Who removes it to have the space back does not cause the shards to be made again.
    assert [one["recipe"] for one in _prepared(bad)] == [one["recipe"] for one in receipts]
    assert not tar.exists()


def test_endings() -> None:
    names = ["a/b.JPG", "x.tar.gz", "a.b/c", "noise.jpeg2000", ".hidden", "ö.ü", "a."]
    assert [ending_of(name) for name in names] == ["jpg", "gz", "bin", "bin", "bin", "bin", "bin"]
