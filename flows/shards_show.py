"""Shards and samples on a terminal: tables of facts, pictures in half blocks, sound as a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.style import Style
from rich.table import Table
from rich.text import Text

from mmcore.records import Dataset, ShardEntry, count_by
from mmcore.shards.facts import Found
from mmcore.shards.verify import Finding

SHOWN_SHARDS = 20
SHOWN_DAMAGES = 10
PICTURE_COLUMNS = 64
TEXT_CHARACTERS = 2000
BARS = " ▁▂▃▄▅▆▇█"


def size_words(size_bytes: float) -> str:
    """Bytes as a person says them."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def show_shards(console: Console, dataset: Dataset, shards: Sequence[ShardEntry], *, every: bool) -> None:
    """A line per shard: split, samples, bytes, how many samples have each modality; the sum at the end."""
    modalities = list(dataset.modalities)
    table = _table(("shard", "left"), ("split", "left"), ("samples", "right"), ("size", "right"))
    for name in modalities:
        table.add_column(escape(name), justify="right", no_wrap=True)
    for shard in shards if every else shards[:SHOWN_SHARDS]:
        name = shard.tar.path.rpartition("/")[2].removesuffix(".tar")[:10] if shard.tar else "foreseen"
        table.add_row(name, shard.split, f"{shard.samples:,}", _size(shard), *_present(shard.present, modalities))
    if not every and len(shards) > SHOWN_SHARDS:
        table.add_row(f"… {len(shards) - SHOWN_SHARDS:,} more", end_section=True)
    total = {name: sum(shard.present.get(name, 0) for shard in shards) for name in modalities}
    samples = sum(shard.samples for shard in shards)
    size = size_words(sum(shard.tar.size_bytes for shard in shards if shard.tar))
    table.add_row(f"{len(shards):,} in all", "", f"{samples:,}", size, *_present(total, modalities), style="bold")
    console.print(table)
    if dataset.removed:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in count_by(dataset.removed.values()).items())
        console.print(f"{len(dataset.removed):,} of the data set's samples are removed, and not read: {reasons}")


def show_facts(console: Console, facts: Mapping[str, Mapping[str, str]]) -> None:
    """A line per modality and fact."""
    table = _table(("", "left"), ("fact", "left"), ("least / median / most, or how often", "left"))
    for name, found in sorted(facts.items()):
        for number, (fact, value) in enumerate(sorted(found.items())):
            table.add_row("" if number else f"[bold]{escape(name)}[/]", escape(fact), escape(value))
    console.print(table)


def show_sample(console: Console, found: Found, fields: Iterable[str], sample: Mapping[str, Any]) -> None:
    """What the index knows of a sample, then what it looks and sounds like; `sample` holds decoded values."""
    values, shard = found.values, found.shard
    where = shard.tar.path if shard.tar else ""
    console.print(f"[bold]{escape(values['key'])}[/]")
    console.print(f"{shard.split} · label {escape(str(values['label']))} · sample {found.row} of {escape(where)}")
    modalities = tuple(fields)
    for column, value in values.items():
        if ("." not in column and column not in {"key", "label"}) or column.startswith("meta."):
            console.print(f"{escape(column)}: {escape(printable(str(value)))}")
    for name in modalities:
        if not values[f"{name}.present"]:
            console.print(f"\n[bold]{escape(name)}[/] missing")
            continue
        console.print(f"\n[bold]{escape(name)}[/] {_of_member(values, name)}", soft_wrap=False)
        render(console, sample[name])


