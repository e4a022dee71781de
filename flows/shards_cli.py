"""`mmcore shards`: list, look at, check and export what a run prepared. Starts neither torch, Dask nor Prefect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from mmcore.records import Dataset
    from mmcore.storage import Store

shards_app = typer.Typer(
    no_args_is_help=True,
    help="Look at, check and export finished shards. WHERE is a run's YAML, or an output folder or URL; the data set "
    "is that of the latest run (of the YAML's name), or the one that --dataset names.",
)

Where = Annotated[str, typer.Argument(metavar="WHERE", help="A run's YAML, or an output root.", show_default=False)]
DatasetName = Annotated[
    str | None, typer.Option("--dataset", metavar="DIGEST", help="Another data set, by the beginning of its digest.")
]
Split = Annotated[str | None, typer.Option("--split", help="Only train, val or test.")]


@shards_app.command("ls")
def list_shards(
    where: Where,
    *,
    dataset: DatasetName = None,
    split: Split = None,
    every: Annotated[bool, typer.Option("--all", help="Every shard, not only the first 20.")] = False,
) -> None:
    """List the shards with their samples and sizes, and sum up the facts of each modality."""
    from flows.shards_show import show_facts, show_shards
    from mmcore.shards.facts import summaries

    store, found = _opened(where, dataset)
    shards = found.of(*_splits(split))
    show_shards(_console(), found, shards, every=every)
    show_facts(_console(), summaries(store, shards))


@shards_app.command("show")
def show(
    where: Where,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The sample's key.", show_default=False)],
    *,
    dataset: DatasetName = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Write the sample's files there too.")] = None,
) -> None:
    """Show one sample: what is known of it, its text, its picture, the outline of its sound."""
    from flows.shards_show import show_sample
    from mmcore.shards.catalogue import fields_of
    from mmcore.shards.export import member_files, safe_name, writing
    from mmcore.shards.facts import find_sample
    from mmcore.shards.opening import open_entries
    from mmcore.shards.read import read_index

    store, named = _opened(where, dataset)
    found = find_sample(store, named, key)
    shards = open_entries(store, named, [found.shard], removed_too=True)
    fields = fields_of(read_index(store, found.shard))
    (sample,) = shards.read([found.row])
    if to is not None:
        with writing(to):
            to.mkdir(parents=True, exist_ok=True)
            for _, ending, data in member_files(sample, _extensions(named)):
                (to / f"{safe_name(key)}.{ending}").write_bytes(data)
    shards.decode([sample], shards.decoders)
    show_sample(_console(), found, fields, sample)
    if reason := named.removed.get(key):
        typer.echo(f"Removed from this data set: {reason}.")
    if to is not None:
        typer.echo(f"Its files are in {to}.")


@shards_app.command("verify")
def verify(
    where: Where,
    *,
    dataset: DatasetName = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove damaged shards, so that the next run makes them again.")
    ] = False,
) -> None:
    """Read every byte again and compare it with what was written; exit code 1 where something is damaged."""
    from flows.shards_show import show_finding, size_words
    from mmcore.shards.verify import remove_damaged, verify_shards
    from tasks.terminal import Terminal, TerminalProgress

    store, found = _opened(where, dataset)
    console, damaged = _console(), 0
    with TerminalProgress("verify", "shards", Terminal()) as progress:
        progress.start(len(found.shards))
        for finding in verify_shards(store, found):
            progress.advance(1, samples=finding.shard.samples)
            if finding.damages:
                damaged += 1
                show_finding(console, finding)
                if repair:
                    remove_damaged(store, finding)
    samples = sum(shard.samples for shard in found.shards)
    size = size_words(sum(shard.tar.size_bytes for shard in found.shards if shard.tar))
    if not damaged:
        console.print(f"{len(found.shards):,} shards, {samples:,} samples, {size}: all as they were written")
        return
    next_ = (
        "They were removed: the next run makes them again." if repair else "Remove them with --repair, then run again."
    )
    console.print(f"{damaged:,} of {len(found.shards):,} shards are damaged. {next_}")
    raise typer.Exit(1)


@shards_app.command("export")
def export_samples(
    where: Where,
    target: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.", show_default=False)],
    *,
    to: Annotated[str, typer.Option("--to", help="parquet, folder or tars.")] = "tars",
    dataset: DatasetName = None,
    split: Split = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Samples per file.")] = 1000,
) -> None:
    """Write the samples as Parquet, as a folder of files, or as tars numbered train-000000.tar, …"""
    from mmcore.errors import ConfigError, Problem
    from mmcore.shards.export import export
    from mmcore.shards.opening import open_shards
    from tasks.terminal import Terminal, TerminalProgress

    if to not in {"parquet", "folder", "tars"}:
        raise ConfigError(Problem("--to", f"no format {to!r}.", "There are: parquet, folder, tars."))
    store, found = _opened(where, dataset)
    columns = _columns(store, found)
    opened = {name: open_shards(store, found, splits=[name], columns=columns) for name in _splits(split)}
    opened = {name: shards for name, shards in opened.items() if len(shards)}
    with TerminalProgress("export", to, Terminal()) as progress:
        progress.start(sum(map(len, opened.values())), unit="samples")
        export(
            opened,
            _extensions(found),
            target,
            to,  # type: ignore[arg-type]
            samples_per_file=samples,
            advance=lambda done: progress.advance(done, samples=done),
        )
    counts = ", ".join(f"{name} {len(shards):,}" for name, shards in opened.items())
    typer.echo(f"{counts} samples in {target}")


def _opened(where: str, dataset: str | None) -> tuple[Store, Dataset]:
    """The store and data set that the arguments name. Raises ConfigError where there is none."""
    from mmcore.config import load
    from mmcore.shards.opening import find_dataset
    from mmcore.shards.read import read_dataset
    from mmcore.storage import Store

    name = None
    if where.endswith((".yaml", ".yml")):
        config = load(Path(where))
        where, name = str(config.output), config.name
    store = Store(where)
    store.check_layout()
    return store, read_dataset(store, find_dataset(store, dataset, name=name))


def _console() -> Console:
    from tasks.terminal import line_console

    return line_console()


def _splits(split: str | None) -> tuple[str, ...]:
    from mmcore.errors import ConfigError, Problem
    from mmcore.records import SPLITS

    if split is not None and split not in SPLITS:
        raise ConfigError(Problem("--split", f"no split {split!r}.", f"There are: {', '.join(SPLITS)}."))
    return SPLITS if split is None else (split,)


def _extensions(dataset: Dataset) -> dict[str, str]:
    from mmcore.shards.recipe import open_modality

    return {name: open_modality(settings).extension for name, settings in dataset.modalities.items()}


def _columns(store: Store, dataset: Dataset) -> tuple[str, ...]:
    """The index's columns that are neither a member's nor always there."""
    from mmcore.shards.catalogue import fields_of
    from mmcore.shards.read import read_index

    if not dataset.shards:
        return ()
    index = read_index(store, dataset.shards[0])
    ours = tuple(f"{name}." for name in fields_of(index))
    return tuple(name for name in index.column_names if name not in {"key", "label"} and not name.startswith(ours))
