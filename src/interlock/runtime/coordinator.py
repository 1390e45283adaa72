"""The manager: finds the jobs that are open in the log and keeps each of them going, beside each other.

A coordinator owns nothing: it may die at any point, and several may work on the same jobs. It reads the jobs' own
chains, a few entries each, and follows all of a job only while that is open.
"""

import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup

from interlock.observability.tracing import Tracing
from interlock.protocol.control import Control
from interlock.protocol.lineage import is_within
from interlock.protocol.messages import JobClosed, JobRetried, JobSubmitted
from interlock.protocol.shares import WEIGHTS, Wish, shares
from interlock.protocol.state import Entry
from interlock.protocol.subjects import PARTITIONS, job_chains, partition_of, submitted_subject
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import BusError
from interlock.runtime.carrying import new_id, utc_now
from interlock.runtime.controlwatch import ControlWatch
from interlock.runtime.endings import TAKEN_OVER
from interlock.runtime.failures import BROKER_AWAY, first_error
from interlock.runtime.keeper import Keeper
from interlock.runtime.proposing import Proposers
from interlock.runtime.received import Received

__all__ = ["Coordinator", "Lease", "Rooms"]

_log = logging.getLogger(__name__)

_PAUSES = (1.0, 5.0, 30.0)
"""Seconds before a job is taken up again over which its keeper failed; the last is repeated."""

_LOOK_AT_ROOM = 2.0
"""Seconds between two looks at how many agents there are."""

_AHEAD = 2
"""How many times the agents' places the open tasks of all jobs may be: what waits already need not be waited for."""

Rooms = Callable[[], Awaitable[Mapping[str, int]]]
"""Returns how many tasks the workers of each team can have in hand together."""


Lease = Callable[[Callable[[int], Coroutine[Any, Any, None]]], Coroutine[Any, Any, None]]
"""Calls what it is given for each partition that is leased to this manager, and cancels it when that is lost."""


async def _unknown_rooms() -> Mapping[str, int]:
    return {}


@dataclass(frozen=True, slots=True)
class _Open:
    """An open job, as its own chain tells of it."""

    since: int
    """Where its log begins."""
    moved: int
    """What made it open: where it was submitted, or put back last."""
    team: str
    wish: Wish


@dataclass(frozen=True, slots=True)
class _Ended:
    """A job that is over, as its own chain tells of it."""

    since: int
    """Where its log begins."""
    at: datetime


@dataclass(slots=True)
class _Kept:
    """A job that is kept going here."""

    keeper: Keeper
    scope: anyio.CancelScope


