"""What was set aside, on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.shards_show import printable, size_words
from mmcore.modalities.base import CIRCUMSTANTIAL, REASONS
from mmcore.records import count_by
from mmcore.shards.exclusions import PASSING, Exclusion
from mmcore.shards.set_aside import SetAside


def show_reasons(console: Console, lines: Sequence[SetAside]) -> None:
    """A line per reason: how often, and what it means."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("reason", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("meaning")
    for code, count in count_by(line.reject.code for line in lines).items():
        table.add_row(code, f"{count:,}", REASONS.get(code, ""))
    console.print(table)
    console.print()


def show_lines(console: Console, lines: Sequence[SetAside]) -> None:
    """A line per reject: sample, modality, reason, what happened, source, and whether its bytes are kept."""
    for line in lines:
        reject = line.reject
        what = f"[bold]{_plain(reject.key)}[/] {reject.modality or 'row'}: {reject.code}, {_plain(reject.message)}"
        source = f" · {_plain(reject.source)}" if reject.source else ""
        console.print(f"{what}{source}{_kept(line)}")


def show_details(console: Console, lines: Sequence[SetAside]) -> None:
    """All that is known of one sample's rejects."""
    console.print(f"[bold]{_plain(lines[0].reject.key)}[/]")
    for line in lines:
        reject = line.reject
        console.print(f"\n{reject.modality or 'the whole row'}: [bold]{reject.code}[/]")
        console.print(f"  {REASONS.get(reject.code, '')}")
        console.print(f"  {_plain(reject.message)}")
        if reject.source:
            console.print(f"  from {_plain(reject.source)}{_kept(line)}")
        if line.cell and line.cell.sha256:
            console.print(f"  SHA-256 {line.cell.sha256}")
        if reject.code in CIRCUMSTANTIAL:
            console.print("  Trying again may help: mmcore quarantine retry")


def show_exclusions(console: Console, exclusions: Sequence[Exclusion]) -> None:
    """A line per cell that would be tried again."""
    for one in exclusions:
        console.print(f"[bold]{_plain(one.key)}[/] {one.modality}: {one.code}, {_plain(one.message)}")


def show_no_retry(console: Console, lines: Sequence[SetAside]) -> None:
    """What of these lines no attempt would change, and what to do about it."""
    passing = [line for line in lines if line.reject.code in PASSING]
    if passing:
        console.print(f"{_count(passing)} could not be read: every run tries that again by itself.")
    intrinsic = [line for line in lines if line.reject.source and line.reject.code not in CIRCUMSTANTIAL]
    if intrinsic:
        codes = ", ".join(f"{code} {count:,}" for code, count in count_by(i.reject.code for i in intrinsic).items())
        console.print(
            f"{_count(intrinsic)} follow from the input ({codes}): correct the file or the row, or a limit in the "
            "YAML, and the next run makes its shard again by itself."
        )


def _count(lines: Sequence[SetAside]) -> str:
    return f"{len(lines):,} {'reject' if len(lines) == 1 else 'rejects'}"


def _kept(line: SetAside) -> str:
    if line.size_bytes is None:
        return ""
    return f" · {size_words(line.size_bytes)}, {'kept' if line.kept else 'not kept'}"


def _plain(text: str) -> str:
    return escape(printable(text))
