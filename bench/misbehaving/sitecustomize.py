"""Makes an agent process misbehave on SIGUSR1. Python imports this at its start where this folder is on PYTHONPATH.

The process is a real one, started by the real supervisor; which way it goes wrong is decided by its number: see
``BEHAVIOURS``. It writes the pids of what it started, or nothing, to a file in $BENCH_FOLDER once it has gone wrong.
"""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

BEHAVIOURS = ("calling", "busy", "deaf", "parent", "frozen", "stuck")
"""What the worker processes 1, 2, ... do, over and over again.

calling  waits for its model, and would end when told
busy     computes in the thread of its event loop, for ever
deaf     ignores SIGTERM, SIGINT and SIGHUP while it waits for its model
parent   has children in sessions of their own, with children, that ignore signals; some of them daemons
frozen   was stopped with SIGSTOP, from outside
stuck    sits in C code that gives no other thread of it a chance
"""

_CHILD = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
def tell():
    with open(sys.argv[1], "a") as told:
        told.write(f"{os.getpid()}\\n")
if os.fork() == 0:      # a grandchild in a session of its own
    os.setsid()
elif os.fork() == 0:    # a daemon, forked twice, that nobody is the parent of
    os.setsid()
    if os.fork():
        os._exit(0)
tell()
time.sleep(600)
"""


def behaviour_of(name: str) -> str:
    """Return how the agent process ``name``, such as ``reader-3``, misbehaves."""
    number = name.rpartition("-")[2]
    return BEHAVIOURS[(int(number) - 1) % len(BEHAVIOURS)] if number.isdecimal() else "calling"


def _go_wrong(name: str, told: Path) -> None:
    match behaviour_of(name):
        case "deaf":
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
        case "parent":
            subprocess.Popen([sys.executable, "-I", "-S", "-c", _CHILD, str(told)], start_new_session=True)
            return
        case "busy":
            told.touch()
            while True:
                pass
        case "stuck":
            told.touch()
            ctypes.PyDLL(None).sleep(600)  # called like this, it keeps the interpreter's lock
        case _:  # what else is wrong with a process is done to it from outside
            pass
    told.touch()


if "interlock.runtime.process" in sys.orig_argv and "BENCH_FOLDER" in os.environ:
    _NAME = sys.orig_argv[-1]
    signal.signal(signal.SIGUSR1, lambda *_: _go_wrong(_NAME, Path(os.environ["BENCH_FOLDER"]) / f"{_NAME}.pids"))
