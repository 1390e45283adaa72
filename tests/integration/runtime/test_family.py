"""A process is killed with everything that it ever started."""

import os
import signal
import sys
from pathlib import Path

import anyio
from anyio.abc import Process
from tests.cli import alive
from tests.waiting import eventually

from interlock.runtime._family import Family

_PARENT = """
import os, sys, time
from interlock.runtime._family import adopt_orphans
adopt_orphans()
if not os.fork():                 # a child that starts another one and ends: an orphan in a session of its own
    if os.fork():
        os._exit(0)
    os.setsid()
    print(os.getpid(), flush=True)
    time.sleep(600)
os.wait()
if not os.fork():                 # a child that never stops having children
    if not os.fork():
        time.sleep(600)
    print(os.getpid(), flush=True)
    while True:
        if not os.fork():
            time.sleep(600)
        time.sleep(0.002)
print("ready", flush=True)
time.sleep(600)
"""


async def _lines(process: Process, count: int) -> list[str]:
    assert process.stdout is not None
    text = b""
    with anyio.fail_after(30):
        while text.count(b"\n") < count:
            text += await process.stdout.receive()
    return text.decode().split()


async def test_orphans_and_those_being_born_die_with_the_family() -> None:
    """An orphan in another session and a child that forks without end are all gone after one kill."""
    source = str(Path(__file__).parents[3] / "src")
    process = await anyio.open_process([sys.executable, "-c", _PARENT], env={"PYTHONPATH": source, "PATH": "/bin"})
    family = Family(process.pid)
    try:
        known = [int(line) for line in await _lines(process, 3) if line != "ready"]
    finally:
        killed = family.kill()
        await process.wait()
        await process.aclose()
    assert killed >= 4
    await eventually(lambda: not any(alive(pid) for pid in [*known, *family._known]), 5)


async def test_a_pid_that_was_given_anew_is_nobody_of_the_family() -> None:
    """A process that began later than the one that was seen under its pid is left alone, and so are its children."""
    process = await anyio.open_process(["sh", "-c", "sleep 600 & echo $!; wait"], start_new_session=True)
    family = Family(process.pid)
    try:
        [child] = map(int, await _lines(process, 1))
        family._known[process.pid] = "1"
        assert family.kill() == 0
        assert process.returncode is None
        assert alive(process.pid)
        assert alive(child)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await process.aclose()
