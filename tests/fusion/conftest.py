"""Views to learn from: made ones, and the six of mfeat."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import StratifiedShuffleSplit
from threadpoolctl import threadpool_limits

from mmcore.fusion.autoencoder import AutoencoderFusion
from mmcore.fusion.baselines import Majority, Missingness
from mmcore.fusion.boltzmann import DbmFusion
from mmcore.fusion.cca import CcaFusion
from mmcore.fusion.concat import ConcatFusion
from mmcore.fusion.data import LabelledViews, View, Views
from mmcore.fusion.gcca import GccaFusion
from mmcore.fusion.kcca import KccaFusion
from mmcore.fusion.late import LateFusion
from mmcore.fusion.mkl import AverageKernelFusion, EasyMklFusion, KernelAlignmentFusion, LpMklFusion
from mmcore.fusion.multiplicative import MultiplicativeFusion
from mmcore.fusion.pls import PlsFusion
from mmcore.fusion.shared_factor import SharedFactorFusion
from mmcore.fusion.vae import VaeFusion
from mmcore.fusion.weighted import WeightedFusion

os.environ.setdefault("OMP_NUM_THREADS", "1")

QUICK = {"epochs": 15, "batch_size": 32, "learning_rate": 1e-2}

METHODS = {
    "concat": lambda: ConcatFusion(C=0.1),
    "concat-mean": lambda: ConcatFusion(C=0.1, impute="mean"),
    "concat-kernel": lambda: ConcatFusion(C=1.0, head="kernel"),
    "concat-tree": lambda: ConcatFusion(C=1.0, head="tree"),
    "concat-network": lambda: ConcatFusion(C=1.0, head="network"),
    "late": lambda: LateFusion(C=0.1),
    "late-mean": lambda: LateFusion(C=0.1, combine="mean"),
    "late-learned": lambda: LateFusion(C=0.1, combine="learned"),
    "late-stacking": lambda: LateFusion(C=0.1, combine="stacking"),
    "multiplicative": lambda: MultiplicativeFusion(C=0.1, dim=3),
    "average-kernel": AverageKernelFusion,
    "easymkl": lambda: EasyMklFusion(kernels=["rbf", "linear"]),
    "lpmkl": lambda: LpMklFusion(gamma=[0.5, 2.0]),
    "kernel-alignment": lambda: KernelAlignmentFusion(kernels=["polynomial", "cosine"]),
    "nystrom": lambda: AverageKernelFusion(memory_bytes=600_000, landmarks=40),
    "cca": lambda: CcaFusion(C=0.1, n_components=4),
    "gcca": lambda: GccaFusion(C=0.1, n_components=6, reads="each"),
    "pls": lambda: PlsFusion(C=0.1, n_components=4),
    "pls-canonical": lambda: PlsFusion(C=0.1, n_components=4, mode="canonical"),
    "kcca": lambda: KccaFusion(C=0.1, n_components=4),
    "kcca-nystrom": lambda: KccaFusion(C=0.1, n_components=4, memory_bytes=1 << 19, landmarks=40),
    "shared-factor": lambda: SharedFactorFusion(C=0.1, n_components=4),
    "shared-factor-mu": lambda: SharedFactorFusion(C=0.1, n_components=4, factor_penalty=1.0),
    "fixed": lambda: WeightedFusion(weights="fixed", dim=8, **QUICK),
    "weighted": lambda: WeightedFusion(dim=8, **QUICK),
    "gated": lambda: WeightedFusion(weights="gated", dim=8, **QUICK),
    "autoencoder": lambda: AutoencoderFusion(dim=4, hidden=8, **QUICK),
    "vae": lambda: VaeFusion(dim=4, hidden=16, **QUICK),
    "vae-mixture": lambda: VaeFusion(posterior="mixture", dim=4, hidden=8, **QUICK),
    "vae-product-mixture": lambda: VaeFusion(posterior="product-mixture", dim=4, hidden=8, **QUICK),
    "dbm": lambda: DbmFusion(C=1.0, dim=32, hidden=32, pretrain_epochs=20, **QUICK),
    "majority": Majority,
    "missingness": lambda: Missingness(C=0.1),
}
"""One of each kind, quick to fit."""

SUBSPACES = ("cca", "gcca", "pls", "pls-canonical", "kcca", "kcca-nystrom", "shared-factor", "shared-factor-mu")
"""Those that learn what the views share, whatever the labels are."""
FOLDED = ("concat-kernel", "concat-tree", "concat-network", "late", "late-learned", "late-stacking")
KERNEL = ("average-kernel", "easymkl", "lpmkl", "kernel-alignment", "nystrom")
NEURAL = ("fixed", "weighted", "gated", "autoencoder", "vae", "vae-mixture", "vae-product-mixture", "dbm")
"""Those that learn by epochs, from batches that they draw."""
SHARED = ("late", *SUBSPACES, *NEURAL[1:])
UNINFORMED = ("majority", "missingness")
"""Those that do not look at the values of the views."""


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):
        yield


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]()


@pytest.fixture(params=[name for name in METHODS if name not in UNINFORMED])
def informed_method(request):
    """A method that reads the views' values."""
    return METHODS[request.param]()


@pytest.fixture(params=SHARED)
def shared_method(request):
    return METHODS[request.param]()


def made(n: int, seed: int = 0, missing: float = 0.0, classes: int = 3) -> LabelledViews:
    """Three views of n rows that each tell a little about the class; absent values are NaN."""
    random = np.random.default_rng(seed)
    codes = np.arange(n) % classes
    views = {}
    keep = random.random((n, 3)) >= missing
    keep[np.flatnonzero(~keep.any(axis=1)), 0] = True
    for number, (name, width) in enumerate({"image": 5, "audio": 4, "text": 6}.items()):
        centres = np.random.default_rng(number).normal(size=(classes, width)) * 1.5
        values = centres[codes] + random.normal(size=(n, width))
        values[~keep[:, number]] = np.nan
        views[name] = View(values.astype(np.float32), keep[:, number])
    return LabelledViews(Views(views), np.array(["a", "b", "c", "d"])[codes], np.array([f"k{i}" for i in range(n)]))


def mfeat_rows(folder: Path) -> tuple[LabelledViews, np.ndarray]:
    """All of mfeat in the files' order, and each row's split."""
    rows = np.genfromtxt(folder / "split.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    views = {
        name: np.loadtxt(folder / f"mfeat-{name}.csv", delimiter=",", skiprows=1)[:, :-1]
        for name in ("fou", "fac", "kar", "pix", "zer", "mor")
    }
    return LabelledViews(Views(views), rows["label"], rows["row"]), rows["split"]


def read_mfeat(folder: Path) -> dict[str, LabelledViews]:
    """mfeat by split."""
    every, splits = mfeat_rows(folder)
    return {split: every[np.flatnonzero(splits == split)] for split in ("train", "val", "test")}


@pytest.fixture(scope="session")
def mfeat(mfeat_dir):
    return read_mfeat(mfeat_dir)


@pytest.fixture(scope="session")
def mfeat_halves(mfeat_dir):
    """All rows, and the five stratified halves on which other libraries' figures were measured."""
    every, _ = mfeat_rows(mfeat_dir)
    splits = StratifiedShuffleSplit(5, train_size=0.5, random_state=0).split(np.zeros(len(every)), every.labels)
    return every, list(splits)
