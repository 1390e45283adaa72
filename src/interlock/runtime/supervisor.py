"""The parent of every agent process on this host: starts them, starts them again, ends them.

It does nothing else, so that no agent's work can hold it up. Each process stands in a session of its own (Ctrl-C in the
terminal reaches the supervisor alone) and dies with the supervisor, even by ``kill -9``.
"""

import contextlib
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.abc import Process, TaskGroup

from interlock.backends import _tether
from interlock.runtime.config import ProcessConfig

__all__ = ["AgentProcessFailed", "Supervisor", "supervised"]

_log = logging.getLogger(__name__)

GRACE = 0.5
"""Seconds that a process has to end by itself before it is killed."""

_BACKOFF = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds before a process that died is started again; the last is repeated."""

_STEADY = 10.0
"""Seconds of life after which a process that dies counts as having died for the first time."""

_STARTS = 5
"""How often in a row a process may die before it was ready; then the supervisor gives up."""

_LINES_KEPT = 20


class AgentProcessFailed(Exception):
    """An agent process that never gets ready."""

    def __init__(self, name: str, returncode: int | None, output: Sequence[str]) -> None:
        self.name = name
        self.returncode = returncode
        self.output = tuple(output)
        tail = "\n".join(output) or "(it wrote nothing)"
        super().__init__(
            f"{name} ended {_STARTS} times before it was ready, with {_ending(returncode)}; it wrote:\n{tail}"
        )


class Supervisor:
    """Keeps agent processes running. Use ``supervised``."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._running: dict[str, Process] = {}

    @property
    def pids(self) -> dict[str, int]:
        """The pid of each process that runs now, by its name."""
        return {name: process.pid for name, process in self._running.items()}

    async def keep(self, config: ProcessConfig) -> None:
        """Run the process of ``config`` and run it again whenever it dies, until cancelled.

        :raises AgentProcessFailed: it dies again and again before it is ready
        """
        deaths = unready = 0
        while True:
            began = time.monotonic()
            ready, returncode, output = await self._run_once(config)
            unready = 0 if ready else unready + 1
            if unready >= _STARTS:
                raise AgentProcessFailed(config.name, returncode, output)
            deaths = 1 if time.monotonic() - began > _STEADY else deaths + 1
            pause = _BACKOFF[min(deaths, len(_BACKOFF)) - 1]
            _log.warning("%s ended with %s; starting it again in %s s", config.name, _ending(returncode), pause)
            await anyio.sleep(pause)

    async def _run_once(self, config: ProcessConfig) -> tuple[bool, int | None, list[str]]:
        """Run the process to its end; return whether it got ready, its exit status and the end of what it wrote."""
        written: deque[str] = deque(maxlen=_LINES_KEPT)
        process = await _start(config, self._environment)
        self._running[config.name] = process
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_read_lines, process, config.name, written)
                ready = await _wait_ready(process)
                await process.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)
            self._running.pop(config.name, None)
        return ready, process.returncode, list(written)


@asynccontextmanager
async def supervised(
    configs: Sequence[ProcessConfig], environment: Mapping[str, str] = os.environ
) -> AsyncIterator[Supervisor]:
    """Keep a process for each of ``configs`` while the block runs; end them all on leaving, within ``GRACE`` and a bit.

    ``environment`` is the processes' whole environment.

    :raises AgentProcessFailed: in a group, when one of them never gets ready; the block is cancelled
    """
    supervisor = Supervisor(environment)
    async with anyio.create_task_group() as group:
        _keep_all(group, supervisor, configs)
        yield supervisor
        group.cancel_scope.cancel()


def _keep_all(group: TaskGroup, supervisor: Supervisor, configs: Sequence[ProcessConfig]) -> None:
    for config in configs:
        group.start_soon(supervisor.keep, config, name=f"keep {config.name}")


async def _start(config: ProcessConfig, environment: Mapping[str, str]) -> Process:
    command = [sys.executable, "-I", "-S", _tether.__file__, str(os.getpid())]
    command += [sys.executable, "-m", "interlock.runtime.process", config.name]  # the name is for who reads ps
    process = await anyio.open_process(command, env=dict(environment), start_new_session=True)
    if process.stdin is None:
        raise RuntimeError("a process was started without the pipe that was asked for")
    with contextlib.suppress(anyio.BrokenResourceError):  # it died at once: its exit status tells
        await process.stdin.send(config.model_dump_json(exclude_defaults=True).encode())
    await process.stdin.aclose()
    return process


async def _wait_ready(process: Process) -> bool:
    """Wait until the process says that it is ready, or ends without."""
    if process.stdout is None:
        return False
    with contextlib.suppress(anyio.EndOfStream):
        return bool(await process.stdout.receive(16))
    return False


async def _read_lines(process: Process, name: str, kept: deque[str]) -> None:
    """Pass on what the process writes to its standard error, line by line, and keep the end of it."""
    if process.stderr is None:
        return
    rest = b""
    async for chunk in process.stderr:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            kept.append(text)
            _log.warning("%s: %s", name, text)


async def _end(process: Process) -> None:
    """End the process and everything in its session that did not move to another."""
    _signal(process, signal.SIGTERM)
    with anyio.move_on_after(GRACE):
        await process.wait()
    _signal(process, signal.SIGKILL)
    await process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            await stream.aclose()


def _signal(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _ending(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        return signal.Signals(-returncode).name
    return f"exit status {returncode}"