def render(console: Console, value: Any) -> None:
    """A picture (h, w, c) in half blocks, of frames the first, sound (n,) or (n, c) as a line, text as it is."""
    if isinstance(value, tuple):
        for part in value[:1]:
            render(console, part)
        if len(value) > 1:
            console.print(f"[dim]and {len(value) - 1} more[/]")
    elif isinstance(value, str):
        more = f" … and {len(value) - TEXT_CHARACTERS:,} more characters" if len(value) > TEXT_CHARACTERS else ""
        console.print(Text(printable(value[:TEXT_CHARACTERS]) + more))
    elif isinstance(value, np.ndarray) and value.ndim == 4:
        console.print(f"[dim]the first of {len(value)} frames[/]")
        render(console, value[0])
    elif isinstance(value, np.ndarray) and value.ndim == 3:
        if console.color_system is None:
            console.print("[dim]pictures are shown in a terminal with colours; --to DIR writes the file[/]")
        else:
            console.print(picture(value, min(PICTURE_COLUMNS, console.width - 2)))
    elif isinstance(value, np.ndarray):
        console.print(wave(value, min(76, console.width - 4)))


def picture(pixels: NDArray[np.uint8], columns: int) -> Text:
    """Two pixels a character: the upper half block in the colour of the one, on the colour of the other."""
    from PIL import Image

    rgb = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]
    height, width = rgb.shape[:2]
    columns = max(1, min(columns, width))
    rows = max(2, 2 * round(height / width * columns / 2))
    small = np.asarray(Image.fromarray(rgb).resize((columns, rows), Image.Resampling.BOX))
    text = Text()
    for upper, lower in zip(small[::2], small[1::2], strict=True):
        for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
            text.append("▀", Style(color=f"rgb({_three(above)})", bgcolor=f"rgb({_three(below)})"))
        text.append("\n")
    text.rstrip()
    return text


def wave(samples: NDArray[Any], columns: int) -> str:
    """The loudest sample of each stretch of a sound, as a line of bars."""
    loud = np.abs(samples.astype(np.float64)).reshape(len(samples), -1).max(axis=1)
    if not len(loud):
        return ""
    peaks = [float(part.max()) for part in np.array_split(loud, min(columns, len(loud)))]
    top = max(peaks) or 1.0
    return "".join(BARS[round(peak / top * (len(BARS) - 1))] for peak in peaks)


def show_finding(console: Console, finding: Finding) -> None:
    """A damaged shard, with what is wrong of which sample."""
    tar = finding.shard.tar
    console.print(f"[bold red]damaged[/] {escape(tar.path if tar else finding.shard.recipe)} ({finding.shard.split})")
    for damage in finding.damages[:SHOWN_DAMAGES]:
        whose = f"{damage.modality} of {damage.key!r}: " if damage.key else ""
        console.print(f"  {escape(whose)}{escape(damage.what)}")
    if len(finding.damages) > SHOWN_DAMAGES:
        console.print(f"  … and {len(finding.damages) - SHOWN_DAMAGES:,} more members")


def printable(text: str) -> str:
    """Text without what a terminal would obey."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in text)


def _table(*columns: tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in columns:
        table.add_column(name, justify=justify, no_wrap=justify == "right")  # type: ignore[arg-type]
    return table


def _size(shard: ShardEntry) -> str:
    return size_words(shard.tar.size_bytes) if shard.tar else ""


def _present(present: Mapping[str, int], modalities: Sequence[str]) -> list[str]:
    return [f"{present.get(name, 0):,}" for name in modalities]


def _three(colour: Sequence[int]) -> str:
    return ",".join(str(part) for part in colour)


def _of_member(values: Mapping[str, Any], name: str) -> str:
    """Size, facts and origin of a member."""
    sizes = values[f"{name}.size_bytes"]
    size = sum(sizes) if isinstance(sizes, list) else sizes
    parts = [f"{len(sizes)} files, {size_words(size)}" if isinstance(sizes, list) else size_words(size)]
    for fact, value in json.loads(values[f"{name}.facts"] or "{}").items():
        shown = (
            ", ".join(map(str, value))
            if isinstance(value, list)
            else f"{value:,.6g}"
            if isinstance(value, float)
            else value
        )
        parts.append(escape(printable(f"{fact} {shown}")))
    if source := values.get(f"{name}.source"):
        parts.append(f"from {escape(printable(source))}")
    return " · ".join(parts)
