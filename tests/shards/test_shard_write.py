from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import webdataset

from mmcore.config.media import TextSettings
from mmcore.errors import SourceChangedError, StageError
from mmcore.records import digest
from mmcore.shards.exclusions import Exclusion, source_of, with_exclusions
from mmcore.shards.foresee import entries_of
from mmcore.shards.plan import plan_shards
from mmcore.shards.read import read_index, read_members
from mmcore.shards.recipe import WRITER_VERSION, ShardJob, ShardRecipe
from mmcore.shards.write import Setback, make_shard
from mmcore.sources.fingerprints import fingerprints
from mmcore.storage import Store, sha256

from . import bad_codec
from .conftest import Bench, files_of

TEXT = {"kind": "text", "max_chars": 20, "max_bytes": 1000, "version": TextSettings.version}
GOLDEN = {
    "kind": "shard",
    "writer": WRITER_VERSION,
    "split": "train",
    "bad_modality": "keep",
    "filters": [],
    "task": "classes",
    "part_bytes": None,
    "extras": {},
    "modalities": {"caption": TEXT, "title": TEXT},
    "keys": ["v1.2", "v1.3", "50%", "ключ", "empty"],
    "labels": ["a", "b", "a", "b", "a"],
    "media": {
        "caption": {"texts": ["one", "two", None, "четыре", " "]},
        "title": {"texts": ["One", None, "Three", "long " * 10, None]},
    },
    "excluded": [["v1.3", "caption", "time-limit", "too slow"]],
}


def _job(store: Store, body: dict = GOLDEN, roots: tuple = ()) -> ShardJob:
    return ShardJob(ShardRecipe.of(body), store, roots or (("/nowhere", len(body["keys"])),), 60.0)


def test_golden_bytes(store: Store) -> None:
    """If this fails, the bytes of shards have changed: raise WRITER_VERSION and put the new digests here."""
    receipt = make_shard(_job(store))
    index = read_index(store, entries_of(receipt)[0])
    # The index's bytes also name the version of pyarrow; a modality's wording and version are its own.
    own = {"rejects", "modalities", "recipe", "sources", "quarantine"}
    (file,) = receipt["files"]
    kept = {name: value for name, value in file.items() if name != "index"}
    receipt = {name: value for name, value in receipt.items() if name not in own} | {"files": [kept]}
    found = (WRITER_VERSION, file["tar"]["sha256"], digest(_plain(index)), digest(receipt))
    assert found == GOLDEN_DIGESTS


def _plain(index):
    """Signatures are bytes, which JSON cannot hold; facts are a modality's own."""
    names = [name for name in index.column_names if not name.endswith((".signature", ".facts"))]
    return index.select(names).to_pydict()


GOLDEN_DIGESTS = (
    5,
    "78b892ed1a27bb3e81348a218b35862b",
    "88d9c58bfcbeb72f9caa07423aaf211d",
    "9130539b8c1a4f0dc58d4b73fb61861e",
)


