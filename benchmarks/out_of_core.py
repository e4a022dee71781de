"""CCA and the shared factor from more features than fit in memory: time, peak memory, exactness; and time by rows.

    python benchmarks/out_of_core.py --rows 5000000 --dim 64

Two views of `dim` float32 columns, 10,000 deviations away from zero, go to a feature store as its writer writes them
(indexes hold keys and labels only). Each fit runs in a process of its own, whose peak is the kernel's own
(VmHWM of /proc, so Linux only). The same rows are then fitted again, with more rows, and by another method; a smaller
number of rows is fitted in memory too. At last the shared factor is fitted on growing numbers of rows in memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

PER_SHARD = 16_384
LATENT = 8
CLASSES = 4


def write(folder: Path, start: int, rows: int, dim: int) -> None:
    """Shards of these rows, appended to those in `folder`."""
    import pyarrow as pa
    from pyarrow import parquet

    from mmcore.features.store import Made, Table, write_view
    from mmcore.storage import Store

    store = Store(folder).open()
    maps = [np.random.default_rng(view).normal(size=(LATENT, dim)) for view in range(2)]
    for first in range(start, start + rows, PER_SHARD):
        count = min(PER_SHARD, start + rows - first)
        random = np.random.default_rng(first)
        keys = [f"k{row:08d}" for row in range(first, first + count)]
        shared = random.normal(size=(count, LATENT))
        labels = [f"c{code}" for code in (shared[:, 0] > 0) + 2 * (shared[:, 1] > 0)]
        with store.scratch() as scratch:
            parquet.write_table(pa.table({"key": keys, "label": labels}), scratch / "index")
            index = store.publish_file(scratch / "index", f"shards/{first}.parquet")
        for name, loadings in zip("ab", maps, strict=True):
            values = (1e4 + shared @ loadings + random.normal(size=(count, dim))).astype(np.float32)
            write_view(store, name, f"{name}{first}", Table(keys, values, np.ones(count, bool)), Made("w"))
        store.publish_json(f"shards/{first:012d}.entry.json", {"first": first, "samples": count, **index.as_json()})


def opened(folder: Path, rows: int, dim: int) -> tuple[Any, Any, Any]:
    """The store, the data set of the first `rows` rows, and its encoders."""
    from mmcore.records import DataFile, Dataset, EncoderEntry, ShardEntry
    from mmcore.storage import Store

    store = Store(folder)
    shards = []
    for name in sorted(store.listing("shards")):
        if name.endswith(".entry.json") and (entry := store.read_json(f"shards/{name}"))["first"] < rows:
            first = entry["first"]
            index = DataFile(entry["path"], entry["sha256"], entry["size_bytes"])
            views = {view: f"{view}{first}" for view in "ab"}
            shards.append(ShardEntry(str(first), "train", entry["samples"], views, str(first), index=index))
    encoders = tuple(EncoderEntry(view, view, "made", dim, False) for view in "ab")
    return store, Dataset(tuple(shards), (), rows, tuple(f"c{n}" for n in range(CLASSES)), {}), encoders


def peak_bytes() -> int:
    """The largest resident size that this process ever had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def model_of(method: str) -> Any:
    from mmcore.fusion.cca import CcaFusion
    from mmcore.fusion.shared_factor import SharedFactorFusion

    kind = {"cca": CcaFusion, "shared-factor": SharedFactorFusion}[method]
    return kind(n_components=LATENT, C=1.0)


def fit(folder: Path, rows: int, dim: int, method: str, workers: int) -> dict[str, Any]:
    """One fit out of core, in this process."""
    from threadpoolctl import threadpool_limits

    from mmcore.config import ComputeConfig
    from mmcore.fusion.streamed import fit_streamed, make_moments
    from mmcore.parallel import open_pool

    store, dataset, encoders = opened(folder, rows, dim)
    start, cpu = time.perf_counter(), time.process_time()
    compute = ComputeConfig.model_validate({"dask": {"workers": workers}})
    with open_pool(compute) as pool, threadpool_limits(1):
        make_moments(store, dataset, encoders, pool)
        moments_s = time.perf_counter() - start
        model = fit_streamed(model_of(method), store, dataset, encoders, pool)
    return {
        "seconds": time.perf_counter() - start,
        "moments_s": moments_s,
        "cpu_s": time.process_time() - cpu,
        "peak": peak_bytes(),
        "correlations": model.curves_.get("correlations"),
        "groups": sum(name.endswith(".json") for name in store.listing("moments")),
        "moments_bytes": sum(store.listing("moments").values()),
    }


