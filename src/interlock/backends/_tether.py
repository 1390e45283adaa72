"""Ties a child process to its parent: ``python _tether.py PARENT COMMAND...`` becomes COMMAND and dies with PARENT.

On Linux the kernel sends SIGKILL when the parent's *thread* that started the child ends, so start children from a
thread that lives as long as they should (the event loop's). Elsewhere there is no such signal: a parent that is killed
leaves its children behind.

Imports nothing but the standard library, so that it starts in 10 ms.
"""

import os
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
SIGKILL = 9


def tethered(command: Sequence[str]) -> list[str]:
    """Return the command line that runs ``command`` as a child that does not outlive this process."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main() -> None:
    """Ask for the signal, check that the parent is still there, and become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        _die_with_parent()
    if os.getppid() != parent:
        sys.exit(f"the process {parent} that wanted {command[0]} is gone")
    os.execvp(command[0], command)  # noqa: S606 -- no shell is wanted


def _die_with_parent() -> None:
    import ctypes  # noqa: PLC0415 -- only the child needs it

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()
