"""Standard error is silent inside and itself again outside, whatever happens in between."""

import os
import subprocess
import sys
import threading

import pytest

from mmcore.modalities.chatter import stderr_dropped


def test_inside_is_silent_and_outside_is_heard(capfd):
    os.write(2, b"before ")
    with stderr_dropped():
        os.write(2, b"inside ")
    with pytest.raises(ValueError, match="broken"), stderr_dropped():
        raise ValueError("broken")
    os.write(2, b"after")
    assert capfd.readouterr().err == "before after"


def test_many_threads_leave_it_as_it_was(capfd):
    def work():
        for _ in range(50):
            with stderr_dropped():
                os.write(2, b"inside ")

    threads = [threading.Thread(target=work) for _ in range(4)]
    open_before = len(os.listdir("/proc/self/fd"))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_a_process_without_standard_error():
    code = (
        "import os; os.close(2)\n"
        "from mmcore.modalities.chatter import stderr_dropped\n"
        "with stderr_dropped(): print('works')"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"works\n"
