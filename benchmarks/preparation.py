"""How fast raw files become shards, beside other tools and the bare codec calls.

    python benchmarks/preparation.py [--triples 3000] [--camera] [--peers PYTHON] [--only NAME ...]
    python benchmarks/preparation.py --tiny 20000

Photo, text and sound triples (JPEG of about 100 kB, 60 words, 2 s of 44.1 kHz WAV) become a JPEG of shorter side 256 at
quality 90, the text, and 16 kHz mono PCM. Every peer gets the same Python function for one triple, except img2dataset,
which has its own and does no sound. Two processes each; CPU seconds of all of them, start-up and imports included,
beside wall time; `steady` is the rate between two sizes (a quarter and all of the triples), which leaves start-up out.
`bare` is the floor: the same codec calls in a loop, in two processes, nothing written but one file per process.

`--tiny` writes small PNG, WAV and text triples (28 x 28 pixels, half a second at 8 kHz) instead, beside a loop of
Pillow, soundfile and webdataset.ShardWriter in one process. `--peers` names the Python that peers are installed in:

    python -m venv peers && peers/bin/pip install torch==2.13.0 img2dataset==1.47.0 webdataset==1.0.2 datasets==5.2.0 \
        litdata==0.2.76 'ray[data]==2.60.0' daft==0.7.26 opencv-python-headless simplejpeg soxr soundfile pillow

What cannot be imported is said and left out. Ray's daemons are no children: their CPU time is not in its row.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

PROCESSES = 2
SIZES = [(375, 500), (500, 375), (640, 480), (768, 1024)]
CAMERA = [(2048, 1536), (1536, 2048), (2592, 1944)]
PER_SHARD = 500


# The data


def make_triples(folder: Path, count: int, *, camera: bool) -> None:
    """Noise over large shapes, so that JPEGs are as large as photographs are; made once per number."""
    with get_context("spawn").Pool(PROCESSES) as pool:
        jobs = [(str(folder), start, min(start + 100, count), camera) for start in range(0, count, 100)]
        pool.starmap(_make, jobs)


def _make(folder: str, start: int, stop: int, camera: bool) -> None:
    import simplejpeg
    from PIL import Image

    sizes = CAMERA if camera else SIZES
    for number in range(start, stop):
        if os.path.exists(f"{folder}/{number:06d}.wav"):
            continue
        draws = np.random.default_rng(number)
        width, height = sizes[number % len(sizes)]
        rough = draws.integers(0, 256, (height // 64 + 2, width // 64 + 2, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC), np.int16)
        noise = draws.integers(-22, 23, (height, width, 1), dtype=np.int16)
        pixels = np.ascontiguousarray((smooth + noise).clip(0, 255).astype(np.uint8))
        data = simplejpeg.encode_jpeg(pixels, 90, "RGB", "420")
        words = " ".join(f"word{n}" for n in draws.integers(0, 5000, 60))
        wave = np.cumsum(draws.normal(0, 1, 88_200))
        wave = (wave / np.abs(wave).max() * 20_000).astype("<i2")
        for ending, content in (("jpg", data), ("txt", words.encode()), ("wav", _wav(wave, 44_100))):
            Path(f"{folder}/{number:06d}.{ending}").write_bytes(content)


def make_tiny(folder: Path, count: int) -> None:
    from PIL import Image

    for number in range(count):
        if (folder / f"{number:06d}.wav").exists():
            continue
        draws = np.random.default_rng(number)
        out = io.BytesIO()
        rough = draws.integers(0, 256, (7, 7), dtype=np.uint8)
        Image.fromarray(rough).resize((28, 28), Image.Resampling.BICUBIC).save(out, "PNG")
        wave = (draws.normal(0, 0.1, 4000) * 20_000).clip(-32768, 32767).astype("<i2")
        text = f"the digit {number % 10}, said number {number}"
        for ending, content in (("png", out.getvalue()), ("txt", text.encode()), ("wav", _wav(wave, 8000))):
            (folder / f"{number:06d}.{ending}").write_bytes(content)


def _wav(wave: np.ndarray[Any, Any], rate_hz: int) -> bytes:
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, wave, rate_hz, format="WAV", subtype="PCM_16")
    return out.getvalue()


# One triple, as peers do it: cv2 and soxr, the best calls for their work


def process(folder: str, number: int) -> dict[str, Any]:
    import cv2
    import soundfile
    import soxr

    cv2.setNumThreads(1)
    with open(f"{folder}/{number:06d}.jpg", "rb") as file:
        pixels = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
    scale = 256 / min(pixels.shape[:2])
    size = round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, jpg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 90])
    samples, rate = soundfile.read(f"{folder}/{number:06d}.wav", dtype="float32")
    out = io.BytesIO()
    soundfile.write(out, soxr.resample(samples, rate, 16_000), 16_000, format="WAV", subtype="PCM_16")
    with open(f"{folder}/{number:06d}.txt", encoding="utf-8") as file:
        text = file.read()
    return {"__key__": f"{number:06d}", "jpg": jpg.tobytes(), "wav": out.getvalue(), "txt": text}


# Runs, each in a process of its own


def run_bare(folder: str, count: int, out: str) -> None:
    """The codec calls that mmcore makes, and nothing else."""
    with get_context("spawn").Pool(PROCESSES) as pool:
        pool.starmap(_bare, [(folder, start, count, out) for start in range(PROCESSES)])


def _bare(folder: str, start: int, count: int, out: str) -> None:
    import cv2
    import simplejpeg
    import soxr

    cv2.setNumThreads(1)
    with open(f"{out}/{start}.bin", "wb") as sink:
        for number in range(start, count, PROCESSES):
            with open(f"{folder}/{number:06d}.jpg", "rb") as file:
                data = file.read()
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
            scale = 256 / min(width, height)
            size = round(width * scale), round(height * scale)
            factor = next((f for f in (8, 4, 2) if width // f >= size[0] and height // f >= size[1]), 1)
            least = {"min_width": -(-width // factor), "min_height": -(-height // factor)} if factor > 1 else {}
            small = cv2.resize(simplejpeg.decode_jpeg(data, "RGB", **least), size, interpolation=cv2.INTER_AREA)
            sink.write(simplejpeg.encode_jpeg(small, 90, "RGB", "420"))
            with open(f"{folder}/{number:06d}.wav", "rb") as file:
                wave = np.frombuffer(file.read(), "<i2", offset=44).astype(np.float32) / 32768
            found = soxr.resample(wave, 44_100, 16_000, quality="HQ")
            sink.write((found * 32767).astype("<i2").tobytes())
            with open(f"{folder}/{number:06d}.txt", "rb") as file:
                sink.write(file.read())


def run_mmcore(folder: str, count: int, out: str, *, exact: bool = False, tiny: bool = False) -> None:
    from mmcore.config import RunConfig
    from mmcore.parallel import open_pool
    from mmcore.progress import Silent
    from mmcore.shards.prepare import prepare
    from mmcore.storage import Store

    ending = "png" if tiny else "jpg"
    rows = [f"{n:06d},{'ab'[n % 2]},train,{n:06d}.{ending},{n:06d}.txt,{n:06d}.wav" for n in range(count)]
    Path(folder, "manifest.csv").write_text("\n".join(["id,label,split,image,text,audio", *rows]) + "\n")
    image = {"kind": "image", "column": "image", "resize": "shorter", "size": 256, "format": "jpeg", "exact": exact}
    if tiny:
        image = {"kind": "image", "column": "image", "size": 28, "mode": "grey"}
    rate_hz = 8000 if tiny else 16_000
    modalities = {
        "image": image,
        "text": {"kind": "text", "column": "text"},
        "audio": {"kind": "audio", "column": "audio", "format": "wav", "sample_rate_hz": rate_hz},
    }
    data = {"manifest": f"{folder}/manifest.csv", "modalities": modalities}
    values = {"data": data, "shards": {"samples": PER_SHARD}, "compute": {"dask": {"workers": PROCESSES}}}
    config = RunConfig.model_validate({**values, "output": out})
    with open_pool(config.compute) as pool:
        prepare(config, Store(out).open(), pool, Silent())


def run_exact(folder: str, count: int, out: str) -> None:
    run_mmcore(folder, count, out, exact=True)


def run_tiny(folder: str, count: int, out: str) -> None:
    run_mmcore(folder, count, out, tiny=True)


def run_loop(folder: str, count: int, out: str) -> None:
    """What one writes first: Pillow, soundfile and webdataset.ShardWriter."""
    import soundfile
    import webdataset
    from PIL import Image

    with webdataset.ShardWriter(f"{out}/%06d.tar", maxcount=PER_SHARD, verbose=0) as writer:
        for number in range(count):
            png, wav = io.BytesIO(), io.BytesIO()
            image = Image.open(f"{folder}/{number:06d}.png").convert("L").resize((28, 28), Image.Resampling.LANCZOS)
            image.save(png, "PNG")
            samples, rate = soundfile.read(f"{folder}/{number:06d}.wav")
            soundfile.write(wav, samples, rate, format="WAV", subtype="PCM_16")
            text = Path(f"{folder}/{number:06d}.txt").read_text(encoding="utf-8").strip()
            key = f"{number:06d}"
            writer.write({"__key__": key, "png": png.getvalue(), "wav": wav.getvalue(), "txt": text, "cls": number % 2})


def run_webdataset(folder: str, count: int, out: str) -> None:
    with get_context("spawn").Pool(PROCESSES) as pool:
        pool.starmap(_webdataset, [(folder, start, count, out) for start in range(PROCESSES)])


def _webdataset(folder: str, start: int, count: int, out: str) -> None:
    import webdataset

    with webdataset.ShardWriter(f"{out}/{start}-%06d.tar", maxcount=PER_SHARD, maxsize=64e6, verbose=0) as writer:
        for number in range(start, count, PROCESSES):
            writer.write(process(folder, number))


def run_img2dataset(folder: str, count: int, out: str) -> None:
    import pyarrow as pa
    from img2dataset import download
    from pyarrow import parquet

    urls = [f"file://{folder}/{number:06d}.jpg" for number in range(count)]
    captions = [Path(f"{folder}/{number:06d}.txt").read_text(encoding="utf-8") for number in range(count)]
    parquet.write_table(pa.table({"url": urls, "caption": captions}), f"{out}/list.parquet")
    download(
        url_list=f"{out}/list.parquet", input_format="parquet", url_col="url", caption_col="caption",
        output_format="webdataset", output_folder=f"{out}/tars", image_size=256, resize_mode="keep_ratio",
        resize_only_if_bigger=True, encode_quality=90, processes_count=PROCESSES, thread_count=8,
        number_sample_per_shard=PER_SHARD,
    )  # fmt: skip


def run_huggingface(folder: str, count: int, out: str) -> None:
    import datasets

    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_dict({"number": list(range(count))})
    done = rows.map(
        lambda row: process(folder, row["number"]), num_proc=PROCESSES, writer_batch_size=100,
        cache_file_name=f"{out}/cache.arrow",
    )  # fmt: skip
    shards = max(1, count // PER_SHARD)
    for index in range(shards):
        done.shard(shards, index).to_parquet(f"{out}/{index:06d}.parquet")


def run_litdata(folder: str, count: int, out: str) -> None:
    import functools

    from litdata import optimize

    optimize(
        fn=functools.partial(process, folder), inputs=list(range(count)), output_dir=out, chunk_bytes="64MB",
        num_workers=PROCESSES,
    )  # fmt: skip


def run_ray(folder: str, count: int, out: str) -> None:
    import ray

    ray.init(num_cpus=PROCESSES, log_to_driver=False)
    rows = ray.data.from_items([{"number": n} for n in range(count)], override_num_blocks=12)
    rows.map(lambda row: process(folder, row["number"])).write_webdataset(out)
    ray.shutdown()


def run_daft(folder: str, count: int, out: str) -> None:
    import daft
    import soundfile
    import soxr
    from daft import col

    @daft.func(return_dtype=daft.DataType.binary())
    def sound(data: bytes) -> bytes:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
        made = io.BytesIO()
        soundfile.write(made, soxr.resample(samples, rate, 16_000), 16_000, format="WAV", subtype="PCM_16")
        return made.getvalue()

    names = {ending: [f"{folder}/{n:06d}.{ending}" for n in range(count)] for ending in ("jpg", "wav", "txt")}
    rows = daft.from_pydict(names)
    rows = rows.with_column("image", col("jpg").download().decode_image().resize(256, 256).encode_image("jpeg"))
    rows = rows.with_column("sound", sound(col("wav").download())).with_column("text", col("txt").download())
    rows.select("image", "sound", "text").write_parquet(out)


RUNS = {
    "bare": run_bare, "mmcore": run_mmcore, "mmcore exact": run_exact, "webdataset": run_webdataset,
    "huggingface": run_huggingface, "img2dataset": run_img2dataset, "litdata": run_litdata, "ray": run_ray,
    "daft": run_daft, "tiny mmcore": run_tiny, "tiny loop": run_loop,
}  # fmt: skip


def run_here(name: str, folder: str, count: int) -> None:
    """Run in this process; what it and its children took, as JSON."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_TMP")) as out:
        started = time.perf_counter()
        RUNS[name](folder, count, out)
        wall_s = time.perf_counter() - started
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        cpu_s = sum(one.ru_utime + one.ru_stime for one in used)
    print("RESULT " + json.dumps({"wall_s": wall_s, "cpu_s": cpu_s}))


