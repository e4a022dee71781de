"""The page against the scores it shows, read with a plain HTML parser."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mmcore.config import RunConfig
from mmcore.evaluation.comparison import compare_seeds
from mmcore.modalities.base import REASONS
from mmcore.records import EvaluationEntry, ModelEntry, Reject
from mmcore.report.build import SHOWN_REJECTS, build_report
from mmcore.report.rendering import capitalized, duration, moment, p_value, score, signed
from mmcore.storage import Store
from tests.report.made_run import DIGITS, make_run

VOID = {"meta", "br", "line", "rect", "circle", "polyline", "img", "link", "input", "hr"}
HOSTILE = ("<script>alert(1)</script>", '"quoted" & <b>bold</b>', "שלום עולם", "🎉🎉 party", "a" * 400)
HOSTILE_REJECTS = (
    Reject("<img src=x onerror=alert(1)>", "image", "truncated", "</td><script>x</script>", "'\"><svg onload=1>"),
    Reject("", "", "missing-key", "row 7 {{ 7 * 7 }}"),
)


class Page(HTMLParser):
    """A page as tables of texts, with everything that HTML forbids noted."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.faults: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.text: list[str] = []
        self._cell: list[str] | None = None
        self.feed(html)
        self.close()
        if self.open:
            self.faults.append(f"never closed: {self.open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self._cell = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")
        if tag in {"td", "th"} and self._cell is not None:
            self.tables[-1][-1].append(" ".join("".join(self._cell).split()))
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"style", "script"}:
            self.text.append(data)
        if self._cell is not None:
            self._cell.append(data)

    def table_with(self, *heads: str) -> list[list[str]]:
        """The first table whose head has these words."""
        return next(t for t in self.tables if all(any(h in cell for row in t[:2] for cell in row) for h in heads))

    @property
    def said(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("report") / "output").open()


@pytest.fixture(scope="module")
def run(store: Store) -> dict[str, Any]:
    rejects = tuple(Reject(f"r{i}", "image", code, f"why {i}", f"image/r{i}.png") for i, code in enumerate(REASONS))
    return make_run(store, rejects=(*rejects, Reject("gone", "", "duplicate-key", "2 rows have this key")))


@pytest.fixture(scope="module")
def html(store: Store, run: dict[str, Any]) -> str:
    return build_report(store, run)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def _is_sound(html: str) -> Page:
    page = Page(html)
    assert page.faults == []
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "embed"}
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on") or name in {"src", "srcset", "data"}], (tag, attrs)
        if (link := attrs.get("href")) is not None:
            assert link[0] == "#"
            assert link[1:] in ids
    style = html[html.index("<style>") : html.index("</style>")]
    assert not re.search(r"url\(|@import|https?:", style)
    return page


def test_is_sound_and_loads_nothing(html: str) -> None:
    page = _is_sound(html)
    assert ("meta", {"charset": "utf-8"}) in page.tags
    assert not re.search(r"\{\{|\}\}|\{%|Undefined|None\b|\bnan\b", page.said)


def test_the_gap_between_rows_an_encoder_knows_and_others_is_named(page: Page) -> None:
    rows = page.table_with("Held out", "Gap")
    assert rows[1:] == [
        ["image", "cnn", "0.990", "–", "0.980", "+0.010", "scores of rows it knows"],
        ["audio", "logmel-cnn", "1.000", "–", "0.810", "+0.190", "scores of rows it knows: set cross_fit"],
        ["text", "ngram", "0.900", "0.860", "0.850", "+0.040", "held-out scores"],
    ]


def test_leaderboard_shows_the_scores(store: Store, run: dict[str, Any], page: Page) -> None:
    rows = {row[0].split()[0]: row for row in page.table_with("Model", "Macro F1")[2:]}
    digests = {entry["model"]: entry["digest"] for entry in run["evaluations"]}
    assert set(rows) == set(digests) == {"concat", "late", "only-image", "only-audio", "only-text"}
    for model in run["models"]:
        scores = store.read_json(f"evaluations/{digests[model['name']]}/scores.json")
        overall, row = scores["overall"], rows[model["name"]]
        modalities = ("image", "audio", "text")
        shown = [model["val_scores"]["log_loss"], overall["accuracy"]]
        assert row[1:3] == [score(value) for value in shown]
        assert row[3] == f"{overall['low']:.3f} to {overall['high']:.3f}"
        assert row[4:6] == [score(overall["macro_f1"]), score(overall["log_loss"])]
        assert row[6:9] == [score(scores["without"].get(m, {}).get("accuracy")) for m in modalities]
        assert row[9:] == [
            score(scores["alone"].get(m, {"present": {}})["present"].get("accuracy")) for m in modalities
        ]
        assert ("baseline" in row[0]) == model["baseline"]
    assert [name for name, row in rows.items() if "chosen" in row[0]] == ["concat"]


