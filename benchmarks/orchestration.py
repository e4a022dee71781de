"""What Prefect and Dask cost: the prepare flow against a plain loop over the same functions.

Both read the same manifest, plan the same shards and make them with the same number of processes; the loop is
`concurrent.futures`, the flow runs on a Prefect server that is already there (this script starts one). Times of two
sizes give a line each: the difference of the intercepts is the fixed cost, the ratio of the slopes the cost per sample.

    python benchmarks/orchestration.py --sizes 20000 200000 --processes 2 --repeats 1

The samples are those of `mmcore sample digits`, referred to again and again under new keys.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import yaml

CONFIG = {
    "name": "orchestration",
    "data": {
        "manifest": "manifest.csv",
        "max_rejected": 0.5,
        "modalities": {
            "image": {"kind": "image", "column": "image", "size": 28, "mode": "grey", "background": [0, 0, 0]},
            "audio": {"kind": "audio", "column": "audio", "sample_rate_hz": 8000, "max_duration_s": 2},
            "text": {"kind": "text", "column": "text", "max_chars": 500},
        },
    },
    "features": {"image": {"encoder": "cnn"}, "audio": {"encoder": "logmel-cnn"}, "text": {"encoder": "ngram"}},
}


def write_inputs(folder: Path, sample: Path, rows: int, processes: int) -> Path:
    """A manifest of `rows` rows over the sample's files, and a YAML beside it."""
    folder.mkdir(parents=True)
    with (sample / "manifest.csv").open(newline="") as file:
        base = [row for row in csv.DictReader(file) if row["label"]]
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(base[0]))
        writer.writeheader()
        for i in range(rows):
            writer.writerow({**base[i % len(base)], "id": f"k{i:07d}"})
    config = {**CONFIG, "compute": {"dask": {"workers": processes}}}
    config["data"] = {**config["data"], "root": str(sample)}
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(config))
    return folder / "pipeline.yaml"


def plain(config_file: Path, output: Path, processes: int) -> None:
    """The loop: what a person would write around the same functions."""
    from mmcore.config import load
    from mmcore.shards.plan import plan_shards
    from mmcore.shards.recipe import ShardJob
    from mmcore.shards.write import make_shard
    from mmcore.storage import Store

    config = load(config_file, [f"output={output}"])
    store = Store(config.output).open()
    planned = plan_shards(config, store)
    jobs = [
        ShardJob(recipe, store, roots, config.compute.sample_timeout_s)
        for recipe, roots in zip(planned.recipes, planned.roots, strict=True)
    ]
    with ProcessPoolExecutor(processes) as pool:
        for _ in pool.map(make_shard, jobs):
            pass


def timed(command: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command and its children (the server's are not in them)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def start_server(home: Path) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = [Path(sys.executable).parent / "prefect", "server", "start", "--port", str(port)]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/api"
    for _ in range(400):
        try:
            with urllib.request.urlopen(f"{url}/health"):
                return process, {**env, "PREFECT_API_URL": url}
        except OSError:
            time.sleep(0.3)
    sys.exit("the Prefect server did not start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs=2, default=[20_000, 200_000], metavar="ROWS")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--plain", nargs=2, metavar=("YAML", "OUTPUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        plain(Path(arguments.plain[0]), Path(arguments.plain[1]), arguments.processes)
        return
    from mmcore.samples.digits import make_digits

    with tempfile.TemporaryDirectory(prefix="mmcore-benchmark-") as folder:
        root = Path(folder)
        make_digits(root / "sample", samples=2000, seed=0)
        server, env = start_server(root / "prefect")
        try:
            walls: dict[str, dict[int, float]] = {"plain loop": {}, "prepare flow": {}}
            cpus: dict[str, dict[int, float]] = {name: {} for name in walls}
            for rows in arguments.sizes:
                file = write_inputs(root / f"in-{rows}", root / "sample", rows, arguments.processes)
                times: dict[str, list[tuple[float, float]]] = {name: [] for name in walls}
                for _ in range(arguments.repeats):
                    for name in walls:
                        output = root / "output"
                        command = {
                            "plain loop": [
                                *(sys.executable, __file__, "--processes", str(arguments.processes)),
                                *("--plain", str(file), str(output)),
                            ],
                            "prepare flow": [sys.executable, "-m", "flows.prepare", str(file), f"output={output}"],
                        }[name]
                        times[name].append(timed(command, env))
                        shutil.rmtree(output)
                for name, values in times.items():
                    walls[name][rows] = statistics.median(wall for wall, _ in values)
                    cpus[name][rows] = statistics.median(cpu for _, cpu in values)
                    print(
                        f"{rows:>9,} rows   {name:<13} {walls[name][rows]:8.1f} s   {cpus[name][rows]:8.1f} CPU s",
                        flush=True,
                    )
        finally:
            server.terminate()
            server.wait()
    for what, seconds in (("wall", walls), ("CPU", cpus)):
        report(what, seconds, *arguments.sizes)


def report(what: str, seconds: dict[str, dict[int, float]], small: int, large: int) -> None:
    slope = {name: (t[large] - t[small]) / (large - small) for name, t in seconds.items()}
    fixed = {name: t[small] - slope[name] * small for name, t in seconds.items()}
    more = fixed["prepare flow"] - fixed["plain loop"]
    ratio = slope["prepare flow"] / slope["plain loop"]
    print(f"{what:<5} fixed cost {more:6.1f} s more than the plain loop   slope {ratio:6.3f} of the plain loop's")


if __name__ == "__main__":
    main()
