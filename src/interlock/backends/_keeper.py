"""Keeps a server that starts processes of its own: ``python _keeper.py GRACE COMMAND...`` runs COMMAND.

When its standard input ends, because whoever started it wants that or is dead, it ends COMMAND and every process below
it: by SIGTERM, and after GRACE seconds by SIGKILL. It ends by itself when COMMAND does, with the same exit code, once
nothing is left below. On Linux it adopts what loses its parent, so that nothing gets out of its sight.

Imports nothing but the standard library, so that it starts in 20 ms and needs 10 MB.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
_TETHER = Path(__file__).with_name("_tether.py")
_LEFT = 2.0
"""Seconds that processes have for their end which the server left behind."""
_KILLING = 5.0
"""Seconds after which even what cannot be killed is left alone."""


def main() -> int:
    """Run the command until one of the two ends; return the exit code."""
    grace, command = float(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        _adopt_orphans()
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # only the byte matters that it writes
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    # Tied to this process, so that the kernel ends it where even this process is killed.
    tethered = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), *command]
    server = subprocess.Popen(tethered, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 -- its parent says what
    _until_over(server, wake)
    _end(server, grace)
    return server.returncode if server.returncode >= 0 else 128 - server.returncode


def _adopt_orphans() -> None:
    import ctypes  # noqa: PLC0415 -- only Linux needs it

    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _until_over(server: "subprocess.Popen[bytes]", wake: int) -> None:
    """Wait until the server has ended, or is to end."""
    while server.poll() is None:
        ready, _, _ = select.select([0, wake], [], [])
        if 0 in ready and not os.read(0, 4096):
            return
        if wake in ready and signal.SIGTERM in os.read(wake, 4096):
            return


def _end(server: "subprocess.Popen[bytes]", grace: float) -> None:
    """End the server in order, then in order what it left behind, then at once what is still below this process."""
    if server.poll() is None:
        _signal(server.pid, signal.SIGTERM)
        _wait(lambda: server.poll() is not None, grace)
    for pid in _below(os.getpid()):
        _signal(pid, signal.SIGTERM)
    _wait(lambda: server.poll() is not None and not _below(os.getpid()), _LEFT)

    def killed() -> bool:
        left = _below(os.getpid())
        for pid in left:
            _signal(pid, signal.SIGKILL)
        return server.poll() is not None and not left

    with suppress(ProcessLookupError, PermissionError):  # its session, where there is no /proc to look into
        os.killpg(server.pid, signal.SIGKILL)
    _wait(killed, _KILLING)


def _wait(holds: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)


def _below(pid: int) -> list[int]:
    """Return the processes below ``pid`` that live."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        for child in _children(waiting.pop()):
            waiting.append(child)
            if not _is_dead(child):
                found.append(child)
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += map(int, (thread / "children").read_text().split())
    return found


def _is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


if __name__ == "__main__":
    sys.exit(main())
