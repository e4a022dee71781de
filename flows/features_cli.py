"""`mmcore features`: list, look at and export the vectors of a run. Starts neither torch, Dask nor Prefect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mmcore.features import Features
    from mmcore.records import Dataset, EncoderEntry
    from mmcore.storage import Store

features_app = typer.Typer(
    no_args_is_help=True,
    help="Look at and export the features of a finished run. WHERE is a run's YAML, or an output folder or URL; the "
    "features are those of the latest run (of the YAML's name) that has some, or of the one that --run names.",
)

Where = Annotated[str, typer.Argument(metavar="WHERE", help="A run's YAML, or an output root.", show_default=False)]
RunName = Annotated[str | None, typer.Option("--run", metavar="ID", help="Another run, by its id.")]
Modality = Annotated[str | None, typer.Option("--modality", metavar="NAME", help="Only this modality.")]
Split = Annotated[str | None, typer.Option("--split", help="Only train, val or test.")]


@features_app.command("ls")
def list_features(where: Where, *, run: RunName = None) -> None:
    """List the encoders of each modality with the vectors that they made."""
    from flows.features_show import describe, show_encoders

    store, dataset, encoders = _found(where, run)
    show_encoders([describe(store, dataset, entry) for entry in encoders])


@features_app.command("show")
def show(
    where: Where,
    key: Annotated[str | None, typer.Argument(metavar="[KEY]", help="A sample's key.", show_default=False)] = None,
    *,
    run: RunName = None,
    modality: Modality = None,
    split: Split = None,
) -> None:
    """Sum up the vectors of each modality; with KEY, show that sample's and which samples are most like it."""
    from flows.features_show import show_sample, show_summary

    opened = _opened(where, run, modality, split)
    if key is not None:
        _demand_key(opened[0], key)
    for features in opened:
        show_summary(features)
        if key is not None:
            show_sample(features, features.keys.index(key))


@features_app.command("export")
def export(
    where: Where,
    target: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.", show_default=False)],
    *,
    to: Annotated[str, typer.Option("--to", help="parquet or npy.")] = "parquet",
    run: RunName = None,
    modality: Modality = None,
    split: Split = None,
    float32: Annotated[bool, typer.Option("--float32", help="Write float16 vectors as float32.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files of the same names.")] = False,
) -> None:
    """Write a file per modality: Parquet (key, label, split, vector), or npy with a CSV of keys, labels and splits."""
    from mmcore.errors import ConfigError, Problem
    from mmcore.features.export import export_features
    from tasks.terminal import Terminal, TerminalProgress

    if to not in {"parquet", "npy"}:
        raise ConfigError(Problem("--to", f"no format {to!r}.", "There are: parquet, npy."))
    opened = _opened(where, run, modality, split)
    with TerminalProgress("export", to, Terminal()) as progress:
        progress.start(sum(map(len, opened)), unit="vectors")
        files = export_features(
            opened,
            target,
            to,  # type: ignore[arg-type]
            float32=float32,
            force=force,
            advance=lambda done: progress.advance(done, samples=done),
        )
    for features in opened:
        typer.echo(f"{features.modality}: {len(features):,} x {features.dim}")
    typer.echo("\n".join(map(str, files)))


def _found(where: str, run: str | None) -> tuple[Store, Dataset, tuple[EncoderEntry, ...]]:
    """The store, data set and encoders that the arguments name. Raises ConfigError where there are none."""
    from mmcore.config import load
    from mmcore.features.opening import find_encoders
    from mmcore.storage import Store

    name = None
    if where.endswith((".yaml", ".yml")):
        config = load(Path(where))
        where, name = str(config.output), config.name
    store = Store(where)
    store.check_layout()
    return store, *find_encoders(store, run, name=name)


def _opened(where: str, run: str | None, modality: str | None, split: str | None) -> list[Features]:
    from mmcore.features.opening import choose_encoder, open_encoder
    from mmcore.records import SPLITS

    store, dataset, encoders = _found(where, run)
    configured = [entry for entry in encoders if not entry.floor]
    chosen = configured if modality is None else [choose_encoder(encoders, modality)]
    found: list[Features] = []
    for entry in chosen:
        beside = found[0] if found else None
        splits = SPLITS if split is None else (split,)
        found.append(open_encoder(store, dataset, entry, splits=splits, beside=beside))
    return found


def _demand_key(features: Features, key: str) -> None:
    """Raises ConfigError where no sample has this key."""
    import difflib

    from mmcore.errors import ConfigError, Problem

    keys = features.keys
    if key not in keys:
        near = difflib.get_close_matches(key, keys[:100_000], 1)
        raise ConfigError(Problem("KEY", f"no sample {key!r} here.", f"Did you mean {near[0]!r}?" if near else ""))
