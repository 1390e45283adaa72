"""The parent of every agent process on this host: starts them, starts them again, ends them.

It does nothing else, so that no agent's work can hold it up. Each process stands in a session of its own (Ctrl-C in the
terminal reaches the supervisor alone) and dies with the supervisor, even by ``kill -9``.
"""

import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import anyio
from anyio.abc import ByteReceiveStream, Process

from interlock.backends._tether import tethered
from interlock.runtime._family import Family
from interlock.runtime.config import ProcessConfig

__all__ = ["AgentProcessFailed", "Supervisor", "supervised"]

_log = logging.getLogger(__name__)

_GRACE = 0.5
"""Seconds that a process has to end by itself before it is killed."""

_LOOK = 0.05
"""Seconds between two looks at what a process that is to end has below it."""

_BACKOFF = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds before a process that died is started again; the last is repeated."""

_STEADY = 10.0
"""Seconds of life after which a process that dies counts as having died for the first time."""

_STARTS = 3
"""How often in a row a process may fail by itself before the supervisor gives up."""

_READY_SECONDS = 60.0
"""How long a process may take until it is ready, on a machine that has a lot else to do."""

_DRAIN_SECONDS = 0.2
"""How long the outputs of a process that ended may stay open: whatever left its session can hold them for ever."""

_LINES_KEPT = 20
_LINE_BYTES = 16 * 1024


class AgentProcessFailed(Exception):
    """An agent process that fails again and again."""

    def __init__(self, name: str, returncode: int | None, output: Sequence[str]) -> None:
        self.name = name
        self.returncode = returncode
        """Negative: the signal that ended it."""
        self.output = tuple(output)
        """The last lines that it wrote."""
        ending = f"{name} ended {_STARTS} times in a row, the last time with {_ending(returncode)}"
        super().__init__(f"{ending}; it said: {output[-1] if output else '(nothing)'}")


@dataclass(frozen=True, slots=True)
class _Life:
    """One life of a process."""

    ready: bool
    seconds: float
    returncode: int | None
    output: Sequence[str]
    """The last lines that it wrote."""

    @property
    def failed(self) -> bool:
        """Whether it ended by its own fault: not ready, or given up soon after; who is killed is not at fault."""
        return not self.ready or (self.seconds < _STEADY and (self.returncode or 0) > 0)


class Supervisor:
    """Keeps agent processes running. Use ``supervised``."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._running: dict[str, Process] = {}
        self._held: frozenset[str] = frozenset()
        self._changed = anyio.Event()

    @property
    def pids(self) -> dict[str, int]:
        """The pid of each process that was started last, by its name."""
        return {name: process.pid for name, process in self._running.items()}

    def hold(self, agents: frozenset[str]) -> None:
        """End the processes of these agents and start them no more, until another call leaves them out."""
        if agents != self._held:
            self._held = agents
            changed, self._changed = self._changed, anyio.Event()
            changed.set()

    async def keep(self, config: ProcessConfig) -> None:
        """Run the process of ``config``, except while its agent is held, until cancelled.

        :raises AgentProcessFailed: it fails again and again
        """
        while True:
            held = config.agent_name in self._held
            changed = self._changed
            async with anyio.create_task_group() as group:
                if not held:
                    group.start_soon(self._keep_running, config)
                while (config.agent_name in self._held) is held:
                    await changed.wait()
                    changed = self._changed
                group.cancel_scope.cancel()

    async def _keep_running(self, config: ProcessConfig) -> None:
        """Run the process and run it again whenever it dies."""
        deaths = failures = 0
        while True:
            life = await self._live(config)
            failures = failures + 1 if life.failed else 0
            if failures >= _STARTS:
                raise AgentProcessFailed(config.name, life.returncode, life.output)
            deaths = 1 if life.seconds > _STEADY else deaths + 1
            pause = _BACKOFF[min(deaths, len(_BACKOFF)) - 1]
            _log.warning("%s ended with %s; starting it again in %s s", config.name, _ending(life.returncode), pause)
            await anyio.sleep(pause)

    async def _live(self, config: ProcessConfig) -> _Life:
        """Run the process to its end."""
        began, ready = time.monotonic(), False
        written: deque[str] = deque(maxlen=_LINES_KEPT)
        async with _started(config, self._environment) as process, anyio.create_task_group() as group:
            self._running[config.name] = process
            group.start_soon(_relay, process.stderr, config.name, written)
            if ready := await _get_ready(process, config):
                group.start_soon(_read_on, process.stdout)
                await process.wait()
            await _end(process)
            group.cancel_scope.deadline = anyio.current_time() + _DRAIN_SECONDS
        return _Life(ready, time.monotonic() - began, process.returncode, tuple(written))


