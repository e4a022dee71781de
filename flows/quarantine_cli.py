"""`mmcore quarantine`: what was set aside and why, its bytes, and another attempt. Starts neither torch nor Dask."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mmcore.shards.exclusions import Exclusion
    from mmcore.shards.set_aside import SetAside
    from mmcore.storage import Store

quarantine_app = typer.Typer(
    no_args_is_help=True,
    help="Look at what was set aside and why, get its bytes, have it tried again. WHERE is a run's YAML, or an output "
    "folder or URL; the data set is that of the latest run (of the YAML's name), or the one that --dataset names.",
)

SHOWN = 20
"""Lines that `ls` prints unless told otherwise."""

Where = Annotated[str, typer.Argument(metavar="WHERE", help="A run's YAML, or an output root.", show_default=False)]
DatasetName = Annotated[
    str | None, typer.Option("--dataset", metavar="DIGEST", help="Another data set, by the beginning of its digest.")
]
Code = Annotated[str | None, typer.Option("--code", help="Only this reason code.")]


@quarantine_app.command("ls")
def list_quarantine(
    where: Where,
    *,
    dataset: DatasetName = None,
    code: Code = None,
    modality: Annotated[str | None, typer.Option("--modality", help="Only this modality; '' for whole rows.")] = None,
    every: Annotated[bool, typer.Option("--all", help=f"Every line, not only the first {SHOWN}.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Every line, as JSON.")] = False,
) -> None:
    """Count what was set aside by reason, and list it: sample, modality, reason, source."""
    from flows.quarantine_show import show_lines, show_reasons
    from tasks.terminal import line_console

    _, found, finished = _found(where, dataset)
    wanted = [
        line
        for line in found
        if (code is None or line.reject.code == code) and (modality is None or line.reject.modality == modality)
    ]
    if as_json:
        typer.echo(json.dumps([line.as_json() for line in wanted], indent=1))
        return
    console = line_console()
    if not finished:
        console.print("There is no finished data set here: this is what the finished shards set aside.")
    if not wanted:
        console.print("Nothing was set aside." if not found else "Nothing of this kind was set aside.")
        return
    show_reasons(console, wanted)
    show_lines(console, wanted if every else wanted[:SHOWN])
    if not every and len(wanted) > SHOWN:
        console.print(f"… {len(wanted) - SHOWN:,} more: --all shows them")


@quarantine_app.command("show")
def show(
    where: Where,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The sample's key.", show_default=False)],
    *,
    dataset: DatasetName = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Write the bytes that are kept there.")] = None,
) -> None:
    """Say all that is known of one sample that was set aside, wholly or in part."""
    from flows.quarantine_show import show_details
    from mmcore.errors import ConfigError, Problem
    from mmcore.shards.export import safe_name, writing
    from mmcore.shards.quarantine import ending_of
    from tasks.terminal import line_console

    store, found, _ = _found(where, dataset)
    lines = [line for line in found if line.reject.key == key]
    if not lines:
        near = sorted({line.reject.key for line in found if key in line.reject.key})[:5]
        fix = f"There are: {', '.join(near)}." if near else "mmcore quarantine ls WHERE lists what was."
        raise ConfigError(Problem("key", f"nothing of {key!r} was set aside.", fix))
    show_details(line_console(), lines)
    if to is None:
        return
    with writing(to):
        to.mkdir(parents=True, exist_ok=True)
    for line in lines:
        if kept := line.bytes(store):
            name, data = kept
            file = to / f"{safe_name(key)}.{line.reject.modality}.{ending_of(name)}"
            with writing(to):
                file.write_bytes(data)
            typer.echo(f"Written: {file}")
        elif line.reject.modality:
            typer.echo(f"The bytes of {line.reject.modality} are not kept: {line.reject.source}")


@quarantine_app.command("retry")
def retry(
    where: Where,
    *,
    dataset: DatasetName = None,
    code: Code = None,
    key: Annotated[str | None, typer.Option("--key", help="Only this sample.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it; without it, say only what would be done.")] = False,
) -> None:
    """Have the next run try again what circumstances set aside: time limits, codecs that died, missing libraries."""
    from flows.quarantine_show import show_exclusions, show_no_retry
    from mmcore.shards.exclusions import read_exclusions
    from tasks.terminal import line_console

    console = line_console()
    store, found, _ = _found(where, dataset)
    every = [one for same in read_exclusions(store).values() for one in same]
    wanted = [one for one in every if code in (None, one.code) and key in (None, one.key)]
    if wanted:
        show_exclusions(console, wanted)
        console.print(_tried_again(store, wanted, yes=yes))
    else:
        console.print("There is nothing here that trying again could change.")
    others = [line for line in found if code in (None, line.reject.code) and key in (None, line.reject.key)]
    show_no_retry(console, others)


def _tried_again(store: Store, exclusions: Sequence[Exclusion], *, yes: bool) -> str:
    """What was, or would be, done."""
    what = f"{len(exclusions):,} {'entry' if len(exclusions) == 1 else 'entries'} below {store.url('exclusions')}"
    if not yes:
        return f"Nothing was changed. With --yes, {what} will be removed, and the next run tries these again."
    for exclusion in exclusions:
        store.remove(exclusion.path)
    return f"Removed {what}. The next run makes the shards of these samples again: mmcore plan FILE shows them."


def _found(where: str, dataset: str | None) -> tuple[Store, list[SetAside], bool]:
    """The store, what was set aside, and whether that is of a finished data set rather than of shards so far."""
    from mmcore.config import load
    from mmcore.errors import ConfigError
    from mmcore.shards.opening import find_dataset
    from mmcore.shards.read import read_dataset
    from mmcore.shards.set_aside import every_receipt, set_aside, set_aside_by_shards
    from mmcore.storage import Store

    name = None
    if where.endswith((".yaml", ".yml")):
        config = load(Path(where))
        where, name = str(config.output), config.name
    store = Store(where)
    store.check_layout()
    try:
        digest = find_dataset(store, dataset, name=name)
    except ConfigError:
        receipts = [] if dataset else every_receipt(store)
        # A run that stopped at data.max_rejected has none, and its rejects are what one wants to see.
        if not receipts:
            raise
        return store, set_aside_by_shards(store, receipts), False
    return store, set_aside(store, read_dataset(store, digest)), True
