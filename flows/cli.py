"""The `mmcore` command: thin, for the flows do the work."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from flows.features_cli import features_app
from flows.quarantine_cli import quarantine_app
from flows.shards_cli import shards_app
from flows.start import ConfigFile, Overrides, quiet_prefect, seconds_of, show_run, with_exit_codes
from mmcore import __version__

EXIT_CODES = """
Exit codes: 0 done; 1 the run failed; 2 the configuration or its input cannot be used;
3 too many samples were set aside; 130 or 143 interrupted (the same command goes on).
"""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Raw images, sound and text to shards, features, fusion models and a report; resumable at any point.",
    epilog=EXIT_CODES,
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        typer.echo(f"mmcore {__version__}")
        raise typer.Exit


@app.command()
def run(
    file: ConfigFile,
    overrides: Overrides = None,
    *,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Run the whole pipeline: whatever is not done yet, and nothing twice."""
    from mmcore.config import load

    config = load(file, overrides or ())
    quiet_prefect()
    from flows.pipeline import pipeline

    show_run(pipeline, config, quiet=quiet)


@app.command()
def prepare(
    file: ConfigFile,
    overrides: Overrides = None,
    *,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Make the shards alone: decode, check, normalise, pack. Needs no features and no labels."""
    from mmcore.config import load

    config = load(file, overrides or ()).for_preparing()
    quiet_prefect()
    from flows.prepare import prepare as prepare_flow

    show_run(prepare_flow, config, quiet=quiet)


@app.command()
def plan(
    file: ConfigFile,
    overrides: Overrides = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Every output with its reason, as JSON.")] = False,
) -> None:
    """Say what a run would compute, what it would reuse and why; compute nothing."""
    import json

    from flows.show import show_plan, working
    from mmcore.config import load
    from mmcore.planning import make_plan
    from mmcore.storage import Store

    config = load(file, overrides or ())
    with working():
        made = make_plan(config, Store(config.output))
    if as_json:
        typer.echo(json.dumps(made.as_json(), indent=1))
    else:
        show_plan(made)


@app.command()
def check(file: ConfigFile, overrides: Overrides = None) -> None:
    """Check the configuration and the inputs it names; every problem is reported at once."""
    from flows.show import working
    from mmcore.config import load
    from mmcore.planning import check_inputs

    config = load(file, overrides or ())
    with working():
        found = check_inputs(config)
    typer.echo(found)


@app.command()
def status(file: ConfigFile, overrides: Overrides = None) -> None:
    """Show how far the work is, and the latest runs."""
    from flows.show import show_status
    from mmcore.config import load

    show_status(load(file, overrides or ()))


@app.command()
def report(
    file: ConfigFile,
    overrides: Overrides = None,
    *,
    run_id: Annotated[str | None, typer.Option("--run", help="Which run; the latest finished one by default.")] = None,
) -> None:
    """Write a run's report again from what is stored, and say where it is."""
    from flows.show import latest_record
    from mmcore.config import load
    from mmcore.report.build import build_report
    from mmcore.storage import Store

    config = load(file, overrides or ())
    store = Store(config.output)
    store.check_layout()
    record = latest_record(store, config.name, run_id)
    path = f"runs/{record['run_id']}/report/index.html"
    store.publish_bytes(path, build_report(store, record).encode())
    typer.echo(store.url(path))


@app.command()
def compare(
    file: ConfigFile,
    overrides: Overrides = None,
    *,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds to train each method with.")] = 5,
    time_limit: Annotated[
        str | None,
        typer.Option(help="No fit begins later than this after the start, as 90s, 20m or 1h30m.", show_default=False),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Train every configured fusion method with several seeds over the same features; one table."""
    from mmcore.config import load

    limit_s = None if time_limit is None else seconds_of(time_limit, "--time-limit")
    config = load(file, overrides or ())
    quiet_prefect()
    from flows.compare import compare as compare_flow

    show_run(lambda c: compare_flow(c, seeds=seeds, time_limit_s=limit_s), config, quiet=quiet)


@app.command()
def serve(
    file: ConfigFile,
    overrides: Overrides = None,
    *,
    cron: Annotated[str, typer.Option(help='When to run, as "0 2 * * *" for every night at two.')],
    timezone: Annotated[str, typer.Option(help="Time zone of the schedule, as Europe/Lisbon.")] = "UTC",
    name: Annotated[str | None, typer.Option(help="The deployment's name; the run's own name by default.")] = None,
) -> None:
    """Run the pipeline on a schedule from this process, with no work pool; Ctrl-C ends it."""
    from mmcore.config import load

    config = load(file, overrides or ())
    from flows.schedule import serve_pipeline

    serve_pipeline(config, cron=cron, timezone=timezone, name=name or config.name)


app.add_typer(shards_app, name="shards")
app.add_typer(features_app, name="features")
app.add_typer(quarantine_app, name="quarantine")

sample_app = typer.Typer(no_args_is_help=True, help="Make a sample data set to try things out.")
app.add_typer(sample_app, name="sample")


@sample_app.command("digits")
def sample_digits(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write it.", show_default=False)],
    samples: Annotated[int, typer.Option(min=100, help="How many samples.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Equal seed, equal bytes.")] = 0,
) -> None:
    """Written, spoken and described digits: image, audio and text files, a manifest and a pipeline.yaml."""
    from mmcore.samples.digits import make_digits
    from tasks.terminal import Terminal, TerminalProgress

    with TerminalProgress("sample", "digits", Terminal()) as progress:
        manifest = make_digits(folder, samples=samples, seed=seed, progress=progress)
    typer.echo(f"Next: mmcore run {manifest.parent / 'pipeline.yaml'}")


def main() -> None:
    """Entry point of the `mmcore` command."""
    logging.captureWarnings(capture=False)
    with_exit_codes(app)


if __name__ == "__main__":
    main()
