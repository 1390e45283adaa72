"""All processes below one, found and killed together, also those that moved to sessions of their own (Linux)."""

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_PR_SET_CHILD_SUBREAPER = 36
_STARTED = 19
"""Which field of /proc/PID/stat, counted after the command's name, says when the process began."""


class Family:
    """A process and everything below it, remembered from each look: who was seen once does not get away.

    Where there is no ``/proc`` it is the process alone.
    """

    def __init__(self, pid: int) -> None:
        self._known: dict[int, str] = {pid: _began(pid)}

    def look(self) -> None:
        """Remember the processes that are below those known."""
        waiting = list(self._known)
        while waiting:
            found = [child for child in _children(waiting.pop()) if child not in self._known]
            self._known.update((child, _began(child)) for child in found)
            waiting += found

    def kill(self) -> int:
        """Kill all of them that still live and return how many that were.

        Each is stopped before its children are looked for, so that none can start another one meanwhile.
        """
        alive: dict[int, None] = {}
        while waiting := [pid for pid in self._known if pid not in alive and self._lives(pid)]:
            for pid in waiting:
                _signal(pid, signal.SIGSTOP)
                alive[pid] = None
            self.look()
        for pid in alive:
            _signal(pid, signal.SIGKILL)
        return len(alive)

    def _lives(self, pid: int) -> bool:
        """Whether ``pid`` is still the process that was seen, and no zombie."""
        return _began(pid) == self._known[pid] != ""


def adopt_orphans() -> None:
    """Become the parent of every process below this one whose own parent ends (Linux), so that none gets out of sight.

    :raises OSError: the kernel refuses
    """
    if _PROC.exists() and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for thread in (_PROC / str(pid) / "task").iterdir():
            with suppress(OSError):
                found += map(int, (thread / "children").read_text().split())
    return found


def _began(pid: int) -> str:
    """Return when a process began, in clock ticks; empty where it is gone or a zombie."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if _PROC.exists() else "unknown"
    return "" if fields[0] in "ZX" else fields[_STARTED]


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