def test_other_numbers_are_the_scores(store: Store, run: dict[str, Any], page: Page) -> None:
    evaluations = {entry["model"]: entry["digest"] for entry in run["evaluations"]}
    chosen = store.read_json(f"evaluations/{evaluations['concat']}/scores.json")
    late = store.read_json(f"evaluations/{evaluations['late']}/scores.json")
    for sentence in run["leaderboard"]["verdict"]:
        assert sentence in page.said
    for row, one in zip(page.table_with("against")[1:], run["leaderboard"]["comparisons"], strict=True):
        missing = f" {100 * one['share']:g} % missing" if "share" in one else ""
        assert row[:3] == [one["model"], one["against"] + missing, signed(one["difference"])]
        assert row[3] == f"{signed(one['low'])} to {signed(one['high'])}"
        assert row[4:] == [p_value(one["p"]), p_value(one["p_holm"]), str(one["only_first"]), str(one["only_second"])]
    retrieval = page.table_with("Recall@1", "mAP")[2:]
    for row, pair in zip(retrieval, late["retrieval"]["pairs"], strict=True):
        by = pair["class"]
        numbers = [by["recall"][k] for k in ("1", "5", "10")] + [by["mean_average_precision"], by["chance"]]
        assert row == [f"{pair['query']} → {pair['item']}", *map(score, numbers), str(by["queries"]), str(by["items"])]
    patterns = page.table_with("image", "Rows", "Accuracy")[1:]
    for row, one in zip(patterns, chosen["patterns"], strict=True):
        assert [("has" in cell) for cell in row[:3]] == [m in one["present"] for m in ("image", "audio", "text")]
        assert row[3:5] == [str(one["n"]), score(one["score"])]
    assert f"Expected calibration error {chosen['calibration']['expected_error']:.3f}" in page.said


def test_what_each_modality_gives(run: dict[str, Any], page: Page) -> None:
    fused = [row for row in run["leaderboard"]["rows"] if len(row["modalities"]) > 1]
    shown = page.table_with("Shuffled", "Shapley value")[2:]
    for row, one in zip(shown, fused, strict=True):
        assert row[0] == one["model"]
        for cell, name in zip(row[2:5], ("image", "audio", "text"), strict=True):
            assert cell.startswith(score(one["shuffled"][name]))
            assert ("no sign of use" in cell) == (name in one["unused"])
        assert row[5:] == [signed(one["shapley"][name]) for name in ("image", "audio", "text")]


def test_every_model_has_its_curves(run: dict[str, Any], page: Page, html: str) -> None:
    rows = run["leaderboard"]["rows"]
    shown = page.table_with("Share missing", "Noise")[2:]
    for row, one in zip(shown, rows, strict=True):
        missing = [score(one["missing"]["scores"][one["missing"]["at"].index(at)]) for at in (0.0, 0.3, 0.5, 0.7)]
        noise = [score(one["noise"]["scores"][one["noise"]["at"].index(at)]) for at in (0.5, 1.0, 2.0)]
        assert row[1:] == [*missing, score(one["missing"]["area"]), *noise, score(one["noise"]["area"])]
    lines = [attrs["class"] for tag, attrs in page.tags if tag == "polyline" and "model" in str(attrs["class"])]
    of_each = ["model other"] * 2 + ["model late", "model single", "model chosen"]
    assert lines == of_each * 2
    assert html.count("<title>only-image: ") == 2


def test_confusion_matrix_is_drawn_cell_by_cell(store: Store, run: dict[str, Any], html: str) -> None:
    evaluation = next(entry["digest"] for entry in run["evaluations"] if entry["model"] == "concat")
    scores = store.read_json(f"evaluations/{evaluation}/scores.json")
    drawn = re.findall(r"<title>(\w+) called (\w+): (\d+) ", html)
    counts = {(DIGITS[i], DIGITS[j]): n for i, row in enumerate(scores["confusion"]) for j, n in enumerate(row) if n}
    assert {(truth, called): int(n) for truth, called, n in drawn} == counts


def test_every_curve_is_drawn(store: Store, run: dict[str, Any], html: str) -> None:
    assert html.count("per epoch") == 2, "the encoders of image and audio; the one of text has no epochs"
    path = f"models/{run['models'][0]['digest']}/receipt.json"
    receipt = store.read_json(path)
    curves = {"train_loss": [2.0, 1.0, 0.5], "val_loss": [2.0, 0.8125, 0.9]}
    store.publish_json(path, {**receipt, "curves": curves})
    page = _is_sound(build_report(store, run))
    store.publish_json(path, receipt)
    assert "concat fusion model best validation loss 0.812 at epoch 2" in page.said
    drawn = [a["points"].split() for tag, a in page.tags if tag == "polyline" and a["class"] in {"train", "val"}]
    assert [len(points) for points in drawn] == [24, 24, 24, 24, 3, 3]


