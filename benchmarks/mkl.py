"""Multiple kernel learning on the six views of mfeat: rate and objective beside MKLpy, accuracy of every kernel method.

Five stratified halves (random_state 0) of 2,000 handwritten digits, z-scores of the training half, RBF kernels with
γ = 1/d, one against the rest, C = 10. Both libraries get the same ten problems on the same Gram matrices, by turns, on
one thread, and learn EasyMKL's weights (λ = .1) and a support vector machine on each sum of kernels.

    pip install MKLpy==0.6
    python benchmarks/mkl.py ../shared/data/mfeat

The folder needs mfeat-*.csv, one view each with the class in the last column.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from MKLpy.algorithms import EasyMKL
from MKLpy.metrics import margin
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from mmcore.fusion import kernel_fusion
from mmcore.fusion.data import Views
from mmcore.fusion.hulls import closest_in_hulls
from mmcore.fusion.mkl import AverageKernelFusion, EasyMklFusion, KernelAlignmentFusion, LpMklFusion
from mmcore.fusion.mkl_weights import combined, easymkl_weights
from mmcore.fusion.svm import Loss, fit_machine

LAMBDA, C = 0.1, 10.0

METHODS = {
    "average-kernel": AverageKernelFusion(),
    "easymkl": EasyMklFusion(),
    "lpmkl p=2": LpMklFusion(),
    "kernel-alignment": KernelAlignmentFusion(),
    "kernel-alignment, weights of any sign": KernelAlignmentFusion(nonnegative=False),
}


def read(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    names = ("fou", "fac", "kar", "pix", "zer", "mor")
    tables = {name: np.loadtxt(folder / f"mfeat-{name}.csv", delimiter=",", skiprows=1) for name in names}
    return {name: table[:, :-1] for name, table in tables.items()}, tables["fou"][:, -1].astype(int)


def halves(labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    splits = StratifiedShuffleSplit(5, train_size=0.5, random_state=0)
    return splits.split(np.zeros(len(labels)), labels)


def grams(views: dict[str, np.ndarray], train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kernel values (views, train, train) and (views, test, train)."""
    own, other = [], []
    for values in views.values():
        scaler = StandardScaler().fit(values[train])
        X, Z = scaler.transform(values[train]), scaler.transform(values[test])
        own.append(rbf_kernel(X))
        other.append(rbf_kernel(Z, X))
    return np.array(own), np.array(other)


def ours(own: np.ndarray, other: np.ndarray, signs: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """CPU seconds, weights (classes, kernels), scores (classes, test)."""
    start = time.process_time()
    weights = easymkl_weights(own, signs, lam=LAMBDA)
    machines = [
        fit_machine(combined(own, eta), target, np.ones(len(target)), Loss(C), tolerance=1e-3)
        for eta, target in zip(weights, signs.T, strict=True)
    ]
    taken = time.process_time() - start
    pairs = zip(weights, machines, strict=True)
    scores = [combined(other, eta) @ machine.coefficients + machine.intercept for eta, machine in pairs]
    return taken, weights, np.array(scores)


def peers(own: np.ndarray, other: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    kernels, fresh = ([torch.tensor(gram) for gram in part] for part in (own, other))
    start = time.process_time()
    model = EasyMKL(lam=LAMBDA, learner=SVC(C=C), multiclass_strategy="ova").fit(kernels, torch.tensor(labels))
    taken = time.process_time() - start
    scores = model.decision_function(fresh)
    classes = np.unique(labels)
    weights = np.array([model.solution[label].weights.numpy() for label in classes])
    return taken, weights, np.array([scores[label] for label in classes])


def objectives(own: np.ndarray, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The margin's squared length of each problem, ours and MKLpy's with its own solver and accuracy."""
    total = (1 - LAMBDA) * own.sum(axis=0) + LAMBDA * np.eye(own.shape[1])
    found = [closest_in_hulls(total, target).objective for target in signs.T]
    peer = [margin(torch.tensor(total), torch.tensor(target), solver="libsvm", tol=1e-7) ** 2 for target in signs.T]
    return np.array(found), np.array(peer)


def beside_mklpy(views: dict[str, np.ndarray], labels: np.ndarray) -> None:
    ratios = []
    for number, (train, test) in enumerate(halves(labels)):
        own, other = grams(views, train, test)
        signs = np.where(labels[train][:, None] == np.unique(labels), 1.0, -1.0)
        runs = [ours, peers] if number % 2 else [peers, ours]
        results = {run: run(own, other, signs if run is ours else labels[train]) for run in runs}
        (mine, weights, scores), (theirs, peer_weights, peer_scores) = results[ours], results[peers]
        found, peer = objectives(own, signs)
        ratios.append(theirs / mine)
        hits = [(rows.argmax(axis=0) == labels[test]).mean() * 100 for rows in (scores, peer_scores)]
        apart, lower = np.abs(weights - peer_weights).max(), (found / peer - 1).max()
        print(
            f"half {number}  CPU s {mine:.2f} / {theirs:.2f}  rate {ratios[-1]:.1f}x   "
            f"accuracy {hits[0]:.2f} / {hits[1]:.2f}   weights differ by {apart:.0e}   "
            f"objective against MKLpy's, the worst of ten: {lower:+.0e}",
            flush=True,
        )
    print(f"EasyMKL's rate against MKLpy's, median of five: {statistics.median(ratios):.1f}x")


def accuracies(views: dict[str, np.ndarray], labels: np.ndarray, landmarks: list[int]) -> None:
    for name, model in METHODS.items():
        print(row(name, model, views, labels))
    exact = kernel_fusion.landmarks_within
    for count in landmarks:
        kernel_fusion.landmarks_within = lambda *_, taken=count: taken
        print(row(f"average-kernel, Nyström m = {count}", AverageKernelFusion(), views, labels))
    kernel_fusion.landmarks_within = exact


def row(name: str, model: AverageKernelFusion, views: dict[str, np.ndarray], labels: np.ndarray) -> str:
    hits, start = [], time.process_time()
    for train, test in halves(labels):
        given = Views(views)
        hits.append(model.fit(given[train], labels[train]).score(given[test], labels[test]) * 100)
    seconds = (time.process_time() - start) / len(hits)
    return f"{name:<40} {np.mean(hits):.2f} ± {np.std(hits):.2f}   {seconds:.2f} CPU s a fit and test, calibrated"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--landmarks", type=int, nargs="*", default=[100, 500])
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="MKLpy")
    torch.set_num_threads(1)
    views, labels = read(arguments.data)
    with threadpool_limits(1):
        beside_mklpy(views, labels)
        accuracies(views, labels, arguments.landmarks)


if __name__ == "__main__":
    main()
