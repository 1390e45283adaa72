"""The manager's loop for one job: fold its log, decide, append, until the job is closed."""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Protocol, TypeAlias

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from interlock.observability.tracing import Tracing
from interlock.protocol.control import Control
from interlock.protocol.decide import wakes_at
from interlock.protocol.messages import JobSubmitted
from interlock.protocol.state import JobState
from interlock.protocol.subjects import job_subjects
from interlock.runtime.bus import Bus
from interlock.runtime.carrying import Carrier, new_id, utc_now
from interlock.runtime.failures import BROKER_AWAY
from interlock.runtime.proposing import Proposers, Proposing
from interlock.runtime.received import Batch

__all__ = ["Heeded", "Keeper"]

_log = logging.getLogger(__name__)

_RETRY = 0.5
"""Seconds before a job is looked at again whose messages the broker could not take."""

_LONGEST_SLEEP = 60.0
"""Seconds after which who waits for a deadline looks at the clock again, which may have been set."""

_AHEAD = 8
"""Batches of the log that may wait here; then the reading waits, and so does the broker."""

_LOOK_AGAIN = None
"""Among the news: time to look at the job although nothing new stands in the log."""


class Heeded(Protocol):
    """What operators lay down, as far as a keeper has to heed it; ``ControlWatch`` is it."""

    @property
    def control(self) -> Control:
        """Orders and policy as they are now."""
        ...

    @property
    def known(self) -> anyio.Event:
        """Set once they are known."""
        ...

    def stops(self, submitted: JobSubmitted, /) -> str | None:
        """Return why a job must end, where it must."""
        ...


_News: TypeAlias = MemoryObjectSendStream[Batch | None]


def _nothing() -> None: ...


class Keeper:
    """Keeps one job going."""

    def __init__(
        self,
        bus: Bus,
        tracing: Tracing,
        job: str,
        control: Heeded,
        *,
        proposers: Proposers | None = None,
        window: Callable[[], int | None] = lambda: None,
        now: Callable[[], datetime] = utc_now,
        new_id: Callable[[], str] = new_id,
    ) -> None:
        self._bus = bus
        self._tracing = tracing
        self._job = job
        self._control = control
        self._window = window
        self._now = now
        self._new_id = new_id
        self._carrier: Carrier | None = None
        self._wakes: datetime | None = None
        self._watch = anyio.CancelScope()
        """Around what waits for the next deadline."""
        self._news: _News | None = None
        """None while it is not run."""
        self._proposing = Proposing(proposers, self.look_again)

    @property
    def state(self) -> JobState:
        """The state of the job as far as it is known; accepted items are left out."""
        return self._carrier.state if self._carrier else JobState()

    def look_again(self) -> None:
        """Decide anew, because orders, policy, the window or the time have changed."""
        with suppress(anyio.WouldBlock, anyio.BrokenResourceError):  # what waits there is looked at just as well
            if self._news is not None:
                self._news.send_nowait(_LOOK_AGAIN)

    async def run(self, since: int = 1, ready: Callable[[], None] = _nothing) -> int:
        """Carry the job to its end and return the sequence of that; call ``ready`` once its log is followed.

        ``since`` is a stream sequence at or before the job's first entry.

        :raises BusError: what no waiting will cure, such as missing permissions; in a group
        """
        while (ended := await self._run(since, ready)) is None:
            _log.info("job %s is read again: tasks were put back before something was told that stands here", self._job)
            self._carrier, ready = None, _nothing
        return ended

    async def _run(self, since: int, ready: Callable[[], None]) -> int | None:
        """Carry the job on and return where it ended; None where its log has to be read again."""
        ended: int | None = None
        send, receive = anyio.create_memory_object_stream[Batch | None](_AHEAD)
        with send, receive:
            self._news = send
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._read_log, since, send, ready)
                    ended = await self._keep(receive, group)
                    group.cancel_scope.cancel()
            finally:
                self._news = None
                self._proposing.drop()
        return ended

    async def _keep(self, receive: MemoryObjectReceiveStream[Batch | None], group: TaskGroup) -> int | None:
        caught_up = False
        async for news in receive:
            if news is not None:
                self._take(news)
            if not caught_up:  # what looks undone may stand further on in the log
                if news is None or news.pending:
                    continue
                caught_up = True
            if self.state.disordered:
                return None
            if (carrier := self._carrier) is not None:
                carrier.caught_up()
                if await self._is_over(carrier, group):
                    return carrier.state.head
        raise AssertionError("the log has no end")

    async def _read_log(self, since: int, send: _News, ready: Callable[[], None]) -> None:
        await self._control.known.wait()
        async with self._bus.follow([job_subjects(self._bus.ns, self._job)], since) as batches:
            ready()
            async for batch in batches:
                await send.send(batch)

    def _take(self, batch: Batch) -> None:
        entries = batch.entries
        for position, entry in enumerate(entries):
            if self._carrier is None and isinstance(entry.message, JobSubmitted):
                self._carrier = Carrier(
                    self._bus, self._tracing, entry.message, entry.origin, now=self._now, new_id=self._new_id
                )
                self._carrier.take(entries[position:])
                return
        if self._carrier is not None:
            self._carrier.take(entries)

    async def _is_over(self, carrier: Carrier, group: TaskGroup) -> bool:
        """Do what is to be done now; return whether that ended the job."""
        try:
            await self._advance(carrier, group)
        except BROKER_AWAY as error:
            _log.warning("job %s waits for the broker: %s", self._job, error)
            group.start_soon(self._look_again_in, _RETRY)
        if carrier.state.closed is not None:
            return True
        self._set_alarm(carrier, group)
        return False

    async def _advance(self, carrier: Carrier, group: TaskGroup) -> None:
        submitted, control = carrier.state.submitted, self._control.control
        if submitted is None or carrier.state.closed is not None:
            return
        killed = self._control.stops(submitted)
        if killed is not None:  # nothing that is written comes before the end of the model's work
            self._proposing.drop()
        await carrier.heed(control.policy, control.policy_epoch)
        if (answered := self._proposing.answered()) is not None:
            told = await carrier.tell(*answered)
            self._proposing.drop()
            if not told:  # what moved the job on is about to be read
                return
        await carrier.advance(killed=killed, window=self._window())
        self._proposing.want(carrier.wanted, carrier.state, group)

    async def _look_again_in(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        self.look_again()

    def _set_alarm(self, carrier: Carrier, group: TaskGroup) -> None:
        """Wait for the next deadline, of the job or of a question that is open in it, instead of the one before."""
        wakes = wakes_at(carrier.state)
        if wakes == self._wakes:
            return
        self._watch.cancel()
        self._wakes, self._watch = wakes, anyio.CancelScope()
        if wakes is not None:
            group.start_soon(self._look_again_at, wakes, self._watch)

    async def _look_again_at(self, when: datetime, watch: anyio.CancelScope) -> None:
        with watch:
            while (seconds := (when - self._now()).total_seconds()) > 0:  # noqa: ASYNC110 -- for the clock
                await anyio.sleep(min(seconds, _LONGEST_SLEEP))
            self.look_again()
