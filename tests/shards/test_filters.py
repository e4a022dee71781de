"""Filters: what expressions may say, what they keep, and that nothing vanishes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmcore.config.expressions import AbsentError, Expression
from mmcore.errors import ConfigError, StageError
from mmcore.parallel import Pool
from mmcore.progress import Silent
from mmcore.records import Dataset
from mmcore.shards.filters import Filters, recipe_of
from mmcore.shards.prepare import prepare
from mmcore.shards.read import read_index

from .conftest import Bench

FACTS = {
    "key": "a1",
    "label": "cat",
    "split": "train",
    "meta": {"site": "north"},
    "image": {"width": 100, "height": 50, "format": "PNG"},
    "audio": None,
    "text": {"chars": 3, "language": None},
}
MODALITIES = ("image", "audio", "text")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image.width >= 64", True),
        ("image.width / image.height == 2 and text.chars - 1 < 3", True),
        ("not image.format in ['GIF', 'BMP']", True),
        ("min(image.width, image.height) > 50", False),
        ("32 <= image.height < 64", True),
        ("lower(image.format) == 'png' or label == 'dog'", True),
        ("audio is not None", False),
        ("audio is None", True),
        ("meta.site != 'north'", False),
        ("-image.width < 0", True),
        ("len(key) == 2 and split == 'train'", True),
        ("'resized' in image.applied", False),
        ("audio.duration_s > 3 or image.width > 1000", False),
        ("audio.duration_s > 3 and image.width > 50", True),
    ],
)
def test_expressions(text: str, expected: bool) -> None:
    assert bool(Expression(text, MODALITIES)(FACTS)) is expected


@pytest.mark.parametrize("text", ["audio.duration_s > 3", "text.language == 'en'", "audio.peak > 1 or audio.rms > 1"])
def test_what_a_sample_lacks_does_not_judge_it(text: str) -> None:
    with pytest.raises(AbsentError):
        Expression(text, MODALITIES)(FACTS)
    assert Filters([text], MODALITIES).why_not(FACTS) is None


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("__import__('os').system('true')", "not allowed"),
        ("image.__class__.__mro__", "not allowed"),
        ("(lambda: 1)()", "not allowed"),
        ("[x for x in key]", "not allowed"),
        ("open('x')", "not allowed"),
        ("key ** 9", "not allowed"),
        ("pixels > 3", "'pixels' is unknown; known are key, label"),
        ("image.width >=", "no expression"),
        ("1 < " * 600 + "2", "more than 2,000 characters"),
    ],
)
def test_anything_else_is_refused(bench: Bench, text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Expression(text, MODALITIES)
    bench.settings = {"filters": [text]}
    with pytest.raises(ValueError, match=r"filters: "):
        bench.write()


def test_nothing_vanishes(bench: Bench, serial: Pool) -> None:
    whole = prepare(bench.write(), bench.store, serial, Silent())
    bench.settings = {"filters": ["word.chars > 6", "label != 'odd' or note is not None"]}
    made = prepare(bench.write(), bench.store, serial, Silent())
    facts = made.facts
    assert facts["filtered"] == sum(facts["filters"].values()) > 0
    assert facts["kept_whole"] + facts["kept_partly"] + facts["rejected"] + facts["filtered"] == made.rows
    assert facts["rejected"] == whole.facts["rejected"]
    wanted = {
        key
        for key, (label, _, word, note) in bench.rows.items()
        if (not word or len(word) > 6) and (label != "odd" or note)
    }
    assert _keys(bench, made) == wanted & _keys(bench, whole)
    assert {reject.key for reject in made.rejects if reject.code == "filtered"} == _keys(bench, whole) - wanted


def test_filters_are_no_rejects_of_the_budget(bench: Bench, serial: Pool) -> None:
    bench.settings = {"filters": ["split != 'train' or key > 'k0030' or label == 'odd'"], "max_rejected": 0.0}
    made = prepare(bench.write(), bench.store, serial, Silent())
    assert made.facts["filtered"] > 5


def test_a_fact_that_is_none_is_an_error_that_names_those_there_are(bench: Bench, serial: Pool) -> None:
    bench.settings = {"filters": ["word.lenght > 3"]}
    with pytest.raises(StageError, match=r"word has no 'lenght', it has chars, words"):
        prepare(bench.write(), bench.store, serial, Silent())


def test_functions_of_the_users_own(
    bench: Bench, serial: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "my_filters.py"
    module.write_text("def two_of_three(sample):\n    return int(sample['key'][1:]) % 3 > 0 or 'a third'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    bench.settings = {"filters": ["my_filters:two_of_three"]}
    made = prepare(bench.write(), bench.store, serial, Silent())
    assert {int(key[1:]) % 3 for key in _keys(bench, made)} == {1, 2}
    assert set(made.facts["filters"]) == {"a third"}
    (entry,) = recipe_of(["my_filters:two_of_three"])
    with pytest.raises(StageError, match="not the one that was planned with"):
        Filters([[entry[0], "0" * 32]], MODALITIES)


@pytest.mark.parametrize("text", ["no_such_module:keep", "mmcore.errors:no_such_function"])
def test_functions_that_are_not_there(bench: Bench, serial: Pool, text: str) -> None:
    bench.settings = {"filters": [text]}
    with pytest.raises(ConfigError, match=r"data\.filters\.0"):
        prepare(bench.write(), bench.store, serial, Silent())


def _keys(bench: Bench, made: Dataset) -> set[str]:
    return {key for entry in made.shards for key in read_index(bench.store, entry)["key"].to_pylist()}
