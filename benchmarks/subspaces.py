"""Subspace methods beside cca-zoo: how long a map takes to learn, and what is told from it on mfeat.

    python benchmarks/subspaces.py speed
    python benchmarks/subspaces.py mfeat ../shared/data/mfeat

`speed` learns the same map of the same arrays by both, in turn, on one thread each, and compares CPU seconds (the
median ratio of several turns); how far the variates of the two are apart shows that both solved the same problem. Ours
is what `fit` does before the head. `mfeat` takes 5 stratified half splits (random_state 0), standardised on the
training half: our classes against the same logistic regression on cca-zoo's variates. Needs `pip install cca-zoo`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cca_zoo import linear
from cca_zoo.nonparametric import KCCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from mmcore.fusion.cca import CcaFusion
from mmcore.fusion.data import Views
from mmcore.fusion.gcca import GccaFusion
from mmcore.fusion.kcca import KccaFusion
from mmcore.fusion.pls import PlsFusion
from mmcore.fusion.rows import FitRun, Rows

K = 8
PAIRS = [(2_000, (64, 32)), (2_000, (216, 64)), (1_000, (500, 400)), (20_000, (128, 128)), (200, (2_000, 1_000))]
TRIPLES = [(2_000, (100, 80, 60)), (1_000, (300, 300, 300)), (20_000, (128, 128, 128))]
KERNELS = [(300, (64, 32)), (1_000, (216, 64)), (500, (64, 32, 16))]

METHODS: dict[str, tuple[list, Callable, Callable]] = {
    # Without shrinkage, views wider than their rows correlate fully in any direction.
    "cca": (PAIRS[:4], lambda: CcaFusion(n_components=K, shrinkage=0.0), lambda: linear.CCA(n_components=K)),
    "ridge cca": (
        PAIRS,
        lambda: CcaFusion(n_components=K, shrinkage=0.1),
        lambda: linear.RidgeCCA(n_components=K, shrinkage=0.1),
    ),
    "pls": (PAIRS, lambda: PlsFusion(n_components=K), lambda: linear.PLS(n_components=K)),
    "mcca": (
        TRIPLES,
        lambda: CcaFusion(n_components=K, shrinkage=0.1),
        lambda: linear.MCCA(n_components=K, shrinkage=0.1),
    ),
    "gcca": (
        [*PAIRS[:4], *TRIPLES],
        lambda: GccaFusion(n_components=K, shrinkage=0.1),
        lambda: linear.GCCA(n_components=K, shrinkage=0.1),
    ),
    "kcca rbf": (
        KERNELS,
        lambda: KccaFusion(n_components=K, shrinkage=0.1),
        lambda: KCCA(n_components=K, shrinkage=0.1, kernel="rbf"),
    ),
}


def made(n: int, widths: tuple[int, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    shared = random.normal(size=(n, 10))
    return [shared @ random.normal(size=(10, width)) + 3 * random.normal(size=(n, width)) for width in widths]


def learned(model, views: list[np.ndarray]):
    """Our model's map of these views, without a head."""
    n = len(views[0])
    named = Views({f"view {number}": values for number, values in enumerate(views)})
    model.curves_ = {}
    model._learn(Rows(named, np.zeros(n, int), np.ones(n), np.ones(n, bool)), None, FitRun())
    return model


def apart(model, peer, views: list[np.ndarray]) -> float:
    """How far the variates are from each other, as a share of their largest."""
    ours = np.vstack([model._project(f"view {number}", values) for number, values in enumerate(views)])
    theirs = np.vstack(peer.transform(views))
    signs = np.where((ours * theirs).sum(axis=0) < 0, -1.0, 1.0)
    return float(np.abs(ours * signs - theirs).max() / np.abs(theirs).max())


def cpu_seconds(work: Callable):
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def speed(turns: int, only: str | None) -> None:
    for name, (shapes, ours, theirs) in METHODS.items():
        if only and name != only:
            continue
        for n, widths in shapes:
            views = made(n, widths)
            times = []
            for _ in range(turns):
                mine, model = cpu_seconds(lambda views=views, ours=ours: learned(ours(), views))
                peers, peer = cpu_seconds(lambda views=views, theirs=theirs: theirs().fit(views))
                times.append((mine, peers, peers / mine))
            mine, peers, ratio = (statistics.median(column) for column in zip(*times, strict=True))
            shape = f"{n:,} x {'+'.join(map(str, widths))}"
            print(
                f"{name:<10} {shape:<22} ours {mine * 1e3:8.1f} ms   cca-zoo {peers * 1e3:8.1f} ms   "
                f"ratio {ratio:5.2f}   apart {apart(model, peer, views):.0e}",
                flush=True,
            )


