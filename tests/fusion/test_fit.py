"""Training a run's models on real shards and a real feature store (whose vectors are made here)."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from mmcore.config import ConcatSettings, RunConfig
from mmcore.config.fusion import OwnFusion
from mmcore.errors import ConfigError, DamagedError, DataError, FusionError, StageError
from mmcore.evaluation.scores import score_model
from mmcore.features.opening import open_encoder
from mmcore.features.store import Made, Table, write_view
from mmcore.fusion import data, fit, planned, sampled
from mmcore.fusion.base import FusionModel
from mmcore.fusion.concat import ConcatFusion
from mmcore.fusion.data import LabelledViews, load_views
from mmcore.fusion.fit import choose_best, fit_models, foresee_models, foreseen_standing, read_receipt, standing
from mmcore.fusion.from_moments import MomentsFusion
from mmcore.fusion.late import LateFusion
from mmcore.fusion.planned import plan_models
from mmcore.fusion.scores import validation_scores
from mmcore.fusion.streamed import SAMPLE_VERSION, VERSION
from mmcore.parallel import serial_pool
from mmcore.progress import Silent
from mmcore.records import Dataset, EncoderEntry, ModelEntry, Step
from mmcore.shards.prepare import prepare
from mmcore.shards.read import read_index
from mmcore.storage import Store
from mmcore.training import keeping
from tests.fusion.conftest import made

DIMS = {"image": 5, "audio": 4}
WEIGHTED = {"method": "weighted", "epochs": 8, "dim": 8, "batch_size": 16, "learning_rate": 1e-2}
METHODS = ["concat", "cca", WEIGHTED, {"method": "concat", "impute": "mean"}]
MACHINE = {"method": "dbm", "hidden": 4, "dim": 4, "pretrain_epochs": 2, "epochs": 4, "batch_size": 16}


@dataclass
class Bench:
    """A data set of two modalities in a store, with features."""

    folder: Path
    store: Store
    dataset: Dataset
    encoders: tuple[EncoderEntry, ...]

    def config(self, methods: list[Any] | None = None, **fusion: Any) -> RunConfig:
        modalities = {name: {"kind": "text", "column": name, "inline": True} for name in DIMS}
        return RunConfig.model_validate(
            {
                "data": {"manifest": str(self.folder / "manifest.csv"), "modalities": modalities},
                "shards": {"samples": 40},
                "features": {name: {"encoder": "ngram"} for name in DIMS},
                "floor": False,
                "fusion": {"methods": METHODS if methods is None else methods, **fusion},
                "compute": {"dask": {"workers": 0}, "device": "cpu"},
            }
        )

    def fit(self, config: RunConfig, progress: Any = None) -> list[ModelEntry]:
        pool = serial_pool(config.compute)
        return fit_models(config, self.dataset, self.encoders, self.store, pool, progress or Silent())

    def foresee(self, config: RunConfig) -> list[Step]:
        known = [(encoder, []) for encoder in self.encoders]
        return [step for _, step in foresee_models(config, self.dataset.shards, known, self.store)]

    def actions(self, config: RunConfig) -> dict[str, str]:
        return {step.name: step.action for step in self.foresee(config)}


def _vectors(labels: list[str], present: np.ndarray, dim: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(dim).normal(size=(3, dim)) * 2
    values = centres[["abc".index(label) for label in labels]] + random.normal(size=(len(labels), dim))
    return np.where(present[:, None], values, np.nan)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    splits = ["train", "train", "train", "val", "test"]
    lines = ["id,label,split,image,audio"]
    for n in range(300):
        audio = f"sound {n}" if n % 7 else ""
        lines.append(f"k{n:04d},{'abc'[n % 3]},{splits[n % 5]},picture {n},{audio}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    store = Store(tmp_path / "output").open()
    encoders = tuple(EncoderEntry(name, f"{name}-encoder", "ngram", dim, True) for name, dim in DIMS.items())
    made = Bench(tmp_path, store, None, encoders)
    config = made.config()
    made.dataset = prepare(config, store, serial_pool(config.compute), Silent())
    for encoder in made.encoders:
        store.publish_json(f"encoders/{encoder.digest}/receipt.json", {"weights": "first"})
        for number, shard in enumerate(made.dataset.shards):
            index = read_index(store, shard)
            labels, keys = index["label"].to_pylist(), index["key"].to_pylist()
            present = np.array([encoder.modality == "image" or int(key[1:]) % 7 != 0 for key in keys])
            values = _vectors(labels, present, encoder.dim, number)
            table = Table(keys, values, present)
            write_view(store, encoder.digest, shard.views[encoder.modality], table, Made("first"))
    return made


def _bytes(store: Store) -> dict[str, bytes]:
    root = Path(store.url("models"))
    files = [file for file in sorted(root.rglob("*")) if file.is_file() and file.name != "costs.json"]
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


def test_methods_get_unique_names_and_baselines_follow(bench: Bench) -> None:
    plans = plan_models(bench.config())
    assert [plan.name for plan in plans] == [
        "concat",
        "cca",
        "weighted",
        "concat-mean",
        "late",
        "majority",
        "missingness",
        "only-image",
        "only-audio",
    ]
    assert [plan.baseline for plan in plans] == [False] * 4 + [True] * 5
    listed = plan_models(bench.config(["late", {"method": "late", "C": 1.0}]))
    assert [(plan.name, plan.baseline) for plan in listed][:2] == [("late", False), ("late-2", False)]
    assert [plan.name for plan in listed if plan.baseline] == ["majority", "missingness", "only-image", "only-audio"]


def test_what_tells_methods_apart_is_in_their_names(bench: Bench) -> None:
    stacking = {"method": "late", "combine": "stacking", "head": "tree"}
    alone = {"method": "late", "modalities": ["audio", "image"], "combine": "mean"}
    plans = plan_models(bench.config([stacking, stacking, alone, {"method": "late", "C": 0.5}]))
    names = [plan.name for plan in plans if plan.name.startswith("late")]
    assert names == ["late-tree-stacking", "late-tree-stacking-2", "late-mean-audio+image", "late", "late-2"]
    learned = plan_models(bench.config([{"method": "late", "combine": "learned"}]))
    assert [(plan.name, plan.baseline) for plan in learned][:2] == [("late-learned", False), ("late", True)]


def test_what_looks_at_no_value_is_always_there_and_never_chosen(bench: Bench) -> None:
    plans = plan_models(bench.config(["concat", "majority", {"method": "missingness", "modalities": ["audio"]}]))
    found = [(plan.name, plan.baseline) for plan in plans]
    assert found[1:3] == [("majority", True), ("missingness-audio", True)]
    assert ("missingness", True) in found
    assert found.count(("majority", True)) == 1


def test_a_method_that_the_data_do_not_suit_is_left_out(bench: Bench) -> None:
    chi2 = {"method": "average-kernel", "kernels": "chi2", "scaling": "none"}
    models = bench.fit(bench.config([chi2, "concat"]))
    assert models[0].failed.startswith("the chi2 kernel needs features that are not negative")
    assert models[0].val_scores == {}
    assert standing(models, "log_loss")[0].name == "concat"
    grid = {"method": "average-kernel", "scaling": "none", "grid": {"kernels": ["chi2", "rbf"]}}
    assert standing(bench.fit(bench.config([grid])), "log_loss")[0].setting == "kernels=rbf"
    with pytest.raises(StageError, match="no method can learn these data: average-kernel-none-chi2: the chi2 kernel"):
        bench.fit(bench.config([chi2]))


def test_what_the_data_do_not_suit_is_not_tried_again(bench: Bench) -> None:
    chi2 = {"method": "average-kernel", "scaling": "none", "grid": {"kernels": ["chi2", "rbf"]}}
    refused = {"method": "lpmkl", "kernels": "chi2", "scaling": "none"}
    config = bench.config([chi2, refused, "concat"])
    models = bench.fit(config)
    receipt = read_receipt(bench.store, models[0].digest)
    assert receipt["failed"] == models[0].failed
    assert receipt["files"] == []
    assert list(bench.store.listing(f"models/{models[0].digest}")) == ["receipt.json"]
    steps = bench.foresee(config)
    assert {step.action for step in steps} == {"reuse"}
    assert steps[0].reason.startswith("left out: the chi2 kernel needs features that are not negative")
    found = foresee_models(config, bench.dataset.shards, [(encoder, []) for encoder in bench.encoders], bench.store)
    scored = [entry and entry.title for entry, _ in foreseen_standing(config, found)]
    assert scored == [model.title for model in standing(models, "log_loss")]
    assert scored[:2] == ["average-kernel-none[kernels=rbf]", "concat"]
    progress = _Counted()
    assert bench.fit(config, progress) == models
    assert (progress.total, progress.reused, progress.done) == (len(models), len(models), 0)
    bench.store.publish_json("encoders/audio-encoder/receipt.json", {"weights": "second"})
    assert bench.foresee(config)[0].reason == "the encoder of audio was trained anew with other weights"


def test_a_refusal_takes_the_place_of_what_was_trained_from_other_vectors(bench: Bench) -> None:
    config = bench.config([{"method": "average-kernel", "kernels": "rbf", "memory_bytes": 100}, "concat"])
    first = bench.fit(config)[0]
    assert first.failed.startswith("memory_bytes: 100 is too little")
    bench.store.publish_bytes(f"models/{first.digest}/model.safetensors", b"of an earlier training")
    bench.store.publish_json("encoders/audio-encoder/receipt.json", {"weights": "second"})
    assert bench.fit(config)[0] == first
    assert list(bench.store.listing(f"models/{first.digest}")) == ["receipt.json"]


@pytest.mark.parametrize("memory_bytes", [1000, 1 << 30])
def test_a_val_split_without_labels_is_named_before_anything_is_fitted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, memory_bytes: int
) -> None:
    def without_val(store: Store, dataset: Dataset, encoders: Any, *splits: str, **named: Any) -> LabelledViews:
        found = load_views(store, dataset, encoders, *splits, **named)
        return replace(found, labels=np.full(len(found), None)) if splits == ("val",) else found

    monkeypatch.setattr(data, "load_views", without_val)
    monkeypatch.setattr(sampled, "load_views", without_val)
    with pytest.raises((DataError, FusionError), match=r"val.* (has|have) a label|of val none has a label"):
        bench.fit(bench.config(["cca"], memory_bytes=memory_bytes))
    assert _bytes(bench.store) == {}


def test_late_fusion_with_other_settings_does_not_replace_the_baseline(bench: Bench) -> None:
    def late(*methods: Any) -> list[tuple[str, bool]]:
        plans = plan_models(bench.config(list(methods)))
        return [(plan.name, plan.baseline) for plan in plans if plan.name.startswith("late")]

    assert late("late") == [("late", False)]
    assert late({"method": "late", "modalities": ["audio", "image"]}) == [("late-audio+image", False)]
    assert late({"method": "late", "C": 1.0}) == [("late", False), ("late-2", True)]
    assert late({"method": "late", "modalities": ["image"]}) == [("late-image", False), ("late", True)]


def test_a_modality_listed_twice_is_a_fault_of_the_config(bench: Bench) -> None:
    with pytest.raises(ValueError, match="'image' is listed 2 times; list each modality once"):
        bench.config([{"method": "concat", "modalities": ["image", "audio", "image"]}])


def test_a_method_that_does_not_fit_is_a_fault_of_the_config(bench: Bench) -> None:
    methods = [
        {"method": "cca", "modalities": ["image"]},
        {"method": "concat", "modalities": ["image", "video"]},
        {"method": "weighted", "weights": "fixed", "fixed": {"image": 1.0}},
    ]
    with pytest.raises(ConfigError) as caught:
        plan_models(bench.config(methods))
    assert [problem.where for problem in caught.value.problems] == [
        "fusion.methods.0",
        "fusion.methods.1.modalities",
        "fusion.methods.2.fixed",
    ]


def test_features_and_labels_are_joined_in_shard_order(bench: Bench) -> None:
    rows = load_views(bench.store, bench.dataset, bench.encoders, "train", "val")
    indexes = [read_index(bench.store, shard) for shard in bench.dataset.of("train", "val")]
    assert rows.keys.tolist() == [key for index in indexes for key in index["key"].to_pylist()]
    assert rows.labels.tolist() == [label for index in indexes for label in index["label"].to_pylist()]
    assert rows.views["audio"].present.tolist() == [int(key[1:]) % 7 != 0 for key in rows.keys]
    assert rows.views["image"].values.dtype == np.float32


def test_features_of_the_store_are_views_as_they_are(bench: Bench) -> None:
    features = {
        encoder.modality: open_encoder(bench.store, bench.dataset, encoder, splits=["train"])
        for encoder in bench.encoders
    }
    rows = load_views(bench.store, bench.dataset, bench.encoders, "train")
    from_store = ConcatFusion(C=0.1).fit(features, features["image"].labels)
    np.testing.assert_array_equal(
        from_store.predict_proba(features), ConcatFusion(C=0.1).fit(rows.views, rows.labels).predict_proba(rows.views)
    )


def test_features_of_other_rows_are_refused(bench: Bench) -> None:
    shard, encoder = bench.dataset.of("train")[0], bench.encoders[0]
    keys = [f"x{n}" for n in range(shard.samples)]
    table = Table(keys, np.zeros((len(keys), 5)), np.ones(len(keys), bool))
    write_view(bench.store, encoder.digest, shard.views["image"], table, Made("first"))
    with pytest.raises(DamagedError, match="other keys"):
        load_views(bench.store, bench.dataset, bench.encoders, "train")


def test_every_model_is_published_with_its_receipt(bench: Bench) -> None:
    config = bench.config()
    models = bench.fit(config)
    assert [model.name for model in models] == [plan.name for plan in plan_models(config)]
    held = load_views(bench.store, bench.dataset, bench.encoders, "val")
    for model in models:
        receipt = read_receipt(bench.store, model.digest)
        loaded = FusionModel.load(bench.store.url(f"models/{model.digest}"))
        views = held.views.only(list(loaded.view_shapes_))
        assert receipt["val_scores"] == model.val_scores
        assert model.val_scores["accuracy"] == pytest.approx(loaded.score(views, held.labels))
        codes, proba = loaded.label_codes(held.labels), loaded.predict_proba(views)
        log_loss = -np.log(proba[np.arange(len(codes)), codes]).mean()
        assert model.val_scores["log_loss"] == pytest.approx(log_loss, rel=1e-6)
        assert sorted(bench.store.listing(f"models/{model.digest}")) == [
            "card.md",
            "costs.json",
            "model.json",
            "model.safetensors",
            "receipt.json",
        ]
    assert min(model.val_scores["accuracy"] for model in models if not model.baseline) > 0.8


def test_nothing_is_done_twice_and_equal_input_gives_equal_bytes(bench: Bench) -> None:
    config = bench.config()
    bench.fit(config)
    assert set(bench.actions(config).values()) == {"reuse"}
    first = _bytes(bench.store)
    bench.fit(config)
    assert _bytes(bench.store) == first
    bench.store.remove("models")
    bench.fit(config)
    assert _bytes(bench.store) == first


def test_what_changed_decides_what_is_trained(bench: Bench) -> None:
    config = bench.config()
    assert {step.reason for step in bench.foresee(config)} == {"not trained yet"}
    models = bench.fit(config)
    changed = bench.config([{"method": "concat", "C": 0.5}, *METHODS[1:]])
    assert [name for name, action in bench.actions(changed).items() if action == "compute"] == ["concat"]
    assert bench.foresee(changed)[0].reason == "changed settings: C"
    other = {step.name: step for step in bench.foresee(bench.config(seed=3))}
    assert [name for name, step in other.items() if step.action == "compute"] == ["weighted"], (
        "closed forms draw nothing"
    )
    assert other["weighted"].reason == "seed changed"
    bench.encoders = (bench.encoders[0], replace(bench.encoders[1], digest="other"))
    steps = {step.name: step for step in bench.foresee(config)}
    assert steps["only-image"].action == "reuse"
    assert steps["concat"].reason == "new encoder of audio"
    assert [model.digest for model in models] != [step.digest for step in steps.values()]


def test_a_changed_label_or_encoder_or_file_is_noticed(bench: Bench) -> None:
    config = bench.config()
    models = bench.fit(config)
    shards = bench.dataset.shards
    bench.dataset = replace(bench.dataset, shards=(replace(shards[0], labels="other"), *shards[1:]))
    assert {step.reason for step in bench.foresee(config)} == {"labels changed"}
    bench.dataset = replace(bench.dataset, shards=shards)
    bench.store.remove(f"models/{models[0].digest}/model.safetensors")
    assert bench.foresee(config)[0].reason == "its files are missing or damaged"
    bench.store.publish_json("encoders/audio-encoder/receipt.json", {"weights": "second"})
    steps = {step.name: step for step in bench.foresee(config)}
    assert steps["late"].reason == "the encoder of audio was trained anew with other weights"
    assert steps["only-image"].action == "reuse"


def test_what_is_not_known_yet_has_no_name(bench: Bench) -> None:
    config = bench.config()
    some = [(bench.encoders[0], []), (None, [])]
    fresh = {step.name: step.reason for _, step in foresee_models(config, bench.dataset.shards, some, bench.store)}
    assert fresh["concat"] == "its features are made first"
    assert fresh["only-image"] == "not trained yet"
    bench.fit(config)
    found = foresee_models(config, bench.dataset.shards, some, bench.store)
    names = {step.name: (entry, step) for entry, step in found}
    assert names["concat"][0] is None
    assert names["concat"][1].digest is None
    assert names["concat"][1].reason == "the features of audio change"
    assert names["only-image"][0] is not None
    unlabelled = [replace(shard, labels=None) for shard in bench.dataset.shards]
    found = foresee_models(config, unlabelled, [(encoder, []) for encoder in bench.encoders], bench.store)
    assert {step.reason for _, step in found} == {"its training data change"}


@pytest.mark.parametrize("method", [METHODS[2], MACHINE], ids=["weighted", "dbm"])
def test_a_killed_training_goes_on_to_the_same_bytes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    monkeypatch.setattr(keeping, "CHECKPOINT_EVERY_S", 0.0)
    config = bench.config([method])
    bench.fit(config)
    whole = _bytes(bench.store)
    bench.store.remove("models")
    seen: list[int] = []

    def dies(event: dict[str, int]) -> None:
        seen.append(event["epoch"])
        if len(seen) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(fit, "tell", dies)
    with pytest.raises(KeyboardInterrupt):
        bench.fit(config)
    (left,) = (name for name in _bytes(bench.store) if name.endswith("checkpoint.safetensors"))
    checkpoint = _bytes(bench.store)[left]
    bench.fit(config)
    assert seen[3] > 1
    assert _bytes(bench.store) == whole
    bench.store.publish_bytes(f"models/{left}", checkpoint)
    bench.fit(config)
    assert _bytes(bench.store) == whole, "left by a run that was killed after the receipt"


@pytest.mark.parametrize("method", ["concat", WEIGHTED], ids=["concat", "weighted"])
def test_a_model_rests_on_the_encoders_that_it_read(bench: Bench, monkeypatch: pytest.MonkeyPatch, method: Any) -> None:
    monkeypatch.setattr(keeping, "CHECKPOINT_EVERY_S", 0.0)
    config = bench.config([method])
    path = "encoders/audio-encoder/receipt.json"

    def retrained_meanwhile(*given: Any, **named: Any) -> Any:
        rows = load_views(*given, **named)
        bench.store.publish_json(path, {"weights": "second"})
        return rows

    monkeypatch.setattr(data, "load_views", retrained_meanwhile)
    with pytest.raises(StageError, match="another run trained the encoder of audio anew"):
        bench.fit(config)
    assert _bytes(bench.store) == {}
    bench.fit(config)
    assert set(bench.actions(config).values()) == {"reuse"}


def test_a_receipt_never_names_files_that_are_being_replaced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    config = bench.config(["concat"])
    models = bench.fit(config)
    bench.store.publish_json("encoders/image-encoder/receipt.json", {"weights": "second"})

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FusionModel, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        bench.fit(config)
    assert not bench.store.exists(f"models/{models[0].digest}/receipt.json")


def test_the_device_is_asked_for_only_for_networks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(_: Any) -> str:
        raise AssertionError

    monkeypatch.setattr(planned, "device_of", asked)
    bench.fit(bench.config(["concat", "cca"]))
    assert not hasattr(fit, "device_of")
    with pytest.raises(AssertionError):
        bench.fit(bench.config([WEIGHTED]))


def test_validation_scores_are_those_of_the_test_split() -> None:
    train, held = made(90), made(40, seed=1)
    model = LateFusion(C=1.0).fit(train.views, train.labels)
    overall = score_model(model, held, instances=False).scores["overall"]
    assert validation_scores(model, held) == {name: overall[name] for name in ("accuracy", "macro_f1", "log_loss")}


class _Counted(Silent):
    def __init__(self) -> None:
        self.total, self.reused, self.done = 0, 0, 0.0

    def start(self, total: int, *, reused: int = 0, unit: str = "shards") -> None:
        self.total, self.reused = total, reused

    def advance(self, units: float = 1, *, samples: int = 0, rejected: int = 0, note: str = "") -> None:
        self.done += units


def test_progress_adds_up(bench: Bench) -> None:
    progress = _Counted()
    bench.fit(bench.config(), progress)
    assert (progress.total, progress.reused) == (9, 0)
    assert progress.done == pytest.approx(9)
    progress = _Counted()
    bench.fit(bench.config(), progress)
    assert (progress.total, progress.reused, progress.done) == (9, 9, 0)


def test_a_fit_that_fails_names_its_model(bench: Bench) -> None:
    shard, encoder = bench.dataset.of("train")[0], bench.encoders[0]
    bench.store.remove(f"features/{encoder.digest}/{shard.views['image']}.arrow")
    with pytest.raises((StageError, DamagedError), match="arrow"):
        bench.fit(bench.config())


def test_the_best_is_chosen_among_configured_methods_only() -> None:
    def entry(name: str, loss: float, accuracy: float, *, baseline: bool = False) -> ModelEntry:
        return ModelEntry(name, name, name, {"log_loss": loss, "accuracy": accuracy}, baseline)

    models = [entry("a", 0.3, 0.9), entry("b", 0.2, 0.8), entry("late", 0.1, 1.0, baseline=True), entry("c", 0.2, 0.9)]
    assert choose_best(models, "log_loss").name == "b"
    assert choose_best(models, "accuracy").name == "a"


def test_settings_name_a_constructor_that_takes_them(bench: Bench) -> None:
    kernel = ["average-kernel", "easymkl", "lpmkl", "kernel-alignment"]
    config = bench.config(["concat", "late", "weighted", *kernel, "cca", "autoencoder", "vae", "dbm"])
    by_caller = {"random_state": 3, "task": "multilabel"}
    for settings in config.fusion.methods:
        model = settings.load()(**settings.arguments(), **by_caller)
        given = settings.arguments()
        assert model.get_params() == {**given, **by_caller, "columns": None}
        # The constructor's own defaults are those of the YAML.
        assert type(model)().get_params() == {**given, "random_state": 0, "task": "classes", "columns": None}
    assert len(config.fusion.methods) == 11
    assert ConcatSettings(C="auto") == ConcatSettings()


def test_foreseeing_imports_neither_torch_nor_scikit_learn() -> None:
    code = (
        "import sys, mmcore.fusion.fit; sys.exit(any(m in sys.modules for m in ('torch', 'sklearn', 'scipy', 'dask')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Out of core


def test_features_beyond_the_memory_are_learned_out_of_core(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    few = bench.config(["concat", "cca", "shared-factor"], memory_bytes=1000)
    many = bench.config(["concat", "cca", "shared-factor"])
    streamed, whole = (bench.fit(config)[:3] for config in (few, many))
    assert streamed[0].digest == whole[0].digest
    assert bench.store.listing("moments")
    views = load_views(bench.store, bench.dataset, bench.encoders, "test").views
    for one, other in zip(streamed[1:], whole[1:], strict=True):
        recipe = read_receipt(bench.store, one.digest)["recipe"]
        # 1,000 bytes hold 9 columns of 4 bytes so many times, of train and val, and once more.
        assert recipe["streamed"] == {"rows": 1000 // (16 * 9), "moments": VERSION, "sample": SAMPLE_VERSION}
        assert "streamed" not in read_receipt(bench.store, other.digest)["recipe"]
        models = [FusionModel.load(bench.store.url(f"models/{entry.digest}")) for entry in (one, other)]
        np.testing.assert_allclose(models[0].fuse(views), models[1].fuse(views), atol=1e-6)
    assert set(bench.actions(few).values()) == {"reuse"}
    reasons = {step.name: step.reason for step in bench.foresee(bench.config(["cca"], memory_bytes=2000))}
    assert reasons["cca"] == "the memory for features changed"
    monkeypatch.setattr(planned, "MOMENTS_VERSION", VERSION + 1)
    steps = {step.name: step for step in bench.foresee(few)}
    assert (steps["cca"].action, steps["cca"].reason) == ("compute", "its code changed")
    assert steps["concat"].action == "reuse"


def test_the_settings_say_which_methods_can_learn_out_of_core(bench: Bench) -> None:
    methods = [settings() for settings in get_args(OwnFusion)]
    can = {settings.method for settings in methods if settings.out_of_core}
    assert can == {settings.method for settings in methods if issubclass(settings.load(), MomentsFusion)}
    assert {"cca", "shared-factor"} <= can
