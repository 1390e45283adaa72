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
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, Process

from interlock.backends._tether import tethered
from interlock.runtime._family import Family, mark, sweep
from interlock.runtime._talk import Talk, Wishes, relay
from interlock.runtime.config import LAST_WORD, ProcessConfig

__all__ = ["AgentProcessFailed", "Supervisor", "supervised"]

_log = logging.getLogger(__name__)

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

_LET_GO = 0.4
"""Seconds that a process has to let go of what it has in hand of a killed job; then it is killed itself."""

_DRAIN_SECONDS = 0.2
"""How long the outputs of a process that ended may stay open: whatever left its session can hold them for ever."""

_LAST_WORD = f"{LAST_WORD}\n".encode()
_LINES_KEPT = 20


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
        self,
        environment: Mapping[str, str],
        lease: float | None = None,
        hide: Callable[[str], str] = str,
        *,
        gives_up: bool = True,
        names: Collection[str] = (),
    ) -> None:
        self._hide = hide
        self._gives_up = gives_up
        self._id = secrets.token_hex(8)
        self._environment = environment
        self._running: dict[str, Process] = {}
        self._families: dict[int, Family] = {}
        """Of those that were told to end, by pid."""
        self.ready: set[str] = set()
        """The names of those that said that they are ready, and live."""
        self._held: frozenset[str] | None = frozenset()
        self._changed = anyio.Event()
        self._wishes = Wishes(None if lease is None else time.monotonic() + lease)
        self._talks: dict[str, Talk] = {}
        self._kept = set(names)
        """Of the processes that are kept running, or held."""
        self._stopped = False

    @property
    def pids(self) -> dict[str, int]:
        """The pid of each process that was started last, by its name."""
        return {name: process.pid for name, process in self._running.items()}

    @property
    def in_hand(self) -> int:
        """How many messages the processes work on, as far as they have said."""
        return sum(talk.in_hand for talk in self._talks.values())

    def hold(self, agents: frozenset[str] | None) -> None:
        """End the processes of these agents and start them no more, until another call leaves them out.

        An agent is named by its name or its role, ``agent@team``; None holds everything, managers too.
        """
        if agents != self._held:
            self._held = agents
            self._tell_change()

    def kill_jobs(self, jobs: frozenset[str]) -> None:
        """Have what is in hand of these jobs let go of at once, and nothing of them begun, until another call.

        Who does not let go in time is killed, with all that it has in hand. Needs a lease.
        """
        if jobs != self._wishes.killed:
            self._wishes.killed = jobs
            self._wishes.tell()

    def drain(self) -> None:
        """Have the processes take nothing more and end once all is done that they have in hand. Needs a lease."""
        self._wishes.draining = True
        self._wishes.tell()
        self._tell_change()

    async def drained(self) -> None:
        """Wait until all processes have ended that were told to drain."""
        while self._kept:
            await self._changed.wait()

    def renew(self, until: float) -> None:
        """Let the processes live until ``until``, by ``time.monotonic``; without a lease they live as they like."""
        if self._wishes.until is not None and until > self._wishes.until:
            self._wishes.until = until
            self._wishes.tell()

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
        """Run the process of ``config``, except while its agent is held, until cancelled or drained.

        :raises AgentProcessFailed: it fails again and again
        """
        while config.name in self._kept:
            held = self._is_held(config)
            changed = self._changed
            async with anyio.create_task_group() as group:
                if not held:
                    group.start_soon(self._keep_running, config)
                while self._is_held(config) is held and config.name in self._kept:
                    if held and self._wishes.draining:  # it has nothing to end
                        self._let_end(config)
                        break
                    await changed.wait()
                    changed = self._changed
                group.cancel_scope.cancel()
            if not (held or self._stopped):  # where all end there is one sweep for all
                _tell_swept(sweep(self._id, config.name))

    def _is_held(self, config: ProcessConfig) -> bool:
        if self._stopped or self._held is None:
            return True
        return not self._held.isdisjoint((config.agent_name, f"{config.agent_name}@{config.team}"))

    def _let_end(self, config: ProcessConfig) -> None:
        """Keep this one no more: it was drained."""
        self._kept.discard(config.name)
        self._tell_change()

    def _tell_change(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def _keep_running(self, config: ProcessConfig) -> None:
        """Run the process and run it again whenever it dies, until it was drained."""
        deaths = failures = stillborn = 0
        while not self._wishes.draining:
            life = await self._live(config)
            if self._wishes.draining:
                break
            stillborn = stillborn + 1 if life.stillborn else 0
            failures = failures + 1 if life.failed else failures if life.stillborn else 0
            if self._gives_up and (failures >= _STARTS or stillborn >= _KILLED_STARTS):
                raise AgentProcessFailed(config.name, life.returncode, life.output, max(failures, stillborn))
            deaths = 1 if life.seconds > _STEADY else deaths + 1
            pause = min(_BACKOFF[min(deaths, len(_BACKOFF)) - 1], _BACKOFF_KILLED if life.killed else _BACKOFF[-1])
            _log.warning("%s ended with %s; starting it again in %s s", config.name, _ending(life.returncode), pause)
            await anyio.sleep(pause)
        self._let_end(config)

    async def _live(self, config: ProcessConfig) -> _Life:
        """Run the process to its end."""
        began, ready, killed = time.monotonic(), False, False
        written: deque[str] = deque(maxlen=_LINES_KEPT)
        told = config.model_dump_json(exclude_defaults=True).encode()
        async with self._started(config) as process, anyio.create_task_group() as group:
            self._running[config.name] = process
            talk = self._talks[config.name] = Talk()
            stdin, stdout = _pipes(process)
            group.start_soon(relay, process.stderr, config.name, written, self._hide)
            group.start_soon(talk.tell, stdin, told, self._wishes)
            try:
                if ready := bool(first := await _get_ready(stdout, process, config)):
                    self.ready.add(config.name)
                    group.start_soon(talk.listen, stdout, first)
                    group.start_soon(_insist, talk, process, config)
                    await process.wait()
            finally:
                self.ready.discard(config.name)
                talk.in_hand = 0
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


@asynccontextmanager
async def supervised(
    configs: Sequence[ProcessConfig],
    environment: Mapping[str, str] = os.environ,
    *,
    lease: float | None = None,
    hide: Callable[[str], str] = str,
    gives_up: bool = True,
) -> AsyncIterator[Supervisor]:
    """Keep a process for each of ``configs`` while the block runs; end them all on leaving, within a second.

    ``environment`` is the processes' whole environment. With a ``lease`` they live for so many seconds, unless
    ``renew`` is called again and again. ``hide`` takes the secrets out of the lines that they write. Where it never
    ``gives_up``, a process that fails is started again however often it does.

    :raises AgentProcessFailed: in a group, when one of them fails again and again; the block is cancelled
    """
    supervisor = Supervisor(environment, lease, hide, gives_up=gives_up, names=[config.name for config in configs])
    try:
        async with anyio.create_task_group() as group:
            for config in configs:
                group.start_soon(supervisor.keep, config, name=f"keep {config.name}")
            yield supervisor
            group.cancel_scope.cancel()
    finally:
        supervisor.sweep()


def _pipes(process: Process) -> tuple[ByteSendStream, ByteReceiveStream]:
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("a process was started without the pipes that were asked for")
    return process.stdin, process.stdout


async def _get_ready(stdout: ByteReceiveStream, process: Process, config: ProcessConfig) -> bytes:
    """Return the first words of the process; nothing when it has none, or not in time."""
    with anyio.move_on_after(_READY_SECONDS), suppress(anyio.EndOfStream):
        return await stdout.receive()
    with anyio.move_on_after(_USUAL.word):  # who closed his output is about to end
        await process.wait()
    if process.returncode is None:
        _log.warning("%s was not ready after %g s", config.name, _READY_SECONDS)
    return b""


async def _insist(talk: Talk, process: Process, config: ProcessConfig) -> None:
    """Kill the process if it does not let go in time of what it is told to."""
    while True:
        await talk.until_owing()
        with anyio.move_on_after(_LET_GO):
            await talk.until_paid()
        if talk.owes:
            _log.warning("%s did not let go of killed jobs (%s); killing it", config.name, ", ".join(sorted(talk.owes)))
            Family(process.pid).look().kill()
            return


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
