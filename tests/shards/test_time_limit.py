from __future__ import annotations

import subprocess
import sys
import time

import pytest

from mmcore.shards.time_limit import TimeLimit


def _run(script: str) -> tuple[int, str, float]:
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout + done.stderr, time.monotonic() - start


@pytest.mark.parametrize("exact", [True, False])
def test_many_short_samples_pass_and_a_long_one_ends_the_process(exact: bool) -> None:
    script = (
        "import time, ctypes; from mmcore.shards.time_limit import TimeLimit\n"
        f"with TimeLimit(0.4, exact={exact}) as limit:\n"
        "    for _ in range(10):\n"
        "        limit.restart(); time.sleep(0.1)\n"
        "    print('so far', flush=True); limit.restart()\n"
        "    ctypes.PyDLL(None).sleep(20)\n"
    )
    status, output, took_s = _run(script)
    assert (status, output) == (1, "so far\n")
    assert took_s < 15


def test_no_limit_and_no_sample_leave_no_timer() -> None:
    with TimeLimit(None) as limit:
        limit.restart()
    script = (
        "import time; from mmcore.shards.time_limit import TimeLimit\n"
        "with TimeLimit(0.2) as limit:\n    limit.restart()\n"
        "time.sleep(0.5)\n"
    )
    assert _run(script)[:2] == (0, "")
