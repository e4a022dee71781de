"""Classes of the user's own over real shards, the documentation's example first."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mmcore.config import CustomSettings, RunConfig, load
from mmcore.errors import ConfigError, InputError, StageError
from mmcore.features.encoders.custom import CustomByLength, CustomEncoder
from mmcore.features.extract import encode_modality
from mmcore.features.opened import new_encoder
from mmcore.features.store import read_view
from mmcore.parallel import open_pool
from mmcore.planning import check_inputs
from mmcore.progress import Silent
from tests.features.conftest import Work

DOCS = Path(__file__).parents[2] / "docs/features.md"
SECTION = DOCS.read_text().partition("\n## Your own encoder\n")[2].partition("\n## ")[0]

OWN = """
import numpy as np

class Lengths:
    def __init__(self, scale=1.0):
        self.scale = scale
    def ready(self, value):
        if "9" in value:
            raise ValueError("nines are not read")
        return value
    def length(self, ready):
        return len(ready)
    def encode(self, batch):
        if any("8" in one for one in batch):
            raise KeyError("eights cannot be encoded")
        return np.array([[self.scale * len(one), len(batch)] for one in batch])

class NoEncode:
    def ready(self, value):
        return value

class Misshapen(Lengths):
    def __init__(self, result):
        self.result = {"rows": np.zeros((1, 2))[:0], "flat": np.zeros(1), "words": np.array([["a"]])}[result]
    def encode(self, batch):
        return self.result

class Growing(Lengths):
    def encode(self, batch):
        return np.zeros((len(batch), max(map(len, batch))))

class Fails(Lengths):
    def ready(self, value):
        raise RuntimeError("never")

class NotMade(Lengths):
    def __init__(self):
        raise OSError("no licence")

function = len
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own", raising=False)
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path / "own.py"


def using(work: Work, modality: str, **settings: Any) -> RunConfig:
    config = work.config(modality)
    own = CustomSettings.model_validate({"encoder": "custom", **settings})
    data = config.data.model_copy(update={"max_rejected": 1.0})
    return config.model_copy(update={"features": config.features | {modality: own}, "data": data})


def test_the_documented_example(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    (settings,) = re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 20
    (tmp_path / "grid.py").write_text(example)
    config = work.config("image").model_dump(mode="json")
    config["features"] |= yaml.safe_load(settings)["features"]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    monkeypatch.setattr(sys, "path", list(sys.path))
    loaded = load(tmp_path / "run.yaml")
    assert loaded.features["image"].options == {"cells": 4}
    assert "all settings fit" in check_inputs(loaded)
    dataset, entry = work.encode(loaded)
    assert (entry.name, entry.dim, entry.rejects) == ("custom", 16, ())
    values = np.concatenate([read_view(work.store, entry, str(s.views["image"])).vectors for s in dataset.shards])
    assert values.shape == (60, 16)
    assert ((values > 0) & (values < 1)).all()
    assert RunConfig.model_validate(loaded.model_dump(mode="json")) == loaded


def test_the_folder_of_the_yaml_is_known_to_another_command(work: Work, tmp_path: Path, module: Path) -> None:
    config = using(work, "text", **{"class": "own:Lengths"}).model_dump(mode="json")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    code = "import sys; from mmcore.config import load; load(sys.argv[1]); import own; print(own.Lengths.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run.yaml")], capture_output=True, text=True, check=True, cwd="/"
    )
    assert done.stdout.strip() == "Lengths"


def test_what_it_fails_on_is_set_aside_alone(work: Work, module: Path) -> None:
    config = using(work, "text", **{"class": "own:Lengths", "options": {"scale": 2}, "batch": 3})
    dataset, entry = work.encode(config)
    texts = {f"k{n:03d}": (work.folder / f"text/{n}.txt").read_text() for n in range(60) if n % 11 != 7}
    aside = {key for key, text in texts.items() if {"8", "9"} & set(text)}
    assert {reject.key for reject in entry.rejects} == aside
    assert len(aside) > 5
    assert any("ValueError: nines are not read" in reject.message for reject in entry.rejects)
    assert any("eights cannot be encoded" in reject.message for reject in entry.rejects)
    for shard in dataset.shards:
        table = read_view(work.store, entry, str(shard.views["text"]))
        for key, vector, present in zip(table.keys, table.vectors, table.present, strict=True):
            assert present == (key in texts and key not in aside)
            if present:
                assert vector[0] == 2 * len(texts[key])
                assert 1 <= vector[1] <= 3


