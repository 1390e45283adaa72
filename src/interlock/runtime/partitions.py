"""Which partitions of the jobs a manager carries: the managers that are there share them, each by a lease.

It is for speed alone. Two managers that carry one job cannot harm it, since the broker refuses whatever was decided on
an outdated state; so leases are kept by clocks, and nobody waits for a vote.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup

from interlock.protocol.subjects import PARTITIONS
from interlock.runtime._state import StateStore, Value
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import BusError, NobodyListens
from interlock.runtime.failures import BROKER_AWAY

__all__ = ["Partitions"]

_log = logging.getLogger(__name__)

_LOOK = 0.5
"""Seconds between two looks at who is there and who has what, at most."""

_LEAVE_SECONDS = 1.0

_Own = Callable[[int], Awaitable[None]]


@dataclass(slots=True)
class _Held:
    """A partition that this manager works on."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)


class Partitions:
    """One manager's share of the partitions.

    Each manager tells every few moments that it is there; a lease names the manager that has a partition, and is good
    as long as that one is there. Who sees another's word unchanged for ``seconds`` by its own clock takes its
    partitions; who could not tell its own for so long stops by itself. So nothing depends on clocks being equal.
    """

    def __init__(self, bus: Bus, holder: str, seconds: float = 5.0) -> None:
        """``holder`` is this manager's name, a token of a subject that no other manager has."""
        self._state: StateStore = bus.state
        self._holder = holder
        self._seconds = seconds
        self._pause = min(_LOOK, seconds / 10)
        self._held: dict[int, _Held] = {}
        self._leases: dict[int, Value] = {}
        self._newest = -1
        self._words: dict[str, tuple[int, float]] = {}
        """Of each manager: its last word's sequence, and when that was first seen."""
        self._told = self._until = float("-inf")

    @property
    def held(self) -> frozenset[int]:
        """The partitions that are worked on right now."""
        return frozenset(self._held)

    async def run(self, own: _Own) -> None:
        """Keep a fair share of the partitions, with ``own`` running for each, until cancelled; then give them back.

        ``own(part)`` is cancelled when the partition is given to another manager or its lease ran out.

        :raises BusError: what no waiting will cure, such as missing permissions
        """
        try:
            async with anyio.create_task_group() as group:
                while True:
                    await self._look_in_time(group, own)
                    if time.monotonic() >= self._until and self._held:
                        _log.warning("manager %s could not tell that it is there; its partitions rest", self._holder)
                        await self._stop(self.held)
                    await anyio.sleep(self._pause)
        finally:
            with anyio.move_on_after(_LEAVE_SECONDS, shield=True), suppress(BusError):  # then others notice in time
                await self._leave()

    async def _look_in_time(self, group: TaskGroup, own: _Own) -> None:
        """Look once, for no longer than what is held may be held."""
        left = self._until - time.monotonic()
        with anyio.move_on_after(left if left > 0 else self._seconds):
            try:
                await self._look(group, own)
            except (*BROKER_AWAY, NobodyListens) as error:
                _log.info("partitions cannot be looked at: %s", error)

    async def _look(self, group: TaskGroup, own: _Own) -> None:
        await self._tell()
        present = await self._present()
        await self._read_leases()
        share = _share(present.index(self._holder), len(present))
        mine = {part for part in self._leases if self._holder_of(part) == self._holder}
        await self._stop(self.held - mine)
        for part in sorted(mine)[share:]:
            await self._give_back(part)
            mine.discard(part)
        free = [part for part in self._leases if part not in mine and self._holder_of(part) not in present]
        for part in _turned(free, present.index(self._holder), len(present))[: max(0, share - len(mine))]:
            if await self._swap(part, self._holder):
                mine.add(part)
        for part in sorted(mine - self.held):
            self._held[part] = held = _Held()
            group.start_soon(_work, held, own, part, name=f"partition {part}")

    async def _tell(self) -> None:
        """Say that this manager is there, a few times in the length of a lease."""
        now = time.monotonic()
        if now - self._told < self._seconds / 4:
            return
        await self._state.put(f"manager.{self._holder}", b"here", seconds=self._seconds + 1)
        self._told, self._until = now, now + self._seconds

    async def _present(self) -> list[str]:
        """Return the managers that are there, this one included, sorted."""
        now, words = time.monotonic(), await self._state.values("manager")
        before = self._words
        self._words = {
            holder: before[holder] if holder in before and before[holder][0] == word.seq else (word.seq, now)
            for holder, word in words.items()
        }
        there = {holder for holder, (_, since) in self._words.items() if now - since <= self._seconds}
        return sorted(there | {self._holder})

    async def _read_leases(self) -> None:
        """Read all leases, unless none was written since the last time."""
        newest = (await self._state.get("lease.>")).seq
        if newest != self._newest or not self._leases:
            self._leases = {part: await self._state.get(f"lease.{part}") for part in range(PARTITIONS)}
            self._newest = newest

    def _holder_of(self, part: int) -> str:
        return self._leases[part].body.decode(errors="replace")

    async def _swap(self, part: int, holder: str) -> bool:
        """Write a lease in the place of the one that was read; False where another manager was faster."""
        seq = await self._state.swap(f"lease.{part}", holder.encode(), self._leases[part].seq)
        if seq is None:
            return False
        self._leases[part] = Value(seq, holder.encode())
        return True

    async def _give_back(self, part: int) -> None:
        await self._stop({part})
        await self._swap(part, "")

    async def _stop(self, parts: Iterable[int]) -> None:
        """End the work on some partitions and wait until it has."""
        stopped = [held for part in tuple(parts) if (held := self._held.pop(part, None)) is not None]
        for held in stopped:
            held.scope.cancel()
        for held in stopped:
            await held.ended.wait()

    async def _leave(self) -> None:
        """Tell the others that this manager is gone, and so all that it had is free."""
        await self._state.put(f"manager.{self._holder}", b"", seconds=1)


async def _work(held: _Held, own: _Own, part: int) -> None:
    try:
        with held.scope:
            await own(part)
    finally:
        held.ended.set()


def _share(rank: int, managers: int) -> int:
    """Return how many partitions a manager has: all shares differ by one at most and make up the whole."""
    return PARTITIONS // managers + (rank < PARTITIONS % managers)


def _turned(parts: Sequence[int], rank: int, managers: int) -> list[int]:
    """Return ``parts`` in an order of this manager's own, so that several who take at once take different ones."""
    first = rank * len(parts) // managers
    return [*parts[first:], *parts[:first]]
