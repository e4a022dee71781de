"""Prefect flows: what chains what, and the `mmcore` command that starts them.

The settings here reach the temporary server that Prefect starts where none is configured; what the user has set stays.
"""

import os

for _name, _value in {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # Its start-up and SQLite chatter is nothing that a user could act on.
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    # It applies its migrations first, which takes longer than the default 20 s on a slow machine.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
}.items():
    os.environ.setdefault(_name, _value)