def test_workers_find_the_module_too(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside/only_here.py").write_text(OWN)
    config = using(work, "text", **{"class": "own:Lengths"}).model_dump(mode="json")
    config["features"]["text"]["class"] = "only_here:Lengths"
    (tmp_path / "beside/run.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    monkeypatch.setattr(sys, "path", list(sys.path))
    loaded = load(tmp_path / "beside/run.yaml", ["compute.dask.workers=1"])
    dataset = work.prepare(loaded)
    with open_pool(loaded.compute) as pool:
        entry = encode_modality(loaded, dataset, "text", work.store, pool, Silent())
    assert {reject.code for reject in entry.rejects} == {"encoder-failed"}
    assert all("cannot be encoded" in reject.message or "not read" in reject.message for reject in entry.rejects)


def test_another_source_makes_other_features(work: Work, module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = using(work, "text", **{"class": "own:Lengths"})
    _, entry = work.encode(config)
    assert {step.action for step in work.foresee(config)[1]} == {"reuse"}
    module.write_text(OWN + "\n# edited\n")
    monkeypatch.delitem(sys.modules, "own")
    foreseen, steps = work.foresee(config)
    assert foreseen.digest != entry.digest
    assert steps[0].reason == "the model's files changed"
    receipt = work.store.read_json(f"encoders/{entry.digest}/receipt.json")
    with pytest.raises(StageError, match="not the one that the run was planned with"):
        new_encoder(config.features["text"], receipt["recipe"]).open()


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"class": "no_such:Thing"}, "'no_such:Thing' cannot be imported .ModuleNotFoundError"),
        ({"class": "own:Missing"}, "'own:Missing' cannot be imported .AttributeError"),
        ({"class": "own:function"}, "'own:function' is no class"),
        ({"class": "own:NoEncode"}, "'own:NoEncode' has no method 'encode'"),
        ({"class": "own:Lengths", "options": {"sale": 1}}, "does not take these options .*'sale'"),
    ],
)
def test_a_class_that_cannot_be_used_is_an_error_before_any_work(
    work: Work, module: Path, settings: dict[str, Any], what: str
) -> None:
    config = using(work, "text", **settings)
    with pytest.raises(InputError, match=rf"features.*: .*{what}"):
        check_inputs(config)
    work.prepare(config)
    with pytest.raises(ConfigError, match=what):
        work.foresee(config)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"class": "own:Misshapen", "options": {"result": "rows"}}, r"shape \(1, dim\) for 1 samples, and gave"),
        ({"class": "own:Misshapen", "options": {"result": "flat"}}, r"gave float64 of shape \(1,\)"),
        ({"class": "own:Misshapen", "options": {"result": "words"}}, r"gave <U1 of shape \(1, 1\)"),
        ({"class": "own:Growing", "batch": 1}, r"gives vectors of \d+ numbers, after some of \d+"),
        ({"class": "own:Fails"}, "encodes none of the samples it was tried on: the last one with RuntimeError: never"),
        ({"class": "own:NotMade"}, r"own:NotMade\(\*\*options\) fails: OSError: no licence"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_class_ends_the_stage(
    work: Work, module: Path, settings: dict[str, Any], what: str
) -> None:
    with pytest.raises(StageError, match=what):
        work.encode(using(work, "text", **settings))


def test_lengths_are_asked_for_where_the_class_tells_them(module: Path) -> None:
    assert CustomSettings(class_="own:Lengths").load() is CustomByLength
    module.write_text(OWN.replace("def length", "def other"))
    sys.modules.pop("own")
    assert CustomSettings(class_="own:Lengths").load() is CustomEncoder
