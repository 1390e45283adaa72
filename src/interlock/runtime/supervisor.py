"""The parent of every agent process on this host: starts them, starts them again, ends them.

It does nothing else, so that no agent's work can hold it up. Each process stands in a session of its own (Ctrl-C in the
terminal reaches the supervisor alone) and dies with the supervisor, even by ``kill -9``. It lives on a lease that the
supervisor renews, so it also ends when the supervisor was stopped, or cannot know whether all were killed.
"""

import logging
import os
import secrets
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, Process

from interlock.backends._tether import tethered
from interlock.runtime._family import Family, mark, sweep
from interlock.runtime._lease import lease_line
from interlock.runtime.config import LAST_WORD, ProcessConfig

__all__ = ["AgentProcessFailed", "Supervisor", "supervised"]

_log = logging.getLogger(__name__)

_LEEWAY = 0.1
"""Seconds by which a process's lease on its life is longer than the supervisor's word, to end by itself."""

_LOOK = 0.05
"""Seconds between two looks at what a process that is to end has below it."""

_BACKOFF = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds before a process that died is started again; the last is repeated."""

_BACKOFF_KILLED = 0.5
"""The most of these seconds where others killed it: its work waits for it, and it is at no fault."""

_STEADY = 10.0
"""Seconds of life after which a process that dies counts as having died for the first time."""

_STARTS = 3
"""How often in a row a process may fail by itself before the supervisor gives up."""

_KILLED_STARTS = 12
"""How often in a row it may be killed by others before it was ready."""

_READY_SECONDS = 60.0
"""How long a process may take until it is ready, on a machine that has a lot else to do."""

_DRAIN_SECONDS = 0.2
"""How long the outputs of a process that ended may stay open: whatever left its session can hold them for ever."""

_LAST_WORD = f"{LAST_WORD}\n".encode()
_LINES_KEPT = 20
_LINE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class _Patience:
    """How long a process that is told to end may take before it is killed."""

    word: float
    """Seconds until it says that its work is over."""
    end: float
    """Seconds from then on, to tell of its work."""


_USUAL = _Patience(word=0.5, end=0.3)
_KILLED = _Patience(word=0.03, end=0.2)
"""Who does not listen has his connections closed for him, by his death."""


class AgentProcessFailed(Exception):
    """An agent process that fails again and again."""

    def __init__(self, name: str, returncode: int | None, output: Sequence[str], times: int = _STARTS) -> None:
        self.name = name
        self.times = times
        """How often in a row."""
        self.returncode = returncode
        """Negative: the signal that ended it."""
        self.output = tuple(output)
        """The last lines that it wrote."""
        ending = f"{name} ended {times} times in a row, the last time with {_ending(returncode)}"
        super().__init__(f"{ending}; it said: {output[-1] if output else '(nothing)'}")


@dataclass(frozen=True, slots=True)
class _Life:
    """One life of a process."""

    ready: bool
    seconds: float
    returncode: int | None
    output: Sequence[str]
    """The last lines that it wrote."""
    killed: bool = False
    """Whether others killed it."""

    @property
    def failed(self) -> bool:
        """Whether it ended by its own fault: not ready, or given up soon after; who is killed is not at fault."""
        return not self.killed and (not self.ready or (self.seconds < _STEADY and (self.returncode or 0) > 0))

    @property
    def stillborn(self) -> bool:
        """Whether others killed it before it was ready: whatever does that may do it for ever."""
        return self.killed and not self.ready


class Supervisor:
    """Keeps agent processes running. Use ``supervised``."""

    def __init__(
        self, environment: Mapping[str, str], lease: float | None = None, hide: Callable[[str], str] = str
    ) -> None:
        self._hide = hide
        self._id = secrets.token_hex(8)
        self._environment = environment
        self._running: dict[str, Process] = {}
        self._families: dict[int, Family] = {}
        """Of those that were told to end, by pid."""
        self.ready: set[str] = set()
        """The names of those that said that they are ready, and live."""
        self._held: frozenset[str] = frozenset()
        self._changed = anyio.Event()
        self._until = None if lease is None else time.monotonic() + lease
        self._renewed = anyio.Event()
        self._stopped = False

    @property
    def pids(self) -> dict[str, int]:
        """The pid of each process that was started last, by its name."""
        return {name: process.pid for name, process in self._running.items()}

    def hold(self, agents: frozenset[str]) -> None:
        """End the processes of these agents and start them no more, until another call leaves them out."""
        if agents != self._held:
            self._held = agents
            self._tell_change()

    def renew(self, until: float) -> None:
        """Let the processes live until ``until``, by ``time.monotonic``; without a lease they live as they like."""
        if self._until is not None and until > self._until:
            self._until = until
            renewed, self._renewed = self._renewed, anyio.Event()
            renewed.set()

    def stop(self) -> None:
        """End all processes, at once, and start none any more; who does not listen is killed almost at once."""
        self._stopped = True
        running = [process for process in self._running.values() if process.returncode is None]
        for process in running:  # before it is told: what it has below it is out of sight once it has ended
            self._families[process.pid] = Family(process.pid).look()
        for process in running:
            _terminate(process)
        self._tell_change()

    def sweep(self) -> None:
        """Kill whatever its processes left behind."""
        _tell_swept(sweep(self._id))

    async def keep(self, config: ProcessConfig) -> None:
        """Run the process of ``config``, except while its agent is held, until cancelled.

        :raises AgentProcessFailed: it fails again and again
        """
        while True:
            held = self._is_held(config)
            changed = self._changed
            async with anyio.create_task_group() as group:
                if not held:
                    group.start_soon(self._keep_running, config)
                while self._is_held(config) is held:
                    await changed.wait()
                    changed = self._changed
                group.cancel_scope.cancel()
            if not (held or self._stopped):  # where all end there is one sweep for all
                _tell_swept(sweep(self._id, config.name))

    def _is_held(self, config: ProcessConfig) -> bool:
        return self._stopped or config.agent_name in self._held

    def _tell_change(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def _keep_running(self, config: ProcessConfig) -> None:
        """Run the process and run it again whenever it dies."""
        deaths = failures = stillborn = 0
        while True:
            life = await self._live(config)
            stillborn = stillborn + 1 if life.stillborn else 0
            failures = failures + 1 if life.failed else failures if life.stillborn else 0
            if failures >= _STARTS or stillborn >= _KILLED_STARTS:
                raise AgentProcessFailed(config.name, life.returncode, life.output, max(failures, stillborn))
            deaths = 1 if life.seconds > _STEADY else deaths + 1
            pause = min(_BACKOFF[min(deaths, len(_BACKOFF)) - 1], _BACKOFF_KILLED if life.killed else _BACKOFF[-1])
            _log.warning("%s ended with %s; starting it again in %s s", config.name, _ending(life.returncode), pause)
            await anyio.sleep(pause)

    async def _live(self, config: ProcessConfig) -> _Life:
        """Run the process to its end."""
        began, ready = time.monotonic(), False
        written: deque[str] = deque(maxlen=_LINES_KEPT)
        async with self._started(config) as process, anyio.create_task_group() as group:
            self._running[config.name] = process
            group.start_soon(_relay, process.stderr, config.name, written, self._hide)
            group.start_soon(self._tell, process.stdin, config)
            if ready := await _get_ready(process, config):
                self.ready.add(config.name)
                group.start_soon(_read_on, process.stdout)
                await process.wait()
                self.ready.discard(config.name)
            killed = process.returncode == -signal.SIGKILL  # nobody here has ended it yet
            await self._end(process, _USUAL)
            _tell_swept(sweep(self._id, config.name))
            group.cancel_scope.deadline = anyio.current_time() + _DRAIN_SECONDS
        return _Life(ready, time.monotonic() - began, process.returncode, tuple(written), killed)

    @asynccontextmanager
    async def _started(self, config: ProcessConfig) -> AsyncIterator[Process]:
        """Run the process while the block runs; whatever happens, it is ended."""
        command = tethered([sys.executable, "-m", "interlock.runtime.process", config.name])  # the name is for ps
        environment = mark(self._environment, self._id, config.name)
        with anyio.CancelScope(shield=True) as scope:  # cancelled halfway, it would be left without an owner
            process = await anyio.open_process(command, env=environment, start_new_session=True)
            try:
                scope.shield = False
                yield process
            finally:
                scope.shield = True
                await self._end(process, _KILLED if self._is_held(config) else _USUAL)
                await process.aclose()

    async def _end(self, process: Process, patience: _Patience) -> None:
        """End the process and everything below it, whatever session it moved to."""
        family = self._families.pop(process.pid, None) or Family(process.pid).look()
        _terminate(process)
        async with anyio.create_task_group() as group:
            group.start_soon(_look_at, family)
            with anyio.move_on_after(patience.word) as limit:
                async with anyio.create_task_group() as waiting:
                    waiting.start_soon(_extend, limit, process, patience)
                    await process.wait()
                    waiting.cancel_scope.cancel()
            group.cancel_scope.cancel()
        family.kill()
        await process.wait()

    async def _tell(self, stdin: ByteSendStream | None, config: ProcessConfig) -> None:
        """Tell the process what it is, and how long it may live."""
        if stdin is None:
            raise RuntimeError("a process was started without the pipe that was asked for")
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # it died: its exit status tells
            await stdin.send(config.model_dump_json(exclude_defaults=True).encode() + b"\n")
            while self._until is not None:
                await stdin.send(lease_line(self._until + _LEEWAY))
                await self._renewed.wait()
        await stdin.aclose()


@asynccontextmanager
async def supervised(
    configs: Sequence[ProcessConfig],
    environment: Mapping[str, str] = os.environ,
    *,
    lease: float | None = None,
    hide: Callable[[str], str] = str,
) -> AsyncIterator[Supervisor]:
    """Keep a process for each of ``configs`` while the block runs; end them all on leaving, within a second.

    ``environment`` is the processes' whole environment. With a ``lease`` they live for so many seconds, unless
    ``renew`` is called again and again. ``hide`` takes the secrets out of the lines that they write.

    :raises AgentProcessFailed: in a group, when one of them fails again and again; the block is cancelled
    """
    supervisor = Supervisor(environment, lease, hide)
    try:
        async with anyio.create_task_group() as group:
            for config in configs:
                group.start_soon(supervisor.keep, config, name=f"keep {config.name}")
            yield supervisor
            group.cancel_scope.cancel()
    finally:
        supervisor.sweep()


async def _get_ready(process: Process, config: ProcessConfig) -> bool:
    """Wait for the first word of the process; False when it has none, or not in time."""
    if process.stdout is None:
        raise RuntimeError("a process was started without the pipe that was asked for")
    with anyio.move_on_after(_READY_SECONDS), suppress(anyio.EndOfStream):
        return bool(await process.stdout.receive())
    with anyio.move_on_after(_USUAL.word):  # who closed his output is about to end
        await process.wait()
    if process.returncode is None:
        _log.warning("%s was not ready after %g s", config.name, _READY_SECONDS)
    return False


async def _read_on(stream: ByteReceiveStream | None) -> None:
    """Throw away what the process writes, so that it never waits for a reader."""
    if stream is not None:
        async for _ in stream:
            pass


async def _relay(stream: ByteReceiveStream | None, name: str, kept: deque[str], hide: Callable[[str], str]) -> None:
    """Pass on what the process writes to its standard error, line by line, and keep the end of it."""
    rest = b""
    if stream is None:
        return
    async for chunk in stream:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LINE_BYTES:
            lines, rest = [*lines, rest], b""
        for line in lines:
            _relay_line(line, name, kept, hide)
    if rest:
        _relay_line(rest, name, kept, hide)


def _relay_line(line: bytes, name: str, kept: deque[str], hide: Callable[[str], str]) -> None:
    text = hide(line.decode(errors="replace").rstrip())
    kept.append(text)
    _log.warning("%s: %s", name, text)


async def _look_at(family: Family) -> None:
    """Look again and again: what a process starts while it ends is below it only as long as it lives."""
    while True:
        await anyio.sleep(_LOOK)
        family.look()


async def _extend(limit: anyio.CancelScope, process: Process, patience: _Patience) -> None:
    """Once the process has said its last word, give it its time to end."""
    if process.stdout is None or process.returncode is not None:
        return
    heard = b""
    with suppress(anyio.EndOfStream):
        while not heard.endswith(_LAST_WORD):
            heard = (heard + await process.stdout.receive())[-len(_LAST_WORD) :]
        limit.deadline = anyio.current_time() + patience.end


def _tell_swept(number: int) -> None:
    if number:
        _log.warning("%d processes that agents had left behind were killed", number)


def _terminate(process: Process) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)


def _ending(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        return signal.Signals(-returncode).name
    return f"exit status {returncode}"
