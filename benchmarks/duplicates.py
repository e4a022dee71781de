"""Finding duplicates among many signatures: time, memory, and what of the planted ones is found.

    python benchmarks/duplicates.py --rows 1000000

Half of the planted pairs' signatures are copies with changes such that their similarity is at least .05 above the
threshold. A found pair that was not planted counts against precision.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import pyarrow as pa

from mmcore.config.quality import DuplicatesConfig
from mmcore.modalities import looks
from mmcore.quality.clusters import find_clusters

PLANTED = 0.05
KINDS = ["image", "text", "flat", "crowd"]


def image_signatures(rows: int, random: np.random.Generator) -> tuple[np.ndarray, int]:
    """Random hashes and frequencies; the last ones copies of the first.

    Their hashes differ in 3 bits less than allowed (.05 of 64), their frequencies by so much that the likeness is .99.
    """
    found = random.integers(0, 256, (rows, looks.BYTES), dtype=np.uint8)
    found[:, -1] = 224
    copies = int(rows * PLANTED)
    found[-copies:] = found[:copies]
    for _ in range(DuplicatesConfig().image_bits - 3):
        bits = random.integers(0, 64, copies)
        found[np.arange(rows - copies, rows), bits // 8] ^= (1 << (bits % 8)).astype(np.uint8)
    steps = found[-copies:, looks.HASH_BYTES : -1].view(np.int8)
    noise = random.normal(0, steps.std() * np.tan(np.arccos(0.99)), steps.shape)
    steps[:] = np.clip(np.rint(steps + noise), -127, 127)
    return found, copies


def text_signatures(rows: int, random: np.random.Generator) -> tuple[np.ndarray, int]:
    """Random places; copies agree in each place with the probability that a Jaccard index of .9 to 1 gives."""
    found = random.integers(0, 256, (rows, 256), dtype=np.uint8)
    copies = int(rows * PLANTED)
    found[-copies:] = found[:copies]
    jaccard = random.uniform(DuplicatesConfig().text_jaccard + 0.05, 1, (copies, 1)).astype(np.float32)
    changed = random.random((copies, 256), np.float32) > jaccard
    found[-copies:][changed] = random.integers(0, 256, changed.sum(), dtype=np.uint8)
    return found, copies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kind", choices=KINDS, nargs="*", default=KINDS)
    arguments = parser.parse_args()
    for kind in arguments.kind:
        random = np.random.default_rng(0)
        make = text_signatures if kind == "text" else image_signatures
        found, copies = make(arguments.rows, random)
        if kind == "flat":  # all pictures the same
            found[:], copies = found[0], 0
        if kind == "crowd":  # all within a few bits of one picture
            found[:], copies = found[0], 0
            for _ in range(4):
                bits = random.integers(0, 64, len(found))
                found[np.arange(len(found)), bits // 8] ^= (1 << (bits % 8)).astype(np.uint8)
        flat = pa.py_buffer(found)
        column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(found.shape[1]), len(found), [None, flat])
        column = column.cast(pa.binary())
        del found, flat
        start, cpu = time.perf_counter(), time.process_time()
        cluster = find_clusters("text" if kind == "text" else "image", [], column, DuplicatesConfig()).cluster
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        said = f"{kind:<6} {arguments.rows:,} rows  {seconds:6.1f} s  ({cpu:.1f} s CPU)  peak {gib:.2f} GiB"
        if copies:
            met = (cluster[:copies] == cluster[-copies:]) & (cluster[:copies] >= 0)
            rows = int((cluster >= 0).sum())
            # A cluster of k rows holds k - 1 joins; those beyond the planted ones are false.
            joins = rows - int(cluster.max() + 1)
            said += f"  recall {met.mean():.4f}  precision {met.sum() / joins:.4f}"
        else:
            said += f"  clusters {int(cluster.max() + 1):,}"
        print(said, flush=True)


if __name__ == "__main__":
    main()