def test_what_a_shard_holds(store: Store) -> None:
    receipt = make_shard(_job(store))
    rejects = [(r["key"], r["modality"], r["code"], r["circumstantial"]) for r in receipt["rejects"]]
    assert rejects == [
        ("v1.3", "caption", "time-limit", True),
        ("v1.3", "", "no-modality", False),
        ("empty", "caption", "empty-text", False),
        ("empty", "", "no-modality", False),
    ]
    assert (receipt["rows"], receipt["samples"], receipt["whole"]) == (5, 3, 2)
    assert receipt["present"] == {"caption": 2, "title": 3}
    assert receipt["classes"] == {"a": 2, "b": 1}
    index = read_index(store, entries_of(receipt)[0]).to_pydict()
    assert index["key"] == ["v1.2", "50%", "ключ"]
    assert index["label"] == ["a", "a", "b"]
    assert index["caption.present"] == [True, False, True]
    assert index["caption.offset"][1] is None
    facts = json.loads(index["title.facts"][2])
    assert (facts["chars"], facts["words"], facts["applied"]) == (49, 10, ["cut"])
    checksums = [sha256(b"one"), None, sha256("четыре".encode())]
    assert index["caption.sha256"] == checksums
    assert receipt["files"][0]["views"]["caption"] == digest({"keys": index["key"], "checksums": checksums})
    assert receipt["files"][0]["labels"] == digest([["v1.2", "a"], ["50%", "a"], ["ключ", "b"]])
    assert store.read_json(f"shards/{receipt['recipe']}.json") == receipt
    assert receipt["recipe"] == digest(GOLDEN)
    assert not list(Path(store.root, "tmp").iterdir())


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves its file to the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_other_readers_see_the_samples(store: Store) -> None:
    path = store.url(make_shard(_job(store))["files"][0]["tar"]["path"])
    wanted = {
        "v1%2E2": {"caption.txt": b"one", "title.txt": b"One"},
        "50%25": {"title.txt": b"Three"},
        "ключ": {"caption.txt": "четыре".encode(), "title.txt": b"long long long long"},
    }
    with tarfile.open(path) as archive:
        members = {m.name: archive.extractfile(m).read() for m in archive}
        assert all((m.mtime, m.uid, m.gid, m.mode, m.isfile()) == (0, 0, 0, 0o644, True) for m in archive)
    assert members == {f"{key}.{name}": data for key, parts in wanted.items() for name, data in parts.items()}

    samples = webdataset.WebDataset(path, shardshuffle=False, empty_check=False)
    found = {s["__key__"]: {n: d for n, d in s.items() if not n.startswith("__")} for s in samples}
    assert found == wanted


def test_labels_do_not_touch_the_tar(store: Store) -> None:
    before = make_shard(_job(store))
    after = make_shard(_job(store, {**GOLDEN, "labels": ["b"] * 5}))
    assert after["recipe"] != before["recipe"]
    assert after["files"][0]["tar"] == before["files"][0]["tar"]
    assert after["files"][0]["views"] == before["files"][0]["views"]
    assert after["files"][0]["labels"] != before["files"][0]["labels"]


def test_one_bad_modality_drops_the_sample_where_so_set(store: Store) -> None:
    media = {"caption": {"texts": ["one", " ", "three"]}, "title": {"texts": ["One", "Two", None]}}
    body = {**GOLDEN, "keys": ["a", "b", "c"], "labels": ["x"] * 3, "media": media, "excluded": []}
    kept = make_shard(_job(store, body))
    assert (kept["samples"], [r["code"] for r in kept["rejects"]]) == (3, ["empty-text"])
    dropped = make_shard(_job(store, {**body, "bad_modality": "drop"}))
    assert (dropped["samples"], [r["code"] for r in dropped["rejects"]]) == (2, ["empty-text", "dropped"])


def test_another_process_makes_the_same_bytes(tmp_path: Path) -> None:
    script = (
        "import json, sys; from mmcore.shards.recipe import *; from mmcore.shards.write import make_shard;"
        "from mmcore.storage import Store; body = json.load(sys.stdin);"
        "make_shard(ShardJob(ShardRecipe.of(body), Store(sys.argv[1]), (('/elsewhere', 5),), 60.0));"
        "assert not {'torch', 'sklearn', 'scipy', 'dask', 'PIL', 'soundfile'} & set(sys.modules)"
    )
    one, other = Store(tmp_path / "one").open(), Store(tmp_path / "other").open()
    make_shard(_job(one))
    # Another order of the recipe's keys, another hash seed.
    shuffled = json.dumps(dict(reversed(GOLDEN.items())))
    command = [sys.executable, "-c", script, other.root]
    subprocess.run(command, input=shuffled, text=True, check=True, env={"PYTHONHASHSEED": "7"})
    assert files_of(one) == files_of(other)


