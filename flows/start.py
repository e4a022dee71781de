"""How a flow is started by hand: its arguments, what is shown of it, and what its exit code means."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import psutil
import typer
from rich.markup import escape

from mmcore.errors import ConfigError, InputError, MmcoreError, Problem, TooManyRejectsError

EXIT_FAILED, EXIT_INPUT, EXIT_REJECTS = 1, 2, 3

OWNER = "MMCORE_RUN_PID"
"""Tells whose children a run's child processes are, also once the run is gone."""

LAST_WORDS_S = 4.0
"""How long an interrupted run may take to end its workers and to tell the server."""

ConfigFile = Annotated[Path, typer.Argument(metavar="FILE", help="The run's YAML.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Settings that replace the YAML's.", show_default=False),
]


def seconds_of(text: str, option: str) -> float:
    """A duration as people write it: `90` or `90s`, `20m`, `1h30m`. Raises ConfigError naming the option."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    seconds = (
        sum(float(part or 0) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True)) if found else 0
    )
    if not seconds:
        raise ConfigError(Problem(option, f"{text!r} is no duration.", "Write it as 90s, 20m or 1h30m."))
    return seconds


def run_file(flow: Callable[..., Any]) -> None:
    """`python -m flows.NAME FILE [key=value ...]`: the same flow without the command."""
    app_one = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @app_one.command()
    def start(file: ConfigFile, overrides: Overrides = None) -> None:
        from mmcore.config import load

        show_run(flow, load(file, overrides or ()), quiet=False)

    with_exit_codes(app_one)


def show_run(flow: Callable[..., Any], config: Any, *, quiet: bool) -> None:
    from flows.show import show_result
    from mmcore.storage import Store
    from tasks.terminal import Terminal, shown_on

    terminal = Terminal(quiet=quiet)
    with shown_on(terminal):
        terminal.line(
            f"[bold]{escape(config.name)}[/] · {' · '.join(config.data.modalities)} · {escape(config.output)}"
        )
        _end_orphaned_servers()
        terminal.wait("starting")
        with _interruptible() as interruptible:
            # Once the flow runs, Prefect has put a SIGTERM handler of its own over ours.
            terminal.on_start = interruptible
            run_id = flow(config)
    show_result(Store(config.output), run_id, terminal)


def _end_orphaned_servers() -> None:
    """End temporary Prefect servers of runs that were killed: nobody else does, and each holds 200 MB."""
    for process in psutil.process_iter():
        # Another user's, or one that ends just now.
        with suppress(psutil.Error):
            owner = process.environ().get(OWNER)
            if owner and not psutil.pid_exists(int(owner)) and process.uids().real == os.getuid():
                process.terminate()
    os.environ[OWNER] = str(os.getpid())


def quiet_prefect() -> None:
    """Before Prefect's first import: the run's own lines say what happens, Prefect's go to its server and its UI."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def with_exit_codes(typer_app: typer.Typer) -> None:
    """Run a command; what it raises on purpose ends it with a paragraph and a code rather than a traceback."""
    try:
        typer_app(standalone_mode=True)
    except InputError as error:
        count = len(error.problems)
        print(f"{count} problem{'s' if count > 1 else ''}:" if count > 1 else "Problem:", file=sys.stderr)
        for problem in error.problems:
            print(f"  {problem}", file=sys.stderr)
        sys.exit(EXIT_INPUT)
    except TooManyRejectsError as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_REJECTS)
    except MmcoreError as error:
        print(f"Failed: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILED)
    except RuntimeError as error:
        if not str(error).startswith("Failed to reach API"):
            raise
        print(f"Failed: {error}. Start the server, or unset PREFECT_API_URL to run without one.", file=sys.stderr)
        sys.exit(EXIT_FAILED)


@contextmanager
def _interruptible() -> Iterator[Callable[[], None]]:
    """Ctrl-C or SIGTERM ends the block, and the command, within seconds and with one line; a second one at once.

    What it yields listens again, where something else has taken the signals. In a terminal Ctrl-C reaches Prefect's
    temporary server as well, and Prefect would go on for minutes trying to tell it the run's state and its last log
    lines. Local workers end with this process, however it ends.
    """
    asked: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1:
            os._exit(128 + asked[0])
        print("\nInterrupted. What is finished is kept: the same command goes on.", file=sys.stderr, flush=True)
        # What else is said is of a server and of workers that the signal reached as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        end = threading.Timer(LAST_WORDS_S, os._exit, [128 + number])
        end.daemon = True
        end.start()
        raise KeyboardInterrupt

    def listen() -> None:
        for number in before:
            signal.signal(number, stop)

    # Python's helper process for semaphores would tell of those that workers held; the system takes them back.
    told = filter(None, [os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker:UserWarning"])
    os.environ["PYTHONWARNINGS"] = ",".join(told)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    listen()
    try:
        yield listen
    except BaseException:
        # Whatever a lost server made of it.
        if asked:
            sys.exit(128 + asked[0])
        raise
    finally:
        if not asked:
            for number, handler in before.items():
                signal.signal(number, handler)