def test_data_and_quarantine(store: Store, run: dict[str, Any], page: Page) -> None:
    dataset = store.read_json(f"datasets/{run['dataset']}.json")
    splits = page.table_with("Split", "with image")
    assert [row[0] for row in splits[1:]] == ["train", "val", "test"]
    test = dataset["facts"]["splits"]["test"]
    assert splits[3][1:3] == [str(test["samples"]), f"{test['present']['image']} {test['present']['image'] / 4:.1f} %"]
    assert f"kept whole {dataset['facts']['kept_whole']:,}" in page.said
    reasons = page.table_with("Reason", "What it means")[1:]
    assert {(row[0], row[2]) for row in reasons} == set(REASONS.items())
    assert {row[0]: row[1] for row in reasons}["duplicate-key"] == "2"
    rejected = page.table_with("Key", "What was found")[1:]
    assert rejected[0] == ["r0", "image", "missing-file", "why 0", "image/r0.png"]
    assert rejected[-1][:3] == ["gone", "whole row", "duplicate-key"]


def test_a_method_that_the_data_did_not_suit_is_in_the_pedigree(store: Store, run: dict[str, Any]) -> None:
    recipe = {"kind": "model", "settings": {"method": "lpmkl", "kernels": "chi2"}}
    refused = {"recipe": recipe, "failed": "the chi2 kernel needs other values", "encoders": {}, "files": []}
    store.publish_json("models/refused/receipt.json", refused)
    entry = ModelEntry("lpmkl", "lpmkl", "refused", {}, failed=refused["failed"])
    page = _is_sound(build_report(store, run | {"models": [*run["models"], asdict(entry)]}))
    store.remove("models/refused")
    assert "lpmkl, left out: the chi2 kernel needs other values" in page.said


def test_pedigree_leads_down_to_the_manifest(run: dict[str, Any], page: Page) -> None:
    names = [entry["digest"] for part in ("evaluations", "models", "encoders") for entry in run[part]]
    for name in (*names, run["dataset"], "manifest.csv", run["run_id"]):
        assert name in page.said
    assert f"model models/{run['models'][0]['digest']}" in page.said
    assert "encoders/encoder-of-image, views of 1 train and 1 val shards" in page.said
    titles = ["Run", "Evaluations", "Fusion models", "Encoders and features", "Data set", "Shards", "Manifest"]
    places = [page.said.index(f"{title} ", page.said.index("Where the numbers come from")) for title in titles[1:]]
    assert places == sorted(places)


def test_escapes_whatever_the_data_contain(store: Store) -> None:
    run = make_run(
        store, classes=HOSTILE, modalities=("image", "text"), rejects=HOSTILE_REJECTS, pairing="instance", n=150
    )
    run["name"] = "</title><script>1</script>"
    run["error"] = "<b>boom</b>"
    run["ui_url"] = "javascript:alert(1)"
    html = build_report(store, run)
    page = _is_sound(html)
    for text in (*HOSTILE[:4], "<img src=x onerror=alert(1)>", "</td><script>x</script>", "<b>boom</b>", "{{ 7 * 7 }}"):
        assert text in page.said
    assert "median rank" in page.said
    assert "a" * 401 not in html


def test_prefect_link_is_a_link_where_it_is_one(store: Store, run: dict[str, Any]) -> None:
    html = build_report(store, {**run, "ui_url": 'http://127.0.0.1:4200/runs/flow-run/1?a="b"'})
    assert 'href="http://127.0.0.1:4200/runs/flow-run/1?a=&#34;b&#34;"' in html


@pytest.mark.parametrize(
    ("classes", "modalities", "shared_space"),
    [
        (("no", "yes"), ("image",), False),
        (("no", "yes"), ("image", "text"), False),
        (tuple(f"class {i}" for i in range(25)), ("image", "text"), True),
    ],
)
def test_other_shapes_of_runs(
    store: Store, classes: tuple[str, ...], modalities: tuple[str, ...], shared_space: bool
) -> None:
    run = make_run(store, classes=classes, modalities=modalities, shared_space=shared_space, n=120)
    html = build_report(store, run)
    page = _is_sound(html)
    assert ('id="retrieval"' in html) == shared_space
    assert ("Accuracy without" in page.said) == (len(modalities) > 1)
    assert "Nothing was set aside." in page.said


