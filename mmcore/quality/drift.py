"""Whether two sets of samples differ by more than chance, and by how much: between splits, and since the last run.

Numbers are compared by the two-sample Kolmogorov-Smirnov statistic, the largest distance between the two empirical
distribution functions:

    D = sup_x |F(x) - G(x)|,    by chance larger than 1.628 sqrt((n + m) / (n m)) in 1 of 100 cases

(Smirnov, "Table for estimating the goodness of fit", 1948; 1.628 is the 99% point of its limit). Shares (of labels,
of a missing modality, of words) by their total variation, the share of samples that would have to change:

    TV = 1/2 sum_i |p_i - q_i|,    by chance larger where Pearson's chi-squared of the two rows of counts exceeds its
    99% point, here by Wilson and Hilferty's formula ("The distribution of chi-square", 1931)

What chance explains, and what is too small to matter, is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from mmcore.records import Json

LEAST_D = 0.1
LEAST_TV = 0.05
_KOLMOGOROV_99 = 1.628
_NORMAL_99 = 2.326


def ks_statistic(one: Sequence[float], other: Sequence[float]) -> float:
    """The two-sample Kolmogorov-Smirnov statistic, 0 to 1. Raises ValueError for no values."""
    if not len(one) or not len(other):
        raise ValueError("the statistic needs values on both sides")
    a, b = np.sort(np.asarray(one, np.float64)), np.sort(np.asarray(other, np.float64))
    every = np.concatenate([a, b])
    shares = [np.searchsorted(values, every, side="right") / len(values) for values in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


def total_variation(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Half the summed differences of the shares in two counts, 0 to 1. Raises ValueError for no counts."""
    n, m = sum(one.values()), sum(other.values())
    if not n or not m:
        raise ValueError("shares need counts on both sides")
    return sum(abs(one.get(name, 0) / n - other.get(name, 0) / m) for name in {*one, *other}) / 2


def by_chance(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether two counts may well be of one distribution: Pearson's chi-squared is below its 99% point."""
    n, m = sum(one.values()), sum(other.values())
    names = [name for name in {*one, *other} if one.get(name, 0) + other.get(name, 0)]
    free = len(names) - 1
    if free < 1:
        return True
    chi2 = 0.0
    for name in names:
        both = one.get(name, 0) + other.get(name, 0)
        for counts, size in ((one, n), (other, m)):
            expected = both * size / (n + m)
            chi2 += (counts.get(name, 0) - expected) ** 2 / expected
    return chi2 <= free * (1 - 2 / (9 * free) + _NORMAL_99 * math.sqrt(2 / (9 * free))) ** 3


def drift_between_splits(profiled: Json) -> list[Json]:
    """Where splits differ, the largest effects first: see `drift`."""
    found = [
        difference
        for one, other in combinations(profiled, 2)
        for difference in drift(profiled[one], profiled[other], one, other)
    ]
    return sorted(found, key=lambda difference: -difference["effect"])


def drift_since(before: Json, now: Json) -> list[Json]:
    """Where a split differs from the same one of an earlier data set, the largest effects first: see `drift`."""
    found = [
        difference
        for split in now
        if split in before
        for difference in drift(before[split], now[split], f"{split} before", f"{split} now")
    ]
    return sorted(found, key=lambda difference: -difference["effect"])


def drift(one: Json, other: Json, name: str, other_name: str) -> list[Json]:
    """How two splits' profiles differ: `what`, `between` whom, `measure` (D or TV), `effect` and, in words, `said`."""
    between = [name, other_name]
    return [
        {"what": what, "between": between, "measure": measure, "effect": round(effect, 3), "said": said}
        for what, measure, effect, said in _differences(one, other)
    ]


def _differences(one: Json, other: Json) -> Iterator[tuple[str, str, float, str]]:
    yield from _shares("label", one["labels"], other["labels"])
    for modality, here in one["modalities"].items():
        there = other["modalities"].get(modality)
        if there is None:
            continue
        counts = [
            {"present": part["present"], "missing": split["samples"] - part["present"]}
            for part, split in ((here, one), (there, other))
        ]
        yield from _shares(f"{modality} missing", *counts)
        for fact, numbers in here["numbers"].items():
            if fact in there["numbers"]:
                yield from _numbers(f"{modality}.{fact}", numbers, there["numbers"][fact])
        for fact in {*here["words"], *there["words"]}:
            # Of a rare normalisation the samples without it count too.
            both = [
                {**part["words"].get(fact, {}), "": part["present"] - sum(part["words"].get(fact, {}).values())}
                for part in (here, there)
            ]
            if all(count >= 0 for counts in both for count in counts.values()):
                yield from _shares(f"{modality}.{fact}", *both)


def _shares(what: str, one: Mapping[str, int], other: Mapping[str, int]) -> Iterator[tuple[str, str, float, str]]:
    if not sum(one.values()) or not sum(other.values()):
        return
    effect = total_variation(one, other)
    if effect < LEAST_TV or by_chance(one, other):
        return
    n, m = sum(one.values()), sum(other.values())
    most = max(sorted({*one, *other}), key=lambda name: abs(one.get(name, 0) / n - other.get(name, 0) / m))
    said = f"{most or 'none'}: {one.get(most, 0) / n:.1%} against {other.get(most, 0) / m:.1%}"
    yield what, "TV", effect, said


def _numbers(what: str, one: Json, other: Json) -> Iterator[tuple[str, str, float, str]]:
    n, m = one["count"], other["count"]
    effect = ks_statistic(one["values"], other["values"])
    if effect < LEAST_D or effect <= _KOLMOGOROV_99 * math.sqrt((n + m) / (n * m)):
        return
    medians = (float(np.median(part["values"])) for part in (one, other))
    yield what, "D", effect, "median {:,.4g} against {:,.4g}".format(*medians)