def test_faults_of_files_are_data(bench: Bench) -> None:
    config = bench.write()
    words = bench.folder / "data" / "word"
    (words / "k0000.txt").write_bytes(b"")
    (words / "k0001.txt").unlink()
    (words / "k0002.txt").write_bytes(b"caf\xe9")
    (words / "k0005.txt").unlink()
    (words / "k0005.txt").mkdir()
    manifest = bench.folder / "data" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("word/k0006.txt", "../../k0006.txt"))
    rejects = {}
    plan = plan_shards(config, bench.store)
    for recipe, roots in zip(plan.recipes, plan.roots, strict=True):
        receipt = make_shard(ShardJob(recipe, bench.store, roots, 60.0))
        rejects |= {(r["key"], r["modality"]): (r["code"], r["source"]) for r in receipt["rejects"]}
        assert str(bench.folder) not in json.dumps(receipt)
    assert rejects == {
        ("k0000", "word"): ("empty-file", "word/k0000.txt"),
        ("k0000", ""): ("no-modality", ""),
        ("k0001", "word"): ("missing-file", "word/k0001.txt"),
        ("k0002", "word"): ("not-utf8", "word/k0002.txt"),
        ("k0005", "word"): ("missing-file", "word/k0005.txt"),
        ("k0006", "word"): ("outside-root", "../../k0006.txt"),
    }


def test_a_file_that_changes_after_planning_is_noticed(bench: Bench) -> None:
    plan = plan_shards(bench.write(), bench.store)
    bench.rows["k0000"][2] = "edited meanwhile"
    bench.write()
    (position,) = [n for n, recipe in enumerate(plan.recipes) if "k0000" in recipe.body["keys"]]
    with pytest.raises(SourceChangedError, match=r"k0000.txt was edited after the run was planned"):
        make_shard(ShardJob(plan.recipes[position], bench.store, plan.roots[position], 60.0))
    assert bench.store.listing("shards") == {}