def measure(name: str, python: str, folder: Path, count: int) -> dict[str, float] | None:
    own = name in ("bare", "mmcore", "mmcore exact", "tiny mmcore", "tiny loop")
    command = [sys.executable if own else python, __file__, "--here", name, str(folder), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            found: dict[str, float] = json.loads(line.removeprefix("RESULT "))
            return found
    print(f"{name}: left out ({(done.stderr.strip().splitlines() or ['no reason given'])[-1][:150]})")
    return None


def compare(names: list[str], python: str, folder: Path, count: int, repeats: int) -> None:
    small = count // 4
    rows: dict[str, tuple[float, ...]] = {}
    for name in names:
        runs = [(measure(name, python, folder, small), measure(name, python, folder, count)) for _ in range(repeats)]
        kept = [(few, many) for few, many in runs if few and many]
        if kept:
            cpu_s, wall_s = (float(np.median([many[what] for _, many in kept])) for what in ("cpu_s", "wall_s"))
            steady = [
                float(np.median([(many[what] - few[what]) / (count - small) * 1000 for few, many in kept]))
                for what in ("cpu_s", "wall_s")
            ]
            rows[name] = (wall_s, cpu_s, *steady)
            print(
                f"{name:14} {count:,} in {wall_s:6.1f} s wall, {cpu_s:6.1f} s CPU; "
                f"steady {steady[0]:6.2f} ms CPU, {steady[1]:6.2f} ms wall each",
                flush=True,
            )
    ours = next((name for name in ("mmcore", "tiny mmcore") if name in rows), None)
    if ours is None:
        return
    print(f"\nthe others' time by that of {ours}'s (more is better for us):")
    print(f"{'':14} {'wall':>7} {'CPU':>7} {'steady CPU':>11} {'steady wall':>12}")
    for name, found in rows.items():
        if name != ours:
            ratios = [other / mine for other, mine in zip(found, rows[ours], strict=True)]
            print(f"{name:14} {ratios[0]:7.2f} {ratios[1]:7.2f} {ratios[2]:11.2f} {ratios[3]:12.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--triples", type=int, default=3000)
    parser.add_argument("--tiny", type=int)
    parser.add_argument("--camera", action="store_true", help="photographs of 2048 x 1536 pixels and more")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--peers", default=sys.executable)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--data", type=Path, help="keep the data here for other runs")
    parser.add_argument("--here", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        run_here(given.here[0], given.here[1], int(given.here[2]))
        return
    folder = given.data or Path(tempfile.mkdtemp(prefix="preparation"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if given.tiny:
            make_tiny(folder, given.tiny)
            compare(given.only or ["tiny mmcore", "tiny loop"], given.peers, folder, given.tiny, given.repeats)
        else:
            make_triples(folder, given.triples, camera=given.camera)
            names = given.only or [name for name in RUNS if not name.startswith("tiny")]
            compare(names, given.peers, folder, given.triples, given.repeats)
    finally:
        if given.data is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