def test_more_rejects_than_are_shown(store: Store) -> None:
    rejects = tuple(Reject(f"r{i}", "image", "corrupt", "x") for i in range(SHOWN_REJECTS + 7))
    run = make_run(store, classes=("no", "yes"), modalities=("image",), rejects=rejects, n=40, shared_space=False)
    page = _is_sound(build_report(store, run))
    assert len(page.table_with("Key", "What was found")) == 1 + SHOWN_REJECTS
    assert f"7 more are in datasets/{run['dataset']}.json" in page.said


def test_what_an_encoder_could_not_take_is_shown_too(store: Store, run: dict[str, Any]) -> None:
    failed = Reject("r9", "image", "encoder-failed", "the cnn encoder failed on it (ValueError: odd)").as_json()
    encoders = [entry | {"rejects": [failed] if entry["modality"] == "image" else []} for entry in run["encoders"]]
    page = _is_sound(build_report(store, {**run, "encoders": encoders}))
    reasons = {row[0]: row[1] for row in page.table_with("Reason", "What it means")[1:]}
    assert reasons["encoder-failed"] == "2", "one of the data set, one of the encoder"
    assert page.table_with("Key", "What was found")[-1][:4] == ["r9", "image", "encoder-failed", failed["message"]]


def _compared(store: Store, run: dict[str, Any], *, undone: bool = False) -> dict[str, Any]:
    """The run as one of two seeds with equal models; with `undone`, one fit of the second was left out."""
    models = [ModelEntry(**entry) for entry in run["models"]]
    scored = [EvaluationEntry(**entry) for entry in run["evaluations"]]
    second = [replace(models[0], val_scores={}, digest="undone"), *models[1:]] if undone else models
    config = RunConfig.model_validate(run["config"])
    board, found = compare_seeds(config, [0, 1], [models, second], [scored, scored], store)
    return {**run, "leaderboard": board, "comparison": found}


def test_a_comparison(store: Store, run: dict[str, Any]) -> None:
    compared = _compared(store, run)
    page = _is_sound(build_report(store, compared))
    shown = page.table_with("Setting", "Parameters")[1:]
    assert [row[0].split()[0] for row in shown] == [row["model"] for row in compared["leaderboard"]["rows"]]
    assert sum(row[2] == "2/2" for row in shown) == 1, "the method that validation chose"
    assert {tuple(row[4:7]) for row in shown} == {("1.2 s", "12 MB", "1.31k")}
    assert "not done" not in page.said


def test_what_a_time_limit_left_out(store: Store, run: dict[str, Any]) -> None:
    page = _is_sound(build_report(store, _compared(store, run, undone=True)))
    assert "1 of 6 fits not done: time limit." in page.said
    assert f"{run['models'][0]['name']} (seed 1)." in page.said


def test_a_run_that_got_nowhere(store: Store, run: dict[str, Any]) -> None:
    early = {**run, "dataset": None, "encoders": [], "models": [], "evaluations": [], "leaderboard": {}}
    early |= {"finished": None, "seconds": {}, "counts": {}, "error": "2 problems", "state": "failed"}
    page = _is_sound(build_report(store, early))
    assert "No model has been scored in this run." in page.said
    assert "The run failed. 2 problems" in page.said


def test_what_is_gone_is_said(tmp_path: Path) -> None:
    store = Store(tmp_path / "output").open()
    run = make_run(store, classes=("no", "yes"), modalities=("image",), n=40, shared_space=False)
    store.remove("datasets")
    store.remove(f"models/{run['models'][0]['digest']}")
    page = _is_sound(build_report(store, run))
    assert f"datasets/{run['dataset']}.json" in page.said
    assert "No longer stored" in page.said


def test_same_run_same_page(store: Store, run: dict[str, Any], html: str) -> None:
    assert build_report(store, run) == html


def test_building_a_page_loads_no_torch() -> None:
    code = (
        "import mmcore.report.build, sys; print([m for m in ('torch', 'sklearn', 'scipy', 'dask') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_numbers_as_people_read_them() -> None:
    assert [duration(s) for s in (0.04, 9.949, 9.96, 59.7, 250, 7500)] == [
        "0.0 s",
        "9.9 s",
        "10 s",
        "1 min 00 s",
        "4 min 10 s",
        "2 h 05 min",
    ]
    assert moment("2026-11-23T21:31:12+00:00") == "23 Nov 2026, 21:31 UTC"
    assert moment("yesterday") == "yesterday"
    assert (score(None), score(float("nan")), signed(-0.01234)) == ("–", "–", "−0.012")
    assert [capitalized(text) for text in ("log loss", "R²", "mAP", "")] == ["Log loss", "R²", "mAP", ""]
    assert [p_value(p) for p in (0.0001, 0.0321, 1.0)] == ["< .001", "0.032", "1.000"]
