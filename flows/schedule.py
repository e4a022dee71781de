"""The pipeline on a schedule from one process, with no work pool."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from prefect.schedules import Cron
from prefect.settings import get_current_settings

from flows.pipeline import pipeline
from mmcore.config import RunConfig
from mmcore.errors import ConfigError, Problem


def serve_pipeline(config: RunConfig, *, cron: str, timezone: str, name: str) -> None:
    """Register the deployment `pipeline/NAME` and run it when the schedule says, until interrupted.

    Raises ConfigError where no Prefect server is configured, or the schedule or the time zone is none.
    """
    if not get_current_settings().api.url:
        raise ConfigError(
            Problem(
                "PREFECT_API_URL",
                "a schedule needs a Prefect server that stays.",
                "Start one with `prefect server start` and set PREFECT_API_URL=http://127.0.0.1:4200/api.",
            )
        )
    try:
        ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        raise ConfigError(Problem("--timezone", f"no time zone {timezone!r}.", "Write it as Europe/Lisbon.")) from None
    try:
        schedule = Cron(cron, timezone=timezone)
    except ValueError as error:
        raise ConfigError(
            Problem("--cron", f"{error}.", 'Five fields, as "0 2 * * *" for every night at two.')
        ) from None
    pipeline.serve(
        name=name,
        schedules=[schedule],
        parameters={"config": config.model_dump(mode="json")},
        tags=["mmcore", "served"],
        description=f"{config.name}, from raw files to a report; what has not changed is reused.",
    )
