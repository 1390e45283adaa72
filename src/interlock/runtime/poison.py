"""Messages over which processes die: they are worked on alone, and after a few such deaths not at all any more.

Who dies takes all along that he has in hand, so how often a message was delivered says little of it. A message that was
delivered often is suspect: it is worked on with nothing else in hand, and only what dies then died over it. How many
did stands beside the log, so that every machine knows.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import anyio

from interlock.protocol.base import Role
from interlock.runtime._state import StateStore
from interlock.runtime.bus_errors import BusError
from interlock.runtime.chain import patiently

__all__ = ["MAX_DEATHS", "SUSPECT", "Deaths", "Turnstile"]

SUSPECT = 5
"""At which delivery a message is worked on alone: four that had it before ended. What waits meanwhile is begun later:
where many processes are killed by chance, few messages should be suspect."""

MAX_DEATHS = 16
"""How many processes may end over a message alone before it is answered as failed. Where a process of a role is killed
from outside each second and three are there, two in three attempts of some seconds end so: with less, chance alone
takes one message in a thousand for poison. One that is to blame costs two minutes, in which all else goes on."""

_REMEMBERED = 24 * 3600.0
"""Seconds for which a death is remembered."""

_FORGIVE_SECONDS = 1.0


class Turnstile:
    """Lets in any number at once, or one alone, who goes first."""

    def __init__(self) -> None:
        self._inside = 0
        self._suspects = 0
        """How many wait to be alone or are."""
        self._changed = anyio.Event()

    @asynccontextmanager
    async def enter(self, *, alone: bool) -> AsyncIterator[None]:
        """Wait for a place inside and hold it while the block runs; ``alone``, until everybody else has left."""
        self._suspects += alone
        try:
            while self._inside if alone else self._suspects:
                await self._changed.wait()
            self._inside += 1
            try:
                yield
            finally:
                self._inside -= 1
        finally:
            self._suspects -= alone
            if alone or self._suspects:  # otherwise nobody waits
                self._changed.set()
                self._changed = anyio.Event()


class Deaths:
    """How many processes of a role ended over a message that they had alone."""

    def __init__(self, state: StateStore, role: Role) -> None:
        self._state = state
        self._role = role

    async def over(self, seq: int) -> int:
        """Return how many ended over the message with this sequence in the log, however long the broker is away."""
        value = await patiently(partial(self._state.get, self._key(seq)))
        return int(value.body or b"0")

    @asynccontextmanager
    async def counted(self, seq: int, before: int) -> AsyncIterator[None]:
        """Count one more than ``before`` if this process ends inside the block without leaving it."""
        try:
            await self._write(seq, before + 1)
            yield
        except BaseException:  # it was told to stop, or it failed in words: it did not die
            with anyio.move_on_after(_FORGIVE_SECONDS, shield=True), suppress(BusError):
                await self._write(seq, before)
            raise

    async def _write(self, seq: int, deaths: int) -> None:
        await patiently(partial(self._state.put, self._key(seq), b"%d" % deaths, seconds=_REMEMBERED))

    def _key(self, seq: int) -> str:
        return f"alone.{self._role}.{seq}"
