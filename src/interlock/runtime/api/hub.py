"""The hub: one follow of the log for each job that is watched, for any number of watchers.

What came lately is kept for all of them together, within a budget of bytes. A watcher who has fallen behind that, or
begins before it, reads the log by himself until he is there again: a slow one costs no memory and misses nothing.
"""

import logging
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from interlock.protocol.messages import JobClosed, JobRetried
from interlock.protocol.state import Entry
from interlock.protocol.subjects import chain_subjects, job_subjects
from interlock.runtime.api.events import Event, event_of
from interlock.runtime.bus import Bus

__all__ = ["Hub", "Watch"]

_log = logging.getLogger(__name__)

_BUDGET = 64 * 1024 * 1024
"""Bytes that all that is kept may take together."""

_LEAST = 256 * 1024
_MOST = 8 * 1024 * 1024
"""Bytes that are kept of one job."""

_GLANCE = 0.05
"""Seconds between two looks at a job: what comes meanwhile is read in one go."""

_PATIENCE = 1.0
"""Seconds that a follow which has no room waits for its slowest watcher to move on."""

_BEHIND = 4
"""How many watchers read the log by themselves at once."""

_CHUNK = 512
"""The most events that such a one holds at once."""


class Watch:
    """The events of one job for one watcher, until the job is over and all of them were given."""

    def __init__(self, batches: AsyncGenerator[Sequence[Event], None]) -> None:
        self.batches = batches
        """The same, as many at a time as there are."""

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yield the events in the order of the log.

        :raises BusError: the broker does not let these credentials read, or is away for good
        """
        async for batch in self.batches:
            for event in batch:
                yield event


class Hub:
    """All that is watched. Use ``Hub.open``."""

    def __init__(self, bus: Bus, group: TaskGroup, budget: int) -> None:
        self._bus = bus
        self._group = group
        self._budget = budget
        self._feeds: dict[str, _Feed] = {}
        self._behind = anyio.CapacityLimiter(_BEHIND)

    @classmethod
    @asynccontextmanager
    async def open(cls, bus: Bus, *, budget: int = _BUDGET) -> "AsyncIterator[Hub]":
        """Keep a hub while the block runs."""
        async with anyio.create_task_group() as group:
            yield cls(bus, group, budget)
            group.cancel_scope.cancel()

    @property
    def follows(self) -> int:
        """How many jobs are followed right now."""
        return len(self._feeds)

    @property
    def held(self) -> int:
        """How many bytes of events are kept right now."""
        return sum(feed.size for feed in self._feeds.values())

    @asynccontextmanager
    async def watching(self, job: str, after: int = 0, *, idle: float | None = None) -> AsyncIterator[Watch]:
        """Watch a job from the entry on that comes after the stream sequence ``after``; 0: from its beginning.

        The job must be in the log. The events end once it is over and the last of them was given. Where nothing happens
        for ``idle`` seconds an empty batch says so.

        :raises BusError: the broker is out of reach
        """
        after = min(after, await self._last(job))
        feed = self._feeds.get(job)
        if feed is None:
            feed = self._feeds[job] = _Feed(self._bus, job, after)
            self._group.start_soon(feed.run)
        watcher = _Watcher(after, idle)
        feed.watchers.add(watcher)
        self._share()
        try:
            async with aclosing(feed.batches(watcher, self._behind)) as batches:
                yield Watch(batches)
        finally:
            feed.watchers.discard(watcher)
            if not feed.watchers:
                feed.scope.cancel()
                if self._feeds.get(job) is feed:
                    del self._feeds[job]
            self._share()

    async def is_over(self, job: str, after: int) -> bool:
        """Return whether a job is over and nothing of it comes after the stream sequence ``after``.

        :raises BusError: the broker is out of reach
        """
        if await self._last(job) > after:
            return False
        head = await self._bus.last(chain_subjects(self._bus.ns, job))
        return head is not None and isinstance(head.message, JobClosed)

    async def _last(self, job: str) -> int:
        last = await self._bus.last(job_subjects(self._bus.ns, job))
        return last.seq if last else 0

    def _share(self) -> None:
        each = min(_MOST, max(min(_LEAST, self._budget), self._budget // max(1, len(self._feeds))))
        for feed in self._feeds.values():
            feed.limit = each


class _Watcher:
    """How far somebody is."""

    __slots__ = ("idle", "is_behind", "seen")

    def __init__(self, seen: int, idle: float | None) -> None:
        self.idle = idle
        self.seen = seen
        """The stream sequence up to which he was given everything."""
        self.is_behind = False
        """Whether he reads by himself."""


class _Feed:
    """One job that is followed."""

    def __init__(self, bus: Bus, job: str, after: int) -> None:
        self._bus = bus
        self._job = job
        self._events: list[Event] = []
        self._front = after
        """What comes after this stream sequence, as far as it was seen, is in ``_events``."""
        self._seen = after
        self._over = False
        self._caught_up = False
        self._failure: BaseException | None = None
        self._changed = anyio.Event()
        self._moved = anyio.Event()
        self.size = 0
        self.limit = _MOST
        self.watchers: set[_Watcher] = set()
        self.scope = anyio.CancelScope()

    async def run(self) -> None:
        """Follow the job until nobody watches it any more."""
        with self.scope:
            try:
                await self._follow()
            except Exception as error:  # noqa: BLE001 -- it is raised again in each watcher
                self._failure = error
                self._tell()

    async def batches(self, watcher: _Watcher, behind: anyio.CapacityLimiter) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the events after what the watcher has seen.

        :raises BusError: the broker does not let these credentials read, or is away for good
        """
        while True:
            if watcher.seen < self._front:
                watcher.is_behind = True
                async with behind:
                    events, watcher.seen = await self._read(watcher.seen)
            else:
                watcher.is_behind = False
                events, watcher.seen = self._events[self._place(watcher.seen) :], max(watcher.seen, self._seen)
                self._tell_moved()
            if events:
                yield events
            elif watcher.seen < self._front:
                continue
            elif self._failure is not None:
                raise self._failure
            elif self._over and self._caught_up:
                return
            elif watcher.seen >= self._seen and not await self._changes(watcher.idle):
                yield ()

    async def _changes(self, idle: float | None) -> bool:
        """Wait until something happens, for at most so many seconds; return whether it did."""
        with anyio.move_on_after(idle):
            await self._changed.wait()
            return True
        return False

    def _place(self, after: int) -> int:
        return bisect_right(self._events, after, key=lambda event: event.seq)

    async def _follow(self) -> None:
        head = await self._bus.last(chain_subjects(self._bus.ns, self._job))
        self._over = head is not None and isinstance(head.message, JobClosed)
        subjects = [job_subjects(self._bus.ns, self._job)]
        async with self._bus.follow(subjects, self._front + 1, pause=_GLANCE) as batches:
            async for batch in batches:
                for entry in batch.entries:
                    await self._take(entry)
                self._caught_up = batch.pending == 0
                self._tell()

    async def _take(self, entry: Entry) -> None:
        if isinstance(entry.message, JobClosed | JobRetried):
            self._over = isinstance(entry.message, JobClosed)
        event = event_of(entry)
        if event is not None:
            while self.size and self.size + event.size > self.limit:
                await self._make_room()
            self._events.append(event)
            self.size += event.size
        self._seen = entry.seq

    async def _make_room(self) -> None:
        """Forget what all have seen; where that is nothing, wait a while, and then leave the slowest behind."""
        self._tell()
        with anyio.move_on_after(_PATIENCE):
            while self._everybodys() <= self._front:
                self._moved = anyio.Event()
                await self._moved.wait()
        seen = self._everybodys()
        number = self._place(seen) if seen > self._front else (len(self._events) + 1) // 2
        gone, self._events = self._events[:number], self._events[number:]
        self.size -= sum(event.size for event in gone)
        self._front = max(self._front, gone[-1].seq if gone else 0)

    def _everybodys(self) -> int:
        """Return up to which sequence all have seen everything who do not read by themselves."""
        return min((one.seen for one in self.watchers if not one.is_behind), default=self._seen)

    async def _read(self, after: int) -> tuple[list[Event], int]:
        """Return events from the log, and up to which sequence they are all that there is."""
        until = self._front
        found: list[Event] = []
        size, seen = 0, after
        async with self._bus.follow([job_subjects(self._bus.ns, self._job)], after + 1) as batches:
            async for batch in batches:
                for entry in batch.entries:
                    event, seen = event_of(entry), entry.seq
                    found += [event] if event is not None else []
                    size += event.size if event is not None else 0
                    if seen >= until or len(found) >= _CHUNK or size >= _LEAST:
                        return found, seen
                if batch.pending == 0:
                    return found, max(seen, until)
        raise AssertionError("there is always another batch")

    def _tell(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def _tell_moved(self) -> None:
        self._moved.set()
