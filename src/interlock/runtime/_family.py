"""All processes below one, found and killed together, also those that moved to sessions of their own (Linux).

Whose ancestor died is below nobody any more. What agents start inherits a mark in its environment, and by that it is
found wherever it went.
"""

import ctypes
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from interlock.backends._tether import SUPERVISED

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

    def look(self) -> "Family":
        """Remember the processes that are below those known, and return itself.

        Nothing is below one that ended; its number may be another process's by now.
        """
        waiting = [pid for pid in self._known if self._lives(pid)]
        while waiting:
            found = [child for child in _children(waiting.pop()) if child not in self._known]
            self._known.update((child, _began(child)) for child in found)
            waiting += found
        return self

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


def mark(environment: Mapping[str, str], supervisor: str, name: str) -> dict[str, str]:
    """Return ``environment`` with the mark of the process ``name`` of a supervisor, and those of supervisors above."""
    return {**environment, SUPERVISED: f"{environment.get(SUPERVISED, '')}{supervisor}/{name};"}


def sweep(supervisor: str, name: str = "") -> int:
    """Kill what carries the mark of a supervisor, or of one of its processes; return how many that were.

    The mark is the one with which a program was started: who takes it out of his children's environment hides them.
    """
    wanted = f"{supervisor}/{name};" if name else f"{supervisor}/"
    killed: set[int] = set()
    while found := [pid for pid in _marked(wanted.encode()) if pid not in killed]:  # a child may have been on its way
        for pid in found:
            _signal(pid, signal.SIGKILL)
        killed.update(found)
    return len(killed)


def _marked(wanted: bytes) -> list[int]:
    if not _PROC.exists():
        return []
    pids = (int(path.name) for path in _PROC.iterdir() if path.name.isdecimal())
    return [pid for pid in pids if pid != os.getpid() and wanted in _mark_of(pid)]


def _mark_of(pid: int) -> bytes:
    """Return the marks that a process was started with; none where it is gone, a zombie or somebody else's."""
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return b""
    return b"\0".join(entry for entry in environment.split(b"\0") if entry.startswith(SUPERVISED.encode()))


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
