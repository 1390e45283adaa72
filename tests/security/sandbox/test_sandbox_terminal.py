"""What a command in a sandbox can do to the terminal that Interlock was started from."""

import fcntl
import os
import pty
import subprocess
import sys
import termios
from contextlib import closing
from pathlib import Path

import pytest

TYPE = """
import fcntl, os, sys, termios
def pushed(file):
    try:
        for letter in b"X": fcntl.ioctl(file, termios.TIOCSTI, bytes([letter]))
    except OSError: return "refused"
    return "typed"
found = [pushed(file) for file in (0, 1, 2)]
try: found.append(pushed(os.open("/dev/tty", os.O_RDWR)))
except OSError: found.append("no terminal")
print(found)
"""

PARENT = """
import os, subprocess, sys, anyio
from interlock.runtime.sandbox import probe

async def main():
    sandbox = await probe(sys.argv[1])
    result = await sandbox.run([sys.executable, "-c", sys.argv[2]])
    print(result.stdout.decode(), end="")

if sys.argv[1] == "outside":
    subprocess.run([sys.executable, "-c", sys.argv[2]], check=True, stdin=0, stderr=0)
else:
    anyio.run(main)
"""


def _said_on_a_terminal(tier: str) -> tuple[str, int]:
    """Return what is printed below a process whose terminal is a new one, and how many bytes were typed into that."""
    master, terminal = pty.openpty()
    with closing(os.fdopen(master, "rb", buffering=0)), closing(os.fdopen(terminal, "rb", buffering=0)):
        raw = termios.tcgetattr(terminal)
        raw[3] &= ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(terminal, termios.TCSANOW, raw)
        code = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n" + PARENT
        command = [sys.executable, "-c", code, tier, TYPE]
        done = subprocess.run(command, stdin=terminal, stdout=-1, text=True, check=True, timeout=60)
        waiting = int.from_bytes(fcntl.ioctl(terminal, termios.FIONREAD, bytes(4)), sys.byteorder)
        return done.stdout.strip(), waiting


def test_nothing_is_typed_into_the_terminal(tier: str) -> None:
    """A command finds no terminal and cannot type into the one that Interlock runs on; without the sandbox it can."""
    assert _said_on_a_terminal(tier) == ("['refused', 'refused', 'refused', 'no terminal']", 0)


def test_the_attempt_works_without_a_sandbox() -> None:
    """The same program types into the terminal when it runs outside, where the kernel still allows that at all."""
    allowed = Path("/proc/sys/dev/tty/legacy_tiocsti")
    if allowed.exists() and allowed.read_text().strip() != "1" and os.geteuid() != 0:
        pytest.skip("this kernel lets nobody type into terminals")
    said, waiting = _said_on_a_terminal("outside")
    assert "typed" in said
    assert waiting > 0
