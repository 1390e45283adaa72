"""Who is there, and which teams: asked for at the broker at most once a second, however many ask here."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import anyio

from interlock.protocol.base import Name
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import BusError
from interlock.runtime.presence import Presence, PublishedTeam

__all__ = ["Roster", "There"]

_FRESH = 1.0
"""Seconds for which an answer is good."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class There:
    """Who is there."""

    broker: bool
    """Whether it answers."""
    manager: bool = False
    teams: frozenset[Name] = frozenset()
    """Those that agents are there of."""


class _Remembered(Generic[_Answer]):
    """An answer, good for a moment."""

    def __init__(self, ask: Callable[[], Awaitable[_Answer]]) -> None:
        self._ask = ask
        self._answer: tuple[_Answer] | None = None
        self._asked = 0.0
        self._lock = anyio.Lock()

    async def get(self) -> _Answer:
        async with self._lock:
            if self._answer is None or time.monotonic() - self._asked > _FRESH:
                asked = time.monotonic()
                self._answer, self._asked = (await self._ask(),), asked
            return self._answer[0]


class Roster:
    """Who is there in the namespace of a bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._presence = Presence(bus)
        self._teams = _Remembered(self._ask_teams)
        self._there = _Remembered(self._ask_there)

    async def teams(self) -> Mapping[Name, PublishedTeam]:
        """Return the teams as they were last brought up, by name.

        :raises BusError: the broker is out of reach
        """
        return await self._teams.get()

    async def there(self) -> There:
        """Return who is there, also where the broker does not answer."""
        return await self._there.get()

    async def _ask_teams(self) -> Mapping[Name, PublishedTeam]:
        return {one.team.team: one for one in await self._presence.teams()}

    async def _ask_there(self) -> There:
        if not self._bus.is_connected:
            return There(broker=False)
        try:
            nodes = [node for node in await self._presence.nodes() if not node.draining]
        except BusError:
            return There(broker=False)
        served = [one for node in nodes for one in node.serves]
        manager = any(one.kind == "manager" for one in served)
        teams = frozenset(one.role.rpartition("@")[2] for one in served if one.kind != "manager")
        return There(broker=True, manager=manager, teams=teams)
