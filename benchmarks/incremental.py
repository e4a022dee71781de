"""How many shards one change of a manifest makes anew.

    python benchmarks/incremental.py [--rows 100000] [--trials 300] [--samples 256]

Rows are cut as a run cuts them (`mmcore.shards.cuts`), then a row at random is edited, inserted or removed, and the
shards that are not those of before are counted: what a run would make anew. Then a last partition of 1% is added.
Aims: at most 2 new shards in 95% of the trials, never more than 4; at most 3% of the rows in new shards after the 1%.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter

from mmcore.shards.cuts import cut

Row = tuple[str, int]
"""Key and version: an edited row has another version."""


def shards_of(rows: list[Row], mean: int) -> set[tuple[Row, ...]]:
    return {tuple(rows[start:stop]) for start, stop in cut([key for key, _ in rows], mean)}


def changed(rows: list[Row], kind: str, dice: random.Random) -> list[Row]:
    at = dice.randrange(len(rows))
    if kind == "edit":
        return [*rows[:at], (rows[at][0], rows[at][1] + 1), *rows[at + 1 :]]
    if kind == "insertion":
        return [*rows[:at], (f"new{dice.getrandbits(64):x}", 0), *rows[at:]]
    return [*rows[:at], *rows[at + 1 :]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--samples", type=int, default=256)
    given = parser.parse_args()
    dice = random.Random(0)
    rows = [(f"{dice.getrandbits(64):016x}", 0) for _ in range(given.rows)]
    before = shards_of(rows, given.samples)
    print(f"{given.rows:,} rows in {len(before):,} shards")
    counts: dict[str, Counter[int]] = {}
    for trial in range(given.trials):
        kind = ("edit", "insertion", "removal")[trial % 3]
        new = len(shards_of(changed(rows, kind, dice), given.samples) - before)
        counts.setdefault(kind, Counter())[new] += 1
    for kind, found in counts.items():
        print(f"{kind:10} new shards: " + ", ".join(f"{new} in {times}" for new, times in sorted(found.items())))
    all_counts = sum(counts.values(), Counter())
    few = sum(times for new, times in all_counts.items() if new <= 2) / given.trials
    print(f"at most 2 in {few:.1%} of {given.trials} trials (aim 95%), at most {max(all_counts)} ever (aim 4)")
    more = [*rows, *((f"more{dice.getrandbits(64):x}", 0) for _ in range(given.rows // 100))]
    rewritten = sum(len(shard) for shard in shards_of(more, given.samples) - before)
    print(f"1% added at the end: {rewritten / len(more):.2%} of the rows in new shards (aim 3%)")


if __name__ == "__main__":
    main()
