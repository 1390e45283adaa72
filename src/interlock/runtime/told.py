"""What a process is told while it runs: to drain, and which jobs are killed. It answers for what it has in hand."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio

from interlock.protocol.lineage import is_within
from interlock.runtime._talk import DRAIN, DROPPED, IN_HAND, KILL, SPARE

__all__ = ["Told"]

_log = logging.getLogger(__name__)

_PACE = 0.25
"""Seconds between two words about how much is in hand, at least."""


class Told:
    """What this process was told, and what it has in hand. ``say`` passes a line on to the supervisor."""

    def __init__(self, say: Callable[[str], None] = lambda _: None) -> None:
        self.draining = anyio.Event()
        """Set once nothing more is to be taken."""
        self.in_hand = 0
        """How many messages are worked on."""
        self._say = say
        self._killed: set[str] = set()
        self._begun: dict[str, set[anyio.CancelScope]] = {}
        """By job: around each message that is worked on."""
        self._changed = anyio.Event()

    def hear(self, words: str) -> None:
        """Take in a line of the supervisor's; one that a newer version says is logged and left at that."""
        match words.split():
            case [word] if word == DRAIN:
                self.draining.set()
            case [word, job] if word == KILL:
                self._kill(job)
            case [word, job] if word == SPARE:
                self._killed.discard(job)
            case _:
                _log.warning("the supervisor says what is not known here: %s", words)

    @contextmanager
    def work(self, job: str) -> Iterator[anyio.CancelScope]:
        """Have a message of a job in hand inside the block, which is cancelled when the job is killed."""
        scope = anyio.CancelScope()
        self._begun.setdefault(job, set()).add(scope)
        self._count(1)
        if any(is_within(job, killed) for killed in self._killed):
            scope.cancel()
        try:
            with scope:
                yield scope
        finally:
            self._end(job, scope)

    async def report(self) -> None:
        """Say again and again how much is in hand, whenever that has changed."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            self._say(f"{IN_HAND} {self.in_hand}")
            await anyio.sleep(_PACE)

    def _kill(self, job: str) -> None:
        self._killed.add(job)
        for scope in [scope for one, scopes in self._begun.items() if is_within(one, job) for scope in scopes]:
            scope.cancel()
        self._tell_dropped(job)

    def _end(self, job: str, scope: anyio.CancelScope) -> None:
        self._begun[job].discard(scope)
        self._count(-1)
        if not self._begun[job]:
            del self._begun[job]
            for killed in self._killed:
                if is_within(job, killed):
                    self._tell_dropped(killed)

    def _tell_dropped(self, killed: str) -> None:
        """Say that nothing is in hand any more of a killed job and of those within it, once that is so."""
        if not any(is_within(one, killed) for one in self._begun):
            self._say(f"{DROPPED} {killed}")

    def _count(self, more: int) -> None:
        self.in_hand += more
        self._changed.set()
