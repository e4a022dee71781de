"""`mmcore quarantine` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmcore.config import RunConfig, load
from mmcore.modalities.base import CIRCUMSTANTIAL, REASONS
from mmcore.parallel import serial_pool
from mmcore.shards.exclusions import Exclusion, source_of
from mmcore.shards.foresee import foresee_shards
from mmcore.shards.plan import plan_shards
from mmcore.shards.prepare import prepare
from mmcore.storage import Store
from tests.flows.conftest import ROOT, clean_environment, mmcore
from tests.shards.conftest import Tally

PIPELINE = """
name: notes
data:
  manifest: manifest.csv
  max_rejected: 50%
  columns: {label: label}
  modalities:
    text: {kind: text, column: text}
shards: {samples: 8}
compute: {dask: {workers: 0}}
output: output
"""
BAD = b"no utf-8: \xff \xe9"


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty notes, of which one is no text, one is missing, one took too long and one has no label."""
    folder = tmp_path_factory.mktemp("notes")
    lines = ["id,label,split,text"]
    for n in range(40):
        (folder / f"{n}.txt").write_bytes(BAD if n == 3 else f"note {n}".encode())
        lines.append(f"k{n:02d},{'' if n == 9 else 'ab'[n % 2]},{('train', 'val', 'test')[n // 2 % 3]},{n}.txt")
    (folder / "manifest.csv").write_text("\n".join([*lines, "gone,a,train,none.txt", "too,many,cells,in,this"]) + "\n")
    (folder / "pipeline.yaml").write_text(PIPELINE)
    config = load(folder / "pipeline.yaml")
    store = Store(folder / "output").open()
    exclude(config, store, "k05", "time-limit", "no end after compute.sample_timeout_s (60 s)")
    prepared(config, store)
    return folder


def exclude(config: RunConfig, store: Store, key: str, code: str, message: str) -> None:
    """Set a sample's text aside, as a run does when circumstances keep it from being decoded."""
    for recipe in plan_shards(config, store).recipes:
        body = recipe.body
        if key in body["keys"]:
            source = source_of(body["media"]["text"], body["keys"].index(key))
            Exclusion(key, "text", source, code, message).publish(store)


def prepared(config: RunConfig, store: Store) -> None:
    dataset = prepare(config, store, serial_pool(config.compute), Tally())
    record = {"run_id": "notes-1", "name": "notes", "started": "2026-01-01T00:00:00", "dataset": dataset.digest}
    store.publish_json("runs/notes-1/run.json", record)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return clean_environment(tmp_path)


def said(env: dict[str, str], *arguments: str | Path, code: int = 0) -> str:
    done = mmcore("quarantine", *arguments, env=env)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def test_ls(notes: Path, env: dict[str, str]) -> None:
    text = said(env, "ls", notes / "pipeline.yaml")
    assert "k03 text: not-utf8" in text
    assert f"3.txt · {len(BAD)} B, kept" in text
    assert "gone text: missing-file" in text
    assert "k05 text: time-limit" in text
    assert REASONS["not-utf8"] in text
    for option in (("--code", "missing-file"), ("--modality", "text")):
        lines = json.loads(said(env, "ls", notes / "output", *option, "--json"))
        assert {line[option[0][2:]] for line in lines} == {option[1]}
    lines = json.loads(said(env, "ls", notes / "output", "--json"))
    assert {line["code"] for line in lines} >= {"not-utf8", "missing-file", "time-limit", "malformed-row"}
    kept = {line["key"]: line["size_bytes"] for line in lines if line["kept"]}
    assert kept == {"k03": len(BAD), "k05": len("note 5")}
    assert "Nothing of this kind" in said(env, "ls", notes / "output", "--code", "corrupt")


def test_show(notes: Path, env: dict[str, str], tmp_path: Path) -> None:
    text = said(env, "show", notes / "output", "k03", "--to", tmp_path / "dump")
    assert "The text is not valid UTF-8." in text
    assert (tmp_path / "dump" / "k03.text.txt").read_bytes() == BAD
    assert "mmcore quarantine retry" in said(env, "show", notes / "output", "k05", "--to", tmp_path / "dump")
    assert (tmp_path / "dump" / "k05.text.txt").read_bytes() == b"note 5"
    assert "not kept: none.txt" in said(env, "show", notes / "output", "gone", "--to", tmp_path / "dump")
    assert "There are: k03, k05" in said(env, "show", notes / "output", "k0", code=2)
    (tmp_path / "file").write_text("in the way")
    assert "cannot be written" in said(env, "show", notes / "output", "k03", "--to", tmp_path / "file" / "new", code=2)


def test_a_stopped_run_is_shown_too(notes: Path, env: dict[str, str], tmp_path: Path) -> None:
    output = tmp_path / "output"
    stopped = mmcore("prepare", notes / "pipeline.yaml", f"output={output}", "data.max_rejected=7%", env=env)
    assert stopped.returncode == 3, stopped.stdout + stopped.stderr
    text = said(env, "ls", output)
    assert "no finished data set" in text
    assert "not-utf8" in text or "missing-file" in text


def test_retry(notes: Path, env: dict[str, str]) -> None:
    config, store = load(notes / "pipeline.yaml"), Store(notes / "output")
    assert "Nothing was changed" in said(env, "retry", notes / "pipeline.yaml")
    assert "nothing here" in said(env, "retry", notes / "output", "--key", "k03")
    assert len(store.listing("exclusions")) == 1
    text = said(env, "retry", notes / "output", "--code", "time-limit", "--yes")
    assert "k05 text: time-limit" in text
    assert "Removed 1 entry" in text
    assert store.listing("exclusions") == {}
    (step,) = [one for one in foresee_shards(config, store)[2] if one.action == "compute"]
    assert step.reason == "text changed"
    prepared(config, store)
    assert "k05" not in said(env, "ls", notes / "output")
    text = said(env, "retry", notes / "output")
    assert "There is nothing here" in text
    assert "correct the file" in text


def test_the_documentation_lists_every_reason() -> None:
    lines = (ROOT / "docs" / "quarantine.md").read_text().splitlines()
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    listed = {code: (kind, meaning) for code, kind, meaning in (row for row in cells if len(row) == 3)}
    assert listed == {
        code: ("circumstantial" if code in CIRCUMSTANTIAL else "intrinsic", meaning)
        for code, meaning in REASONS.items()
    }
