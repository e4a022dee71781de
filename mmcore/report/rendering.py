"""How the pages are rendered, and numbers as people read them."""

from __future__ import annotations

import math
from datetime import datetime

import jinja2

from mmcore.evaluation.verdict import signed
from mmcore.report import charts


def environment() -> jinja2.Environment:
    """How every page is rendered: all that is shown is escaped."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("mmcore.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "score": score,
        "signed": signed,
        "percent": percent,
        "count": count,
        "duration": duration,
        "moment": moment,
        "axis": axis_label,
        "capitalized": capitalized,
        "p_value": p_value,
        "shorten": charts.shorten,
    }
    return found


# Numbers as people read them


def score(value: float | None) -> str:
    """A share or a loss with three decimals."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def p_value(value: float) -> str:
    """As `0.032`, and no smaller than the draws that it was found with can tell."""
    return "< .001" if value < 0.001 else f"{value:.3f}"


def capitalized(text: str) -> str:
    """With its first letter large, the others as they are; `mAP` stays."""
    return text if text[1:2].isupper() else text[:1].upper() + text[1:]


def percent(part: float, whole: float) -> str:
    return "–" if not whole else f"{100 * part / whole:.1f} %"


def count(value: float) -> str:
    return f"{round(value):,}"


def duration(seconds: float) -> str:
    """As `0.4 s`, `31 s`, `4 min 10 s`, `2 h 05 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def moment(text: str | None) -> str:
    """An ISO time as `23 Nov 2026, 21:34 UTC`; what is no such time stays as it is."""
    if not text:
        return "–"
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{when.day} {when:%b %Y, %H:%M} {when.tzname() or ''}".strip()


def axis_label(value: float) -> str:
    return f"{value:g}"
