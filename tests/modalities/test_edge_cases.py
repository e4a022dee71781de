"""Damaged, odd and hostile files: each ends as its row of cases.csv says."""

import csv
import json

import pytest

from mmcore.config import AudioSettings, ImageSettings, TextSettings
from mmcore.modalities.base import REASONS, Member, Rejected
from tests.modalities.test_fuzz import survives

SETTINGS = {
    "image": ImageSettings(column="image"),
    "audio": AudioSettings(column="audio"),
    "text": TextSettings(column="text"),
}
EXCEPTIONS: dict[str, str] = {}
"""Files that end otherwise, and why. None today."""
CODES = {
    "image/truncated.jpg": "truncated",
    "image/truncated.png": "truncated",
    "image/truncated.tga": "truncated",
    "image/shortfile.bmp": "truncated",
    "image/bomb.gif": "too-large",
    "image/bomb.ico": "too-large",
    "image/reallybig.bmp": "too-large",
    "image/drawing.svg": "unknown-format",
    "image/error_page.jpg": "unknown-format",
    "image/wav_named.png": "unknown-format",
    "image/broken_stream.png": "corrupt",
    "image/bad_compression.png": "corrupt",
    "audio/nan_float.wav": "not-finite",
    "audio/inf_float.wav": "not-finite",
    "audio/early_eof.wav": "truncated",
    "audio/lying_length.wav": "truncated",
    "audio/header_only.wav": "too-short",
    "audio/png_named.wav": "unknown-format",
    "audio/rate_4ghz.wav": "corrupt",
    "audio/zero_bytes.wav": "empty-file",
    "text/latin1.txt": "not-utf8",
    "text/utf16_no_bom.txt": "not-utf8",
    "text/only_spaces.txt": "empty-text",
    "text/only_zero_width.txt": "empty-text",
}
"""Reason codes where cases.csv leaves no doubt."""


def test_every_case_ends_as_it_should(edge_cases_dir, capfd):
    with (edge_cases_dir / "cases.csv").open(encoding="utf-8", newline="") as file:
        cases = [case for case in csv.DictReader(file) if case["modality"] in SETTINGS]
    modalities = {name: settings.load()(settings) for name, settings in SETTINGS.items()}
    checked, surprises = dict.fromkeys(SETTINGS, 0), {}
    for case in cases:
        modality = modalities[case["modality"]]
        got = modality.process((edge_cases_dir / case["file"]).read_bytes())
        assert survives(modality, got)
        outcome = "quarantine" if isinstance(got, Rejected) else "accept"
        sane = {outcome.split("-")[0] for outcome in (case["expect"], case["also_sane"]) if outcome}
        if outcome not in sane:
            surprises[case["file"]] = outcome
        if case["file"] in CODES:
            assert isinstance(got, Rejected), case["file"]
            assert got.code == CODES[case["file"]], case["file"]
        if isinstance(got, Rejected):
            assert got.code in REASONS
            assert " at 0x" not in got.message, case["file"]
        checked[case["modality"]] += 1
    assert checked == {"image": 74, "audio": 55, "text": 28}
    assert surprises.keys() == EXCEPTIONS.keys()
    assert capfd.readouterr() == ("", "")


def test_naughty_strings_are_texts_or_empty(edge_cases_dir):
    modality = SETTINGS["text"].load()(SETTINGS["text"])
    lines = (edge_cases_dir / "text" / "naughty_strings.jsonl").read_text(encoding="utf-8").splitlines()
    outcomes = {"member": 0, "empty": 0}
    for line in lines:
        text = json.loads(line)["text"]
        got = modality.process(text.encode("utf-8"))
        if isinstance(got, Member):
            outcomes["member"] += 1
            assert modality.process(got.data) == got or modality.process(got.data).data == got.data
        else:
            outcomes["empty"] += 1
            assert got.code in {"empty-file", "empty-text"}, text
    assert sum(outcomes.values()) == len(lines) > 500
    assert outcomes["member"] > 490


@pytest.mark.parametrize("name", ["image/bomb.gif", "audio/lying_length.wav"])
def test_nothing_is_allocated_on_a_headers_word(edge_cases_dir, name):
    import tracemalloc

    modality = SETTINGS[name.split("/")[0]].load()(SETTINGS[name.split("/")[0]])
    data = (edge_cases_dir / name).read_bytes()
    modality.process(data)
    tracemalloc.start()
    modality.process(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000
