"""The sandbox by bubblewrap: its command line."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence

from interlock.runtime.sandbox._view import INSIDE, Step

_OWN_NAMESPACES = ("user", "pid", "net", "ipc", "uts", "cgroup-try")
_SEARCHED = os.pathsep.join(("/usr/local/bin", "/usr/bin", "/bin"))
"""Not the PATH: what does the isolating must not come out of a folder that an agent may write to."""


def bubblewrap() -> str | None:
    """Return where bubblewrap is installed on the system; None: it is not."""
    return shutil.which("bwrap", path=_SEARCHED)


def command_line(program: str, steps: Sequence[Step], files: Sequence[int]) -> list[str]:
    """Return the command line that runs the first process in what ``steps`` show, with ``files`` open."""
    return [
        program,
        *(f"--unshare-{name}" for name in _OWN_NAMESPACES),
        *("--uid", "1000", "--gid", "1000", "--hostname", "sandbox"),
        *("--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL", "--clearenv"),
        *(word for step in steps for word in _words(step)),
        *("--remount-ro", "/", "--chdir", "/"),
        *("--", sys.executable, "-I", "-S", INSIDE, *map(str, files)),
    ]


def _words(step: Step) -> Iterator[str]:
    kind, *words = step
    yield from _OPTIONS[kind](*words)


_OPTIONS: dict[str, Callable[..., Sequence[str]]] = {
    "bind": lambda source, path, writable: ("--bind" if writable else "--ro-bind", source, path),
    "device": lambda path: ("--dev-bind", path, path),
    "hide": lambda path: ("--ro-bind", "/dev/null", path),
    "link": lambda target, path: ("--symlink", target, path),
    "memory": lambda path, size: ("--size", str(size), "--tmpfs", path),
    "processes": lambda path: ("--proc", path),
}
