"""Run a command that dies with its parent: ``python -I -S _tether.py PARENT_PID COMMAND...``.

Linux kills the command as soon as the thread that started it is gone, even after ``kill -9``. Where there is no
such call (macOS) the command simply runs. Only the standard library is used, so that it starts in milliseconds.
"""

import ctypes
import os
import signal
import sys

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Become the command of ``arguments`` (the parent's pid, then the command), tied to the parent's life.

    :raises OSError: the command cannot be executed, or the kernel refused the tie
    """
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        _die_with(parent)
    os.execvp(command[0], command)  # noqa: S606 - no shell is the point


def _die_with(parent: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it died before the tie was made
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