def test_what_circumstances_spoil_is_not_published(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {**GOLDEN, "media": {**GOLDEN["media"], "title": {"texts": ["memory", None, "fine", "memory", None]}}}
    result = bad_codec.make_shard(_job(bench.store, body))
    assert isinstance(result, Setback)
    assert [(e.key, e.modality, e.code) for e in result.exclusions] == [
        ("v1.2", "title", "codec-died"),
        ("ключ", "title", "codec-died"),
    ]
    assert bench.store.listing("shards") == {}


def test_what_cannot_be_read_is_excluded_at_once(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one pass the same bytes, under the same names, as making the shard again with these cells excluded."""

    def broken(*_):
        raise OSError(5, "Input/output error")

    plan = plan_shards(bench.write(), bench.store)
    job = ShardJob(plan.recipes[0], bench.store, plan.roots[0], 60.0)
    with monkeypatch.context() as patch:
        patch.setattr("mmcore.shards.cells.read_source", broken)
        patch.setattr("mmcore.shards.unreadable.read_source", broken)
        receipt = make_shard(job)
        assert [r["code"] for r in receipt["rejects"] if r["modality"]] == ["io-error"] * job.recipe.rows
        assert make_shard(job) == receipt
    body, words = job.recipe.body, job.recipe.body["media"]["word"]
    met = [
        Exclusion(key, "word", source_of(words, row), "io-error", "Input/output error")
        for row, key in enumerate(body["keys"])
    ]
    other = Store(tmp_path / "other").open()
    again = make_shard(ShardJob(with_exclusions(job.recipe, met), other, plan.roots[0], 60.0))
    assert again == receipt
    for folder in ("shards", "quarantine"):
        assert other.listing(folder) == bench.store.listing(folder)
    # Once it can be read, it is.
    assert make_shard(job)["rejects"] == []


def test_a_bug_in_a_modality_names_the_sample(store: Store) -> None:
    body = {**GOLDEN, "media": {**GOLDEN["media"], "title": {"texts": ["bug", None, None, None, None]}}}
    with pytest.raises(StageError, match=r"title of 'v1.2' .*RuntimeError: a bug"):
        bad_codec.make_shard(_job(store, body))


def test_recipes_of_other_code_are_refused(store: Store) -> None:
    body = {**GOLDEN, "modalities": {"caption": TEXT, "title": {**TEXT, "version": 99}}}
    with pytest.raises(StageError, match="version 99"):
        make_shard(_job(store, body))


def _with(**changes) -> dict:
    return {**GOLDEN, "excluded": [], **changes}


def test_several_files_become_numbered_members(store: Store, tmp_path: Path) -> None:
    for name, text in {"a.txt": "one", "b.txt": "two", "c.txt": "three", "bad.txt": "\x00"}.items():
        (tmp_path / name).write_text(text)
    refs = [["list", "a.txt", "b.txt"], None, ["list", "c.txt"], ["list", "a.txt", "bad.txt"]]
    prints = [ref and fingerprints(str(tmp_path), ref[1:], "stat") for ref in refs]
    body = _with(
        modalities={"note": {**TEXT, "several": True}, "title": TEXT},
        keys=["a.a", "b", "c", "d"],
        labels=["x"] * 4,
        media={"note": {"files": refs, "fingerprints": prints}, "title": {"texts": ["A", "B", "C", "D"]}},
    )
    receipt = make_shard(_job(store, body, ((str(tmp_path), 4),)))
    (entry,) = entries_of(receipt)
    assert list(read_members(store, entry, "note")) == [
        ("a.a", (b"one", b"two")),
        ("b", None),
        ("c", (b"three",)),
        ("d", None),
    ]
    with tarfile.open(store.url(entry.tar.path)) as tar:
        names = ["a%2Ea.note.000.txt", "a%2Ea.note.001.txt", "a%2Ea.title.txt"]
        assert tar.getnames()[:3] == names
    index = read_index(store, entry).to_pydict()
    assert index["note.sha256"][0] == [sha256(b"one"), sha256(b"two")]
    assert index["note.source"] == ["a.txt; b.txt", None, "c.txt", None]
    assert index["note.source_sha256"][0] == sha256(f"{sha256(b'one')},{sha256(b'two')}".encode())
    assert json.loads(index["note.facts"][0])["count"] == 2
    (reject,) = receipt["rejects"]
    assert (reject["key"], reject["modality"], reject["source"]) == ("d", "note", "a.txt; bad.txt")
    assert reject["message"].startswith("bad.txt: ")


def test_a_shard_that_grows_too_large_is_continued(store: Store) -> None:
    texts = ["x" * 500, "y" * 500, "z" * 500, None, "w" * 500]
    body = _with(
        modalities={"caption": {**TEXT, "max_chars": 1000}}, media={"caption": {"texts": texts}}, part_bytes=2500
    )
    receipt = make_shard(_job(store, body))
    entries = entries_of(receipt)
    assert [entry.samples for entry in entries] == [2, 2]
    assert (receipt["samples"], receipt["present"], receipt["classes"]) == (4, {"caption": 4}, {"a": 3, "b": 1})
    members = [member for entry in entries for member in read_members(store, entry, "caption")]
    assert members == [
        (key, (text.encode(),)) for key, text in zip(body["keys"], texts, strict=True) if text is not None
    ]


@pytest.mark.parametrize(
    ("task", "labels", "classes"),
    [
        ("multilabel", [["a", "b"], ["b"], [], ["a"], ["c"]], {"a": 2, "b": 1, "c": 1}),
        ("regression", [0.5, 1.0, -2.0, 4.0, 5.0], {}),
        ("classes", [None, "b", None, "a", None], {"a": 1}),
    ],
)
def test_targets_of_every_task(store: Store, task: str, labels: list, classes: dict) -> None:
    extras = {"group": list("ppqqr"), "weight": [1.0, 2.0, 0.5, 1.0, 1.0], "meta.site": list("vwxyz")}
    media = {"caption": {"texts": ["one", " ", "three", "four", "five"]}}
    body = _with(task=task, labels=labels, extras=extras, modalities={"caption": TEXT}, media=media)
    receipt = make_shard(_job(store, body))
    index = read_index(store, entries_of(receipt)[0]).to_pydict()
    kept = [0, 2, 3, 4]
    assert index["label"] == [labels[row] for row in kept]
    assert {name: index[name] for name in extras} == {name: [v[row] for row in kept] for name, v in extras.items()}
    assert receipt["classes"] == classes
