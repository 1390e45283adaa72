"""The lease of a process on its own life: unless it is renewed, the kernel kills the process when it is over (Linux).

No code of the process has to run for that, so it holds for a blocked event loop, for a process that ignores every
signal, and for one that was stopped (SIGSTOP) and would otherwise go on where it was, however late.
"""

import ctypes
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

_log = logging.getLogger(__name__)

_CLOCK_MONOTONIC = 1
_TIMER_ABSTIME = 1
_READ = 64 * 1024


class _Event(ctypes.Structure):
    """``struct sigevent``, as long as the kernel reads it."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_char * 48),
    )


class Lease:
    """The timer that ends this process. It belongs to the process: a child has none, whatever is exec'ed has none."""

    def __init__(self) -> None:
        self._timer = ctypes.c_void_p()
        self._libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        if self._libc is not None:
            event = _Event(None, signal.SIGKILL, 0, b"")
            if self._libc.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer)) != 0:
                raise OSError(ctypes.get_errno(), "timer_create failed")

    def renew(self, until: float) -> None:
        """Let the process live until ``until``, by ``time.monotonic``; one that is over ends it now.

        :raises OSError: the kernel refuses
        """
        if self._libc is None:  # SIGALRM ends who did not ask for it; a stopped process, once it goes on
            signal.setitimer(signal.ITIMER_REAL, max(1e-6, until - time.monotonic()))
            return
        at = (ctypes.c_long * 4)(0, 0, int(until), int(until % 1 * 1e9))
        if self._libc.timer_settime(self._timer, _TIMER_ABSTIME, ctypes.byref(at), None) != 0:
            raise OSError(ctypes.get_errno(), "timer_settime failed")


def obey(told: Iterator[Sequence[bytes]], hear: Callable[[str], None]) -> None:
    """Do what this process is told, in a thread of its own: renew its lease on a ``lease_line``, ``hear`` the rest."""

    def run() -> None:
        lease = None
        for lines in told:
            leases = [line for line in lines if line[:1].isdigit()]
            if leases:  # only the newest counts: those before it may be over, and waited while this process started
                lease = lease or Lease()
                lease.renew(float(leases[-1]))
            for line in lines:
                if line and not line[:1].isdigit():
                    hear(line.decode(errors="replace"))

    threading.Thread(target=run, name="lease", daemon=True).start()


def lease_line(until: float) -> bytes:
    """Return the line that lets a process live until ``until``, by ``time.monotonic`` of this machine."""
    return b"%.6f\n" % until


def first_line(descriptor: int) -> tuple[bytes, Iterator[Sequence[bytes]]]:
    """Return the first line that comes from a file descriptor, and an iterator over the others.

    The iterator yields all lines that are there, however many, and waits for more.
    """
    told = _lines(descriptor)
    for lines in told:
        if lines:
            return lines[0], chain([lines[1:]], told)
    return b"", told


def _lines(descriptor: int) -> Iterator[list[bytes]]:
    """Yield the complete lines that are there. Nothing is left in a buffer that the interpreter would want to close."""
    rest = b""
    while chunk := os.read(descriptor, _READ):
        rest += chunk
        while select.select([descriptor], [], [], 0)[0] and (chunk := os.read(descriptor, _READ)):
            rest += chunk
        *lines, rest = rest.split(b"\n")
        yield lines
    if rest:
        yield [rest]
