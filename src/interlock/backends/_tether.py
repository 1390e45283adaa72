"""Ties a child process to its parent: ``python _tether.py PARENT COMMAND...`` becomes COMMAND and dies with PARENT.

On Linux the kernel sends SIGKILL when the parent's *thread* that started the child ends, so start children from a
thread that lives as long as they should (the event loop's). Elsewhere there is no such signal: a parent that is killed
leaves its children behind.

Imports nothing but the standard library, so that it starts in 10 ms.
"""

import os
import sys
from collections.abc import Sequence

SUPERVISED = "INTERLOCK_SUPERVISED"
"""The variable that marks what agents start, so that it is found when they are gone. Hand it on to every child."""

PR_SET_PDEATHSIG = 1
SIGKILL = 9


def tethered(command: Sequence[str], problem: int | None = None) -> list[str]:
    """Return the command line that runs ``command`` as a child that does not outlive this process.

    To the file descriptor ``problem``, which the child must get, the errno is written where the command cannot be run;
    it is closed, with nothing in it, where it runs.
    """
    parent = str(os.getpid()) if problem is None else f"{os.getpid()},{problem}"
    return [sys.executable, "-I", "-S", __file__, parent, *command]


def main() -> None:
    """Ask for the signal, check that the parent is still there, and become the command."""
    (parent, _, problem), command = sys.argv[1].partition(","), sys.argv[2:]
    if sys.platform == "linux":
        _die_with_parent()
    if os.getppid() != int(parent):
        sys.exit(f"the process {parent} that wanted {command[0]} is gone")
    if problem:
        os.set_inheritable(int(problem), False)
    try:
        os.execvp(command[0], command)  # noqa: S606 -- no shell is wanted
    except OSError as error:
        if not problem:
            raise
        os.write(int(problem), str(error.errno).encode())
        sys.exit(127)


def _die_with_parent() -> None:
    import ctypes  # noqa: PLC0415 -- only the child needs it

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()
