"""UCI multiple features: how far the methods are from figures that other libraries reach on the same splits.

Five stratified halves (`StratifiedShuffleSplit(5, train_size=0.5, random_state=0)`), views standardised on the training
half, no validation rows, fixed strengths; accuracy on the other half. The references were measured with scikit-learn
(support vector machines one against the rest), cca-zoo 4 and MKLpy on these splits. A row is off where it is more than
.3 points away from its reference. Where scikit-learn has the same method it is fitted in the same run; `its CPU` is its
time over ours.

    python benchmarks/mfeat.py ../shared/data/mfeat
    python benchmarks/mfeat.py ../shared/data/mfeat --rows "concat, linear"

The folder holds mfeat-<view>.csv of six views, each with its last column the label.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from mmcore.fusion.base import FusionModel
from mmcore.fusion.concat import ConcatFusion
from mmcore.fusion.data import Views
from mmcore.fusion.late import LateFusion
from mmcore.fusion.multiplicative import MultiplicativeFusion

VIEWS = ("fou", "fac", "kar", "pix", "zer", "mor")
TOLERANCE = 0.3
"""Points of accuracy."""


def logistic() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=1.0, tol=1e-6, max_iter=5000))


def machines() -> Pipeline:
    return make_pipeline(StandardScaler(), OneVsRestClassifier(SVC(C=10.0)))


def perceptron() -> Pipeline:
    return make_pipeline(StandardScaler(), MLPClassifier((64,), early_stopping=True, random_state=0))


@dataclass(frozen=True)
class Row:
    """A method as the reference has it, and the reference's accuracy in percent (None: there is none)."""

    make: Callable[[], FusionModel]
    reference: float | None = None
    views: tuple[str, ...] = VIEWS
    peer: Callable[[], Pipeline] | None = None
    """The same by scikit-learn, fitted in this run on the views side by side."""


ROWS: dict[str, Row] = {
    **{
        f"only {view}, linear": Row(lambda: LateFusion(C=1.0), accuracy, (view,), logistic)
        for view, accuracy in zip(VIEWS, (79.40, 96.92, 93.70, 96.38, 81.46, 73.92), strict=True)
    },
    **{
        f"only {view}, kernel": Row(lambda: LateFusion(head="kernel", C=10.0), accuracy, (view,), machines)
        for view, accuracy in zip(VIEWS, (82.36, 97.36, 96.96, 97.86, 82.24, 73.70), strict=True)
    },
    "concat, linear": Row(lambda: ConcatFusion(C=1.0), 98.18, peer=logistic),
    "concat, kernel": Row(lambda: ConcatFusion(head="kernel", C=10.0), 98.38, peer=machines),
    "concat, tree": Row(lambda: ConcatFusion(head="tree", C=1.0)),
    "concat, network": Row(lambda: ConcatFusion(head="network", C=1.0), peer=perceptron),
    "late mean, linear": Row(lambda: LateFusion(combine="mean", C=1.0), 97.82),
    "late product, linear": Row(lambda: LateFusion(C=1.0)),
    "late learned, linear": Row(lambda: LateFusion(combine="learned", C=1.0)),
    "late stacking, linear": Row(lambda: LateFusion(combine="stacking", C=1.0)),
    "multiplicative, linear": Row(lambda: MultiplicativeFusion(C=1.0)),
}


def read(folder: Path) -> tuple[Views, np.ndarray]:
    """The six views of 2,000 digits, and their labels."""
    tables = {view: np.loadtxt(folder / f"mfeat-{view}.csv", delimiter=",", skiprows=1) for view in VIEWS}
    return Views({view: table[:, :-1] for view, table in tables.items()}), tables["fou"][:, -1].astype(int)


def accuracies(
    fit_and_score: Callable[[np.ndarray, np.ndarray], float], labels: np.ndarray
) -> tuple[list[float], float]:
    """Percent right on the held half of each split, and the CPU seconds of all."""
    splits = StratifiedShuffleSplit(5, train_size=0.5, random_state=0).split(np.zeros(len(labels)), labels)
    start = time.process_time()
    with threadpool_limits(1):
        found = [100 * fit_and_score(fit, held) for fit, held in splits]
    return found, time.process_time() - start


def measured(row: Row, views: Views, labels: np.ndarray) -> tuple[list[float], float]:
    used = views.only(row.views)
    return accuracies(lambda fit, held: row.make().fit(used[fit], labels[fit]).score(used[held], labels[held]), labels)


def measured_peer(row: Row, views: Views, labels: np.ndarray) -> tuple[list[float], float]:
    X = np.concatenate([views[name].values for name in row.views], axis=1)
    return accuracies(lambda fit, held: row.peer().fit(X[fit], labels[fit]).score(X[held], labels[held]), labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    arguments = parser.parse_args()
    views, labels = read(arguments.data)
    off = []
    print(
        f"{'':<24}{'accuracy %':>15}{'CPU s':>8}{'reference':>12}{'difference':>12}{'scikit-learn':>14}{'its CPU':>9}"
    )
    for name in arguments.rows:
        row = ROWS[name]
        found, spent = measured(row, views, labels)
        line = f"{name:<24}{np.mean(found):8.2f} ± {np.std(found):.2f}{spent:8.1f}"
        if row.reference is None:
            line += " " * 24
        else:
            difference = np.mean(found) - row.reference
            line += f"{row.reference:12.2f}{difference:+12.2f}"
            if abs(difference) > TOLERANCE:
                off.append(name)
        if row.peer is not None:
            theirs, their_time = measured_peer(row, views, labels)
            line += f"{np.mean(theirs):14.2f}{their_time / spent:8.1f}×"
        print(line, flush=True)
    if off:
        sys.exit(f"off by more than {TOLERANCE}: {', '.join(off)}")


if __name__ == "__main__":
    main()
