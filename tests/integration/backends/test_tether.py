import os
import select
import signal
import subprocess
import sys

import pytest

from interlock.backends import _tether
from interlock.backends._tether import tethered

PARENT = """
import subprocess, sys
from interlock.backends._tether import tethered
child = subprocess.Popen(tethered(["sleep", "60"]), stdout=subprocess.PIPE, start_new_session=True)
while open(f"/proc/{child.pid}/comm").read().strip() != "sleep":
    pass
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a child to its parent")
def test_a_child_dies_with_its_parent() -> None:
    """A parent that is killed with SIGKILL takes its tethered child along."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        ended, _, _ = select.select([child], [], [], 5)
        os.close(child)
    assert ended


def test_a_child_without_its_parent_does_not_start() -> None:
    """A child whose parent is gone before it could ask for the signal ends instead of running on alone."""
    run = subprocess.run(
        [sys.executable, "-I", "-S", _tether.__file__, "1", "echo", "started"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert run.stdout == ""
    assert "the process 1 that wanted echo is gone" in run.stderr


def test_a_command_runs_unchanged() -> None:
    """Arguments, output and exit code are the command's own."""
    run = subprocess.run(tethered(["sh", "-c", 'echo "$1"; exit 7', "sh", "a b"]), capture_output=True, check=False)
    assert (run.returncode, run.stdout) == (7, b"a b\n")
