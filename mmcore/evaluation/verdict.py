"""What a leaderboard says, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmcore.config.metrics import METRIC_WORDS
from mmcore.records import Json

REFERENCES = frozenset({"majority", "missingness"})
"""Methods that look at no features: what every table has to be above."""

SURE = 0.05
"""Of Holm's corrected p values: below it a difference is more than chance explains."""

MOST_NAMED = 8
"""Models in one sentence; the others are counted."""

Row = Mapping[str, Any]


def verdict(board: Mapping[str, Any]) -> list[str]:
    """Sentences about a leaderboard (`leaderboard.leaderboard`), the first of which says it all; none without a method.

    The chosen model against the best single modality and against plain late fusion are planned before the test split is
    looked at: their intervals decide. The other comparisons are many, and Holm's corrected p values decide.
    """
    rows: Sequence[Row] = board["rows"]
    named = {row["model"]: row for row in rows}
    chosen, single = named.get(board["chosen"]), named.get(board["best_single"])
    if chosen is None:
        return []
    late = named.get(board["late"])
    against = {(one["model"], one["against"]): one for one in board["comparisons"] if one["family"] != "missing"}
    sentences = _opening(board, chosen, single, against)
    if late and late is not chosen and (one := against.get((late["model"], chosen["model"]))):
        sentences.append(_against_late(chosen, late, one))
    sentences += _with_missing([one for one in board["comparisons"] if one["family"] == "missing"])
    if single:
        sentences += _below(rows, chosen, single, against)
    sentences += _unused(rows)
    sentences += _told_by_missing(named, board["comparisons"])
    sentences += _below_floors(named, board["comparisons"])
    return [*sentences, *([board["group_note"]] if board["group_note"] else [])]


def _opening(board: Row, chosen: Row, single: Row | None, against: Mapping[tuple[str, str], Json]) -> list[str]:
    words, seeds = METRIC_WORDS[board["headline"]], board["seeds"]
    by = f"chosen by validation {METRIC_WORDS[board['metric']]}"
    mean = f", the mean of {seeds} seeds" if seeds > 1 else ""
    own = f"a test {words} of {chosen['score']:.3f} on {chosen['n']:,} rows{mean}"
    interval = f"95% interval {_end(chosen['low'])} to {_end(chosen['high'])}"
    if len(chosen["modalities"]) == 1:
        more = any(len(row["modalities"]) > 1 for row in board["rows"])
        nothing = "no fusion of several did better there" if more else "there is nothing to fuse"
        reads = f"It reads {chosen['modalities'][0]} only: {nothing}."
        return [f"{chosen['model']} reaches {own}.", f"It was {by}; {interval}. {reads}"]
    if single is None:
        return [f"{chosen['model']} reaches {own}.", f"It was {by}; {interval}."]
    one = against[chosen["model"], single["model"]]
    return [
        _against_single(chosen, single, one),
        f"The difference in {words} is {_gap(one)}.",
        f"{chosen['model']} was {by}; it has {own}, {interval}.",
    ]


def _against_single(chosen: Row, single: Row, one: Json) -> str:
    pair = f"{chosen['model']} {_end(chosen['score'])}, {single['modalities'][0]} alone {_end(single['score'])}"
    if one["difference"] == 0:
        return f"Fusion is level with the best single modality here: {pair}."
    sure = one["low"] > 0 or one["high"] < 0
    doubt = "" if sure else ", but chance may explain the gap"
    if one["difference"] < 0:
        return f"Fusion is below the best single modality here{doubt}: {pair}."
    return f"Fusion is above the best single modality{doubt}: {pair}."


def _against_late(chosen: Row, late: Row, one: Json) -> str:
    """`one` is late fusion less the chosen model; it is told the other way round."""
    turned = {"difference": -one["difference"], "low": -one["high"], "high": -one["low"]}
    word = "is above" if turned["low"] > 0 else "is below" if turned["high"] < 0 else "cannot be told from"
    return f"{chosen['model']} {word} plain late fusion of the same features ({_end(late['score'])}): {_gap(turned)}."


def _with_missing(against_late: Sequence[Json]) -> list[str]:
    if not against_late:
        return []
    gaps = [f"{signed(one['difference'])} at {one['share']:.0%}" for one in against_late]
    sure = [f"{one['share']:.0%}" for one in against_late if one["p_holm"] < SURE]
    chance = f"more than chance explains at {', '.join(sure)}" if sure else "no more than chance explains"
    return [f"With further modalities missing its difference to late fusion is {', '.join(gaps)}: {chance}."]


def _below(rows: Sequence[Row], chosen: Row, single: Row, against: Mapping[tuple[str, str], Json]) -> list[str]:
    """The fused models other than the chosen one that the best single modality beats: surely, or perhaps by chance."""
    name = f"{single['modalities'][0]} alone, {_end(single['score'])}"
    harm: list[str] = []
    may: list[str] = []
    for row in rows:
        one = against.get((row["model"], single["model"]))
        if row is not chosen and one is not None and one["difference"] < 0:
            (harm if one["p_holm"] < SURE else may).append(f"{row['model']} {_end(row['score'])}")
    said = []
    if harm:
        said.append(f"Fusion harms, by more than chance explains, in: {_listed(harm)} ({name}).")
    if may:
        said.append(f"Below the best single modality, perhaps by chance: {_listed(may)} ({name}).")
    return said


def _unused(rows: Sequence[Row]) -> list[str]:
    """Which fused models show no sign of using a modality."""
    by: dict[str, list[str]] = {}
    for row in rows:
        for name in row["unused"] if len(row["modalities"]) > 1 and _learns_from_features(row) else ():
            by.setdefault(name, []).append(row["model"])
    return [
        f"No sign that {name} is used, for shuffling it across rows costs nothing beyond chance: {_listed(models)}."
        for name, models in sorted(by.items())
    ]


def _learns_from_features(row: Row) -> bool:
    return row["method"] not in REFERENCES


def _told_by_missing(named: Mapping[str, Row], comparisons: Sequence[Json]) -> list[str]:
    return [
        "What is missing tells something of the labels: missingness alone reaches "
        f"{_end(named[one['model']]['score'])}, {one['against']} {_end(named[one['against']]['score'])}."
        for one in comparisons
        if one["family"] == "missingness" and one["difference"] > 0 and one["p_holm"] < SURE
    ]


def _below_floors(named: Mapping[str, Row], comparisons: Sequence[Json]) -> list[str]:
    """The encoders that are not worth their training: the classical one does as well or better."""
    return [
        f"The encoder of {named[one['model']]['modalities'][0]} is not above its floor, the classical one "
        f"({one['model']} {_end(named[one['model']]['score'])}, {one['against']} "
        f"{_end(named[one['against']]['score'])}): {_gap(one)}."
        for one in comparisons
        if one["family"] == "floor" and one["difference"] <= 0
    ]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _end(value: float) -> str:
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def _gap(one: Mapping[str, float]) -> str:
    return f"{signed(one['difference'])}, 95% interval {signed(one['low'])} to {signed(one['high'])}"


def signed(value: float) -> str:
    """A difference with three decimals and its sign (a true minus), none where it rounds to zero."""
    text = f"{value:+.3f}"
    return "0.000" if text in ("+0.000", "-0.000") else text.replace("-", "\N{MINUS SIGN}")