TWO = ("fac", "kar")
FIVE = ("fou", "fac", "kar", "pix", "zer")
SIX = (*FIVE, "mor")


def rows_of_table() -> list[tuple[str, tuple[str, ...], Callable, Callable | None]]:
    """What to print: a name, its views, our class (by what its head reads), cca-zoo's or None."""
    plain = {"n_components": 20, "C": 1.0}
    return [
        (
            "ridge cca .1",
            TWO,
            lambda **s: CcaFusion(**plain, **s),
            lambda: linear.RidgeCCA(n_components=20, shrinkage=0.1),
        ),
        (
            "kcca rbf .1",
            TWO,
            lambda **s: KccaFusion(**plain, **s),
            lambda: KCCA(n_components=20, shrinkage=0.1, kernel="rbf"),
        ),
        (
            "kcca rbf .1, 500 landmarks",
            TWO,
            lambda **s: KccaFusion(**plain, **s, memory_bytes=64 << 20),
            None,
        ),
        ("mcca .1", FIVE, lambda **s: CcaFusion(**plain, **s), lambda: linear.MCCA(n_components=20, shrinkage=0.1)),
        ("gcca .1", FIVE, lambda **s: GccaFusion(**plain, **s), lambda: linear.GCCA(n_components=20, shrinkage=0.1)),
        ("mcca .1, k above the narrowest", SIX, lambda **s: CcaFusion(**plain, **s), None),
        ("gcca .1, k above the narrowest", SIX, lambda **s: GccaFusion(**plain, **s), None),
        ("pls", SIX, lambda **s: PlsFusion(**plain, **s), None),
    ]


def read(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    tables = {name: np.loadtxt(folder / f"mfeat-{name}.csv", delimiter=",", skiprows=1) for name in SIX}
    return {name: table[:, :-1] for name, table in tables.items()}, tables["fou"][:, -1].astype(int)


def peers_accuracy(peer, views, labels, split, *, reads: str) -> float:
    train, test = split
    scalers = [StandardScaler().fit(values[train]) for values in views]
    scaled = [scaler.transform(values) for scaler, values in zip(scalers, views, strict=True)]
    variates = peer.fit([values[train] for values in scaled]).transform(scaled)
    X = np.mean(variates, axis=0) if reads == "mean" else np.hstack(variates)
    return float(LogisticRegression(C=1.0, max_iter=5_000).fit(X[train], labels[train]).score(X[test], labels[test]))


def mfeat(folder: Path) -> None:
    views, labels = read(folder)
    splits = list(StratifiedShuffleSplit(5, train_size=0.5, random_state=0).split(labels, labels))
    for name, chosen, ours, theirs in rows_of_table():
        for reads in ("each", "mean"):
            mine, peers = [], []
            for train, test in splits:
                part = {one: views[one] for one in chosen}
                model = ours(reads=reads).fit({key: values[train] for key, values in part.items()}, labels[train])
                mine.append(100 * model.score({key: values[test] for key, values in part.items()}, labels[test]))
                if theirs is not None:
                    peers.append(
                        100 * peers_accuracy(theirs(), list(part.values()), labels, (train, test), reads=reads)
                    )
            beside = f"cca-zoo {np.mean(peers):.2f} ± {np.std(peers, ddof=1):.2f}" if peers else ""
            print(
                f"{name:<31} {'+'.join(chosen):<24} head reads {reads:<5} "
                f"ours {np.mean(mine):.2f} ± {np.std(mine, ddof=1):.2f}   {beside}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "mfeat"])
    parser.add_argument("data", type=Path, nargs="?", help="the folder of mfeat")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", choices=METHODS)
    arguments = parser.parse_args()
    with threadpool_limits(1):
        if arguments.what == "speed":
            speed(arguments.turns, arguments.only)
        elif arguments.data is None:
            parser.error("mfeat needs the folder of the data")
        else:
            mfeat(arguments.data)


if __name__ == "__main__":
    main()