@asynccontextmanager
async def supervised(
    configs: Sequence[ProcessConfig], environment: Mapping[str, str] = os.environ
) -> AsyncIterator[Supervisor]:
    """Keep a process for each of ``configs`` while the block runs; end them all on leaving, within a second.

    ``environment`` is the processes' whole environment.

    :raises AgentProcessFailed: in a group, when one of them fails again and again; the block is cancelled
    """
    supervisor = Supervisor(environment)
    async with anyio.create_task_group() as group:
        for config in configs:
            group.start_soon(supervisor.keep, config, name=f"keep {config.name}")
        yield supervisor
        group.cancel_scope.cancel()


@asynccontextmanager
async def _started(config: ProcessConfig, environment: Mapping[str, str]) -> AsyncIterator[Process]:
    """Run the process while the block runs; whatever happens, it is ended."""
    command = tethered([sys.executable, "-m", "interlock.runtime.process", config.name])  # the name is for ps
    with anyio.CancelScope(shield=True) as scope:  # cancelled halfway, it would be left without an owner
        process = await anyio.open_process(command, env=dict(environment), start_new_session=True)
        try:
            scope.shield = False
            yield process
        finally:
            scope.shield = True
            await _end(process)
            await process.aclose()


async def _get_ready(process: Process, config: ProcessConfig) -> bool:
    """Tell the process what it is and wait for its first word; False when it has none, or not in time."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("a process was started without the pipes that were asked for")
    with anyio.move_on_after(_READY_SECONDS), suppress(anyio.EndOfStream):
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # it died at once: its exit status tells
            await process.stdin.send(config.model_dump_json(exclude_defaults=True).encode())
        await process.stdin.aclose()
        return bool(await process.stdout.receive())
    with anyio.move_on_after(_GRACE):  # who closed his output is about to end
        await process.wait()
    if process.returncode is None:
        _log.warning("%s was not ready after %g s", config.name, _READY_SECONDS)
    return False


async def _read_on(stream: ByteReceiveStream | None) -> None:
    """Throw away what the process writes, so that it never waits for a reader."""
    if stream is not None:
        async for _ in stream:
            pass


async def _relay(stream: ByteReceiveStream | None, name: str, kept: deque[str]) -> None:
    """Pass on what the process writes to its standard error, line by line, and keep the end of it."""
    rest = b""
    if stream is None:
        return
    async for chunk in stream:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LINE_BYTES:
            lines, rest = [*lines, rest], b""
        for line in lines:
            _relay_line(line, name, kept)
    if rest:
        _relay_line(rest, name, kept)


def _relay_line(line: bytes, name: str, kept: deque[str]) -> None:
    text = line.decode(errors="replace").rstrip()
    kept.append(text)
    _log.warning("%s: %s", name, text)


async def _end(process: Process) -> None:
    """End the process and everything below it, whatever session it moved to."""
    family = Family(process.pid)
    _terminate(process)
    with anyio.move_on_after(_GRACE):
        while process.returncode is None:
            family.look()  # again and again: what it starts while it ends is below it only as long as it lives
            with anyio.move_on_after(_LOOK):
                await process.wait()
    family.kill()
    await process.wait()


def _terminate(process: Process) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)


def _ending(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        return signal.Signals(-returncode).name
    return f"exit status {returncode}"
