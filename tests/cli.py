"""Runs the real command line for tests: real processes, a real broker, a scripted model over real HTTP."""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process

from interlock.protocol.state import Entry
from interlock.protocol.subjects import log_subjects
from interlock.runtime.address import BrokerAddress
from interlock.runtime.place import Place, open_bus

__all__ = [
    "Finished",
    "Running",
    "agent_pids",
    "alive",
    "broker_pid",
    "command_lines",
    "descendants",
    "environment",
    "interlock",
    "kill",
    "read_log",
    "running",
]

_ROOT = Path(__file__).parent.parent
_LIMIT = 90


@dataclass
class Finished:
    """What a command came to."""

    status: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """The standard output as JSON."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


@dataclass
class Running:
    """A command that runs, its output kept as it comes."""

    process: Process
    out: bytearray = field(default_factory=bytearray)
    err: bytearray = field(default_factory=bytearray)
    news: anyio.Event = field(default_factory=anyio.Event)

    async def until(self, text: str, seconds: float = _LIMIT) -> None:
        """Wait until the command has written ``text`` to its standard error."""
        with anyio.fail_after(seconds):
            while text.encode() not in self.err:
                assert self.process.returncode is None, f"ended before it said {text!r}:\n{self.err.decode()}"
                await self.news.wait()

    async def finish(self, seconds: float = _LIMIT) -> Finished:
        """Wait for the end, for at most so long.

        :raises AssertionError: it does not end; with what it said so far
        """
        with anyio.move_on_after(seconds):
            status = await self.process.wait()
            while not (self.process.stdout is None and self.process.stderr is None) and not self._drained:
                await self.news.wait()
            return Finished(status, self.out.decode(), self.err.decode())
        raise AssertionError(f"it did not end within {seconds:g} s:\n{self.err.decode()[-4000:]}")

    _drained: bool = False

    async def _read(self) -> None:
        async def pump(name: str) -> None:
            stream = getattr(self.process, name)
            with suppress(anyio.ClosedResourceError):  # a test may stop reading
                async for chunk in stream:
                    getattr(self, {"stdout": "out", "stderr": "err"}[name]).extend(chunk)
                    self._tell()

        async with anyio.create_task_group() as group:
            group.start_soon(pump, "stdout")
            group.start_soon(pump, "stderr")
        self._drained = True
        self._tell()

    def _tell(self) -> None:
        news, self.news = self.news, anyio.Event()
        news.set()


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment without the settings of whoever runs the tests."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("INTERLOCK_", "OTEL_", "OPENAI_"))}
    return {**kept, "PYTHONPATH": str(_ROOT / "src"), "PYTHONWARNINGS": "error", **(extra or {})}


@asynccontextmanager
async def running(
    *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> AsyncIterator[Running]:
    """Start ``interlock ARGUMENTS`` and keep reading what it says; it is ended with the block."""
    command = [sys.executable, "-m", "interlock.runtime.cli", *arguments]
    process = await anyio.open_process(command, stdin=None, env=environment(env), cwd=cwd)
    command_running = Running(process)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(command_running._read)
            yield command_running
            if process.returncode is None:
                process.kill()
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.aclose()


async def interlock(*arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Finished:
    """Run ``interlock ARGUMENTS`` to its end."""
    async with running(*arguments, env=env, cwd=cwd) as command:
        return await command.finish()


async def read_log(at: Path | BrokerAddress) -> list[Entry]:
    """Return every entry of the log of a broker, or of a state folder that no broker runs on."""
    entries: list[Entry] = []
    place = Place(at) if isinstance(at, Path) else Place(Path(), at)
    async with open_bus(place, "oracle") as (bus, _), bus.follow([log_subjects(bus.ns)]) as batches:
        async for batch in batches:
            entries += batch.entries
            if batch.pending == 0:
                break
    return entries


def descendants(pid: int) -> list[int]:
    """Return the processes below ``pid`` that live now."""
    children = [child for child in _all_pids() if _parent(child) == pid]
    return [*children, *(below for child in children for below in descendants(child))]


def agent_pids(pid: int, name: str) -> list[int]:
    """Return the agent processes below ``pid`` whose name begins with ``name``."""
    return [child for child in descendants(pid) if (found := _agent_name(child)) and found.startswith(name)]


def broker_pid(pid: int) -> int:
    """Return the nats-server below ``pid``."""
    [found] = [child for child in descendants(pid) if _arguments(child)[0].endswith("nats-server")]
    return found


def command_lines(pid: int) -> list[str]:
    """Return what a process and those below it were started with, as anybody on the machine can read it."""
    return [" ".join(_arguments(one)) for one in (pid, *descendants(pid))]


def alive(pid: int) -> bool:
    """Return whether a process lives (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill(pid: int) -> None:
    """Kill a process that this test's command started."""
    os.kill(pid, signal.SIGKILL)


def _all_pids() -> Sequence[int]:
    return [int(name.name) for name in Path("/proc").iterdir() if name.name.isdecimal()]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _agent_name(pid: int) -> str:
    arguments = _arguments(pid)
    return arguments[3] if arguments[1:3] == ["-m", "interlock.runtime.process"] else ""


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