class Coordinator:
    """Carries jobs to their end."""

    def __init__(
        self,
        bus: Bus,
        tracing: Tracing,
        *,
        rooms: Rooms = _unknown_rooms,
        proposers: Proposers | None = None,
        now: Callable[[], datetime] = utc_now,
        new_id: Callable[[], str] = new_id,
    ) -> None:
        self._bus = bus
        self._tracing = tracing
        self._now = now
        self._rooms = rooms
        self._room: Mapping[str, int] = {}
        self._control = ControlWatch(bus.orders)
        self._make = partial(Keeper, bus, tracing, control=self._control, proposers=proposers, now=now, new_id=new_id)
        self._open: dict[str, _Open] = {}
        """All open jobs of the namespace: those kept elsewhere too, since they share the same agents."""
        self._kept: dict[str, _Kept] = {}
        self._windows: dict[str, int] = {}
        self._parts: set[int] = set()
        self._group: TaskGroup | None = None
        self._caught_up = False
        self._tree: str | None = None
        """The job that all others are within which are kept here; None: there are no bounds."""
        self._ended: dict[str, _Ended] = {}
        """Jobs that another manager has ended of late; unless spans are written, none."""
        self._orphans: dict[str, str] = {}
        """Why open jobs must end that were a part of one which is over."""

    async def run(
        self, only: str | None = None, ready: Callable[[], None] = lambda: None, *, tree: bool = False
    ) -> None:
        """Work on every job of the namespace until cancelled, or on one until it is over.

        With ``tree`` also on the jobs within that one, until cancelled.

        ``ready`` is called once the log is followed.

        :raises BusError: what no waiting will cure, such as missing permissions; in a group
        """
        if only is None or tree:
            self._tree = only
            self._parts = set(range(PARTITIONS))
            await self._run_all(ready)
            return
        keeper = self._make(job=only)
        async with anyio.create_task_group() as group:
            group.start_soon(self._control.run, keeper.look_again)
            await keeper.run(ready=ready)
            group.cancel_scope.cancel()

    async def run_leased(self, lease: Lease, ready: Callable[[], None]) -> None:
        """Work on the jobs of those partitions that ``lease`` hands to what it is given, for as long as it lets them.

        :raises BusError: what no waiting will cure, such as missing permissions; in a group
        """
        async with anyio.create_task_group() as group:
            group.start_soon(lease, self._own)
            await self._run_all(ready)

    async def _own(self, part: int) -> None:
        """Work on the jobs of a partition until cancelled."""
        self._parts.add(part)
        self._keep_all()
        try:
            await anyio.sleep_forever()
        finally:
            self._parts.discard(part)
            for job in [job for job in self._kept if partition_of(job) == part]:
                self._kept.pop(job).scope.cancel()

    async def _run_all(self, ready: Callable[[], None]) -> None:
        await self._look_at_room()  # before anything is begun
        async with anyio.create_task_group() as group:
            self._group = group
            group.start_soon(self._control.run, self._look_again)
            group.start_soon(self._watch_room)
            async with self._bus.follow([job_chains(self._bus.ns)], await self._beginning()) as batches:
                ready()
                async for batch in batches:
                    for entry in batch.entries:
                        await self._hear(entry)
                    self._caught_up = self._caught_up or not batch.pending
                    self._share()
                    self._keep_all()

    async def _beginning(self) -> int:
        """Return where the log begins of what is kept here."""
        first = await self._first(self._tree) if self._tree is not None else None
        return first.seq if first else 1

    async def _hear(self, entry: Entry) -> None:
        """Note which jobs are open."""
        if self._tree is not None and not is_within(entry.message.job, self._tree):
            return
        match entry.message:
            case JobSubmitted() as submitted:
                if submitted.parent is not None and submitted.parent not in self._open:
                    self._orphans[submitted.job] = _orphaned(submitted.parent)
                self._open[submitted.job] = _open(submitted, entry.seq, entry.seq)
            case JobRetried() as retried:
                first = await self._first(retried.job)
                if first is not None and isinstance(first.message, JobSubmitted):
                    if first.message.parent is not None and first.message.parent not in self._open:
                        self._orphans[retried.job] = _orphaned(first.message.parent)
                    self._open[retried.job] = _open(first.message, first.seq, entry.seq)
            case JobClosed() as closed:
                self._note_ended(closed, self._open.pop(closed.job, None))
                self._orphans.pop(closed.job, None)
                self._end_within(closed.job)
            case _:
                pass

    def _note_ended(self, closed: JobClosed, known: _Open | None) -> None:
        """Note a job that another manager has ended, whose spans may die with that."""
        if known is None or closed.job in self._kept or not self._tracing.enabled:
            return
        latest = self._now() - TAKEN_OVER
        self._ended = {job: ended for job, ended in self._ended.items() if ended.at > latest}
        self._ended[closed.job] = _Ended(known.since, closed.at)

    def _end_within(self, over: str) -> None:
        """Have the open jobs end that are within one that is over."""
        for job in self._open:
            if is_within(job, over):
                self._orphans[job] = _orphaned(over)
                if job in self._kept:
                    self._kept[job].keeper.look_again()

    async def _first(self, job: str) -> Received | None:
        """Return the first entry of a job, however long the broker is away."""
        while True:
            try:
                return await self._bus.last(submitted_subject(self._bus.ns, job))
            except BROKER_AWAY:
                await self._bus.wait_connected()

    def _keep_all(self) -> None:
        """Begin to keep the open jobs of the own partitions that are not kept yet."""
        if not self._caught_up or self._group is None:  # what looks open may be closed further on in the log
            return
        for job, known in self._open.items():
            if partition_of(job) in self._parts and job not in self._kept:
                self._kept[job] = kept = _Kept(self._keeper_of(job), anyio.CancelScope())
                self._group.start_soon(self._keep, job, kept, known.since)
        for job in [job for job in self._ended if partition_of(job) in self._parts]:
            ended = self._ended.pop(job)
            if job not in self._open and self._now() - ended.at < TAKEN_OVER:
                self._group.start_soon(self._tell_again, job, ended.since)

    async def _keep(self, job: str, kept: _Kept, since: int) -> None:
        """Keep a job going until it is over and not put back."""
        try:
            with kept.scope:
                while (known := self._open.get(job)) is not None:
                    ended = await self._persistently(job, kept, since)
                    if known.moved <= ended and self._open.get(job) is known:  # what was heard of it is older than that
                        del self._open[job]
                    kept.keeper = self._keeper_of(job)
        finally:
            if self._kept.get(job) is kept:
                del self._kept[job]

    async def _tell_again(self, job: str, since: int) -> None:
        """Have a keeper read a job that is over: it writes the spans. One that is archived meanwhile has none."""
        with anyio.move_on_after(TAKEN_OVER.total_seconds()):
            await self._persistently(job, _Kept(self._keeper_of(job), anyio.CancelScope()), since)

    async def _persistently(self, job: str, kept: _Kept, since: int) -> int:
        """Run the keeper of a job and return where the job was closed; a job that it fails over holds up no other."""
        failures = 0
        while True:
            try:
                return await kept.keeper.run(since)
            except Exception as error:
                cause = first_error(error)
                if isinstance(cause, BusError):  # that is no matter of this job
                    raise
                pause = _PAUSES[min(failures, len(_PAUSES) - 1)]
                _log.exception("job %s cannot be carried on and is taken up again in %g s", job, pause)
                await anyio.sleep(pause)
                failures += 1
                kept.keeper = self._keeper_of(job)

    def _keeper_of(self, job: str) -> Keeper:
        return self._make(job=job, window=partial(self._windows.get, job), control=_Bound(self._control, self._orphans))

    def _look_again(self) -> None:
        for kept in self._kept.values():
            kept.keeper.look_again()

    async def _watch_room(self) -> None:
        while True:
            await anyio.sleep(_LOOK_AT_ROOM)
            await self._look_at_room()

    async def _look_at_room(self) -> None:
        """See how many agents there are; while the broker is away that stays as it was."""
        with suppress(*BROKER_AWAY):
            room = await self._rooms()
            if room != self._room:
                self._room = room
                self._share()

    def _share(self) -> None:
        """Share the workers of each team out between its open jobs; alone, a job is bound by its own limit only."""
        windows: dict[str, int] = {}
        for team, wishes in _by_team(self._open).items():
            if len(wishes) > 1 and team in self._room:
                windows |= shares(wishes, self._room[team] * _AHEAD)
        grown = [job for job in self._kept if windows.get(job) != self._windows.get(job)]
        self._windows.clear()
        self._windows.update(windows)
        for job in grown:
            self._kept[job].keeper.look_again()


@dataclass(frozen=True, slots=True)
class _Bound:
    """What a keeper heeds: what operators lay down, and that its job ends with the one that it is a part of."""

    watch: ControlWatch
    orphans: Mapping[str, str]

    @property
    def control(self) -> Control:
        """Orders and policy as they are now."""
        return self.watch.control

    @property
    def known(self) -> anyio.Event:
        """Set once they are known."""
        return self.watch.known

    def stops(self, submitted: JobSubmitted, /) -> str | None:
        """Return why a job must end, where it must."""
        return self.watch.stops(submitted) or self.orphans.get(submitted.job)


def _orphaned(parent: str) -> str:
    return f"job {parent}, which it was a part of, is over"


def _open(submitted: JobSubmitted, since: int, moved: int) -> _Open:
    team = submitted.team
    return _Open(since, moved, team.team, Wish(team.limits.open, WEIGHTS[submitted.priority]))


def _by_team(jobs: Mapping[str, _Open]) -> Mapping[str, Mapping[str, Wish]]:
    """Return what the jobs wish, by the team whose workers they want."""
    wishes: dict[str, dict[str, Wish]] = {}
    for job, known in jobs.items():
        wishes.setdefault(known.team, {})[job] = known.wish
    return wishes
