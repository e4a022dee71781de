from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmcore.parallel import Pool
from mmcore.progress import Silent
from mmcore.records import ShardEntry, Step
from mmcore.shards.prepare import foresee_shards, prepare

from .conftest import Bench


def _steps(bench: Bench) -> list[Step]:
    return foresee_shards(bench.write(), bench.store)[2]


def _reasons(bench: Bench) -> set[str]:
    return {step.reason for step in _steps(bench) if step.action == "compute"}


def test_before_the_first_run_all_is_new(bench: Bench) -> None:
    plan, entries, steps = foresee_shards(bench.write(), bench.store)
    assert {(step.stage, step.action, step.reason) for step in steps} == {("prepare", "compute", "new")}
    assert [step.digest for step in steps] == [recipe.digest for recipe in plan.recipes]
    assert sum(step.samples for step in steps) == len(bench.rows)
    assert [step.name for step in steps if "val" in step.name][:1] == ["val 1"]
    assert all(entry.labels is None and set(entry.views.values()) == {None} for entry in entries)
    assert sum(entry.present["note"] for entry in entries) == sum(bool(row[3]) for row in bench.rows.values())


def test_after_a_run_all_is_known(bench: Bench, serial: Pool) -> None:
    dataset = prepare(bench.write(), bench.store, serial, Silent())
    _, entries, steps = foresee_shards(bench.write(), bench.store)
    assert tuple(entries) == dataset.shards
    assert {(step.action, step.reason) for step in steps} == {("reuse", "finished")}


def _label(bench: Bench) -> None:
    bench.rows["k0010"][0] = "odd"


def _word(bench: Bench) -> None:
    bench.rows["k0010"][2] = "another word"


def _both(bench: Bench) -> None:
    bench.rows["k0010"][2:] = ["another word", "another note"]


def _settings(bench: Bench) -> None:
    word = {"kind": "text", "column": "word", "max_chars": 4}
    bench.settings = {"modalities": {"word": word, "note": {"kind": "text", "column": "note", "inline": True}}}


def _without_note(bench: Bench) -> None:
    bench.settings = {"modalities": {"word": {"kind": "text", "column": "word"}}}


def _drop(bench: Bench) -> None:
    bench.settings = {"bad_modality": "drop"}


def _filter(bench: Bench) -> None:
    bench.settings = {"filters": ["word.chars > 1"]}


@pytest.mark.parametrize(
    ("change", "reason", "count", "unknown"),
    [
        (_label, "labels changed", 1, {"labels"}),
        (_word, "word changed", 1, {"word"}),
        (_both, "note changed; word changed", 1, {"word", "note"}),
        (_settings, "settings of word changed", None, {"word"}),
        (_without_note, "note removed", None, set()),
        (_drop, "data.bad_modality changed", None, {"word", "note", "labels"}),
        (_filter, "data.filters changed", None, {"word", "note", "labels"}),
    ],
)
def test_what_a_change_touches_is_foreseen(
    bench: Bench, serial: Pool, *, change: Callable[[Bench], None], reason: str, count: int | None, unknown: set[str]
) -> None:
    prepare(bench.write(), bench.store, serial, Silent())
    change(bench)
    _, entries, steps = foresee_shards(bench.write(), bench.store)
    touched = [entry for entry, step in zip(entries, steps, strict=True) if step.action == "compute"]
    assert {step.reason for step in steps if step.action == "compute"} == {reason}
    assert len(touched) == (count or len(steps))
    for entry in touched:
        assert {name for name, view in entry.views.items() if view is None} == unknown - {"labels"}
        assert (entry.labels is None) == ("labels" in unknown)
    made = prepare(bench.write(), bench.store, serial, Silent())
    assert len(made.shards) == len(entries)
    for foreseen, real in zip(entries, made.shards, strict=True):
        _agree(foreseen, real)


def _agree(foreseen: ShardEntry, real: ShardEntry) -> None:
    assert (foreseen.recipe, foreseen.samples) == (real.recipe, real.samples)
    assert foreseen.labels in (None, real.labels)
    assert all(view in (None, real.views[name]) for name, view in foreseen.views.items())
    assert foreseen.present == real.present


def test_added_and_removed_rows_touch_the_shards_around_them(bench: Bench, serial: Pool) -> None:
    prepare(bench.write(), bench.store, serial, Silent())
    bench.rows["k9999"] = ["even", "train", "word", "note"]
    assert _reasons(bench) == {"rows added or removed"}
    del bench.rows["k9999"]
    assert _reasons(bench) == set()
    del bench.rows["k0020"]
    steps = [step for step in _steps(bench) if step.action == "compute"]
    assert {step.reason for step in steps} == {"rows added or removed"}
    assert len(steps) <= 2


@pytest.mark.parametrize("damage", ["no tar", "short tar", "no index", "bad receipt"])
def test_damage_is_seen_and_mended(bench: Bench, serial: Pool, damage: str) -> None:
    dataset = prepare(bench.write(), bench.store, serial, Silent())
    first = dataset.shards[0]
    tar, index = (Path(bench.store.url(file.path)) for file in (first.tar, first.index))
    sound = tar.read_bytes()
    if damage == "no tar":
        tar.unlink()
    elif damage == "short tar":
        tar.write_bytes(sound[:-512])
    elif damage == "no index":
        index.unlink()
    else:
        Path(bench.store.url(f"shards/{first.recipe}.json")).write_text('{"recipe": ')
    _, entries, steps = foresee_shards(bench.write(), bench.store)
    assert [step.action for step in steps].count("compute") == 1
    assert steps[0].reason == "file missing or truncated"
    assert damage == "bad receipt" or entries[0].views == first.views
    assert prepare(bench.write(), bench.store, serial, Silent()) == dataset
    assert tar.read_bytes() == sound


def test_foreseeing_loads_nothing_heavy(bench: Bench) -> None:
    bench.write()
    script = (
        "import sys; from mmcore.shards.prepare import foresee_shards, prepare;"
        "heavy = {'torch', 'dask', 'distributed', 'prefect', 'sklearn', 'scipy', 'pandas', 'PIL', 'soundfile'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