def exactness(folder: Path, rows: int, dim: int, method: str) -> float:
    """Largest difference between the maps learned in memory and out of core, as a share of the largest weight."""
    from mmcore.config import ComputeConfig
    from mmcore.fusion.data import load_views
    from mmcore.fusion.streamed import fit_streamed
    from mmcore.parallel import serial_pool

    store, dataset, encoders = opened(folder, rows, dim)
    streamed = fit_streamed(model_of(method), store, dataset, encoders, serial_pool(ComputeConfig()))
    train = load_views(store, dataset, encoders, "train")
    plain = model_of(method).fit(train.views, train.labels)
    name = "weights_" if method == "cca" else "loadings_"
    pairs = [(getattr(streamed, name)[view], getattr(plain, name)[view]) for view in "ab"]
    return max(float(np.abs(mine - theirs).max() / np.abs(theirs).max()) for mine, theirs in pairs)


def by_rows(sizes: list[int], dim: int) -> None:
    """CPU seconds of the shared factor's map on rows in memory of which a third of the blocks is missing."""
    from threadpoolctl import threadpool_limits

    from mmcore.fusion.data import View, Views
    from mmcore.fusion.moments import Moments

    random = np.random.default_rng(0)
    most = max(sizes)
    shared = random.normal(size=(most, LATENT))
    views = {}
    for name in "abc":
        values = shared @ random.normal(size=(LATENT, dim)) + random.normal(size=(most, dim))
        views[name] = View(values.astype(np.float32), random.random(most) > 1 / 3)
    every = Views(views)
    print("shared factor in memory, 3 views, a third of the blocks missing")
    model_of("shared-factor").learn_moments(Moments.of(every[slice(0, 1000)]))
    with threadpool_limits(1):
        for rows in sizes:
            start = time.process_time()
            moments = Moments.of(every[slice(0, rows)])
            read = time.process_time() - start
            model = model_of("shared-factor")
            model.learn_moments(moments.scaled(moments.means(), moments.deviations()))
            total = time.process_time() - start
            steps = len(model.curves_["objective"])
            print(
                f"{rows:>11,} rows {total:8.2f} CPU s ({read:.2f} s reading, {steps} steps) "
                f"{1e6 * read / rows:7.2f} µs per row, gradient {model.curves_['gradient']:.1e}",
                flush=True,
            )


def apart(*arguments: object) -> Any:
    """One step in a process of its own."""
    command = [sys.executable, __file__, "--one", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--dim", type=int, default=64, help="columns of each of the two views")
    parser.add_argument("--workers", type=int, default=0, help="local Dask workers; 0: this process alone")
    parser.add_argument("--exact-rows", type=int, default=200_000, help="rows fitted in memory too")
    parser.add_argument("--folder", type=Path, help="where the features go (default: a temporary folder)")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        step, folder, rows, dim, *rest = arguments.one
        found: Any = None
        if step == "write":
            write(Path(folder), int(rest[0]), int(rows), int(dim))
        elif step == "fit":
            found = fit(Path(folder), int(rows), int(dim), rest[0], int(rest[1]))
        else:
            found = exactness(Path(folder), int(rows), int(dim), rest[0])
        print(json.dumps(found))
        return
    rows, dim = arguments.rows, arguments.dim
    with tempfile.TemporaryDirectory(prefix="mmcore-benchmark-", dir=arguments.folder) as folder:
        start = time.perf_counter()
        apart("write", folder, rows, dim, 0)
        size = rows * dim * 2 * 4
        print(
            f"{rows:,} x ({dim}+{dim}) float32, {size / 2**30:.2f} GiB, written in {time.perf_counter() - start:.0f} s"
        )
        more = rows // 20

        def show(what: str, found: dict[str, Any]) -> None:
            times = f"{found['seconds']:7.1f} s ({found['moments_s']:.1f} s moments), {found['cpu_s']:.1f} CPU s"
            files = f"{found['groups']} groups, {found['moments_bytes'] / 2**20:.1f} MiB"
            print(f"{what:<30} {times}  peak {found['peak'] / 2**20:,.0f} MiB  {files}", flush=True)

        show("cca", apart("fit", folder, rows, dim, "cca", arguments.workers))
        show("cca again", apart("fit", folder, rows, dim, "cca", arguments.workers))
        show("shared-factor, moments there", apart("fit", folder, rows, dim, "shared-factor", arguments.workers))
        apart("write", folder, more, dim, -(-rows // PER_SHARD) * PER_SHARD)
        show(f"cca, {more:,} rows more", apart("fit", folder, rows + more + PER_SHARD, dim, "cca", arguments.workers))
        few = min(rows, arguments.exact_rows)
        for method in ("cca", "shared-factor"):
            apart_by = apart("exact", folder, few, dim, method)
            print(f"{method} on {few:,} rows, out of core against in memory: {apart_by:.1e}")
    by_rows([50_000, 100_000, 200_000, 400_000], dim)


if __name__ == "__main__":
    main()
