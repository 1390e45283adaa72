"""Which jobs there are: what their own chains say of each, kept up to date from the log."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime

import anyio

from interlock.protocol.messages import JOB_TASK, JobClosed, JobRetried, JobStatus, JobSubmitted
from interlock.protocol.state import Entry
from interlock.protocol.subjects import submitted_subject, submitted_subjects
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import BusError

__all__ = ["JobIndex", "KnownJob"]

_log = logging.getLogger(__name__)

_GLANCE = 0.1
_AGAIN = 1.0
_GOAL = 500
"""The most characters that are kept of a goal."""


@dataclass(frozen=True, slots=True)
class KnownJob:
    """One job."""

    job: str
    team: str
    goal: str
    """Its beginning."""
    submitted: int
    """The stream sequence of its submission."""
    at: datetime
    parent: str | None
    status: JobStatus | None = None
    """None: it is open."""
    reason: str = ""
    ended: datetime | None = None


class JobIndex:
    """All jobs of the log. Use ``JobIndex.open``."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._jobs: dict[str, KnownJob] = {}
        self.is_ready = False
        """Whether it has read all that there is."""

    @classmethod
    @asynccontextmanager
    async def open(cls, bus: Bus) -> "AsyncIterator[JobIndex]":
        """Keep an index while the block runs."""
        index = cls(bus)
        async with anyio.create_task_group() as group:
            group.start_soon(index._run)
            yield index
            group.cancel_scope.cancel()

    async def get(self, job: str) -> KnownJob | None:
        """Return a job; one that came a moment ago, too.

        :raises BusError: the broker is out of reach
        """
        known = self._jobs.get(job)
        if known is not None:
            return known
        entry = await self._bus.last(submitted_subject(self._bus.ns, job))
        return _known(entry.entry) if entry else None

    def newest(self, before: int | None = None) -> Iterator[KnownJob]:
        """Yield the jobs that were submitted before a stream sequence, newest first."""
        for known in reversed(self._jobs.values()):
            if before is None or known.submitted < before:
                yield known

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except BusError as error:
                _log.warning("the list of jobs is read anew: %s", error)
                self.is_ready = False
                await anyio.sleep(_AGAIN)

    async def _follow(self) -> None:
        submitted = submitted_subjects(self._bus.ns)
        own = submitted.removesuffix(f"{JOB_TASK}.submitted") + JOB_TASK
        self._jobs = {}
        async with self._bus.follow([submitted, f"{own}.closed", f"{own}.retried"], pause=_GLANCE) as batches:
            async for batch in batches:
                for entry in batch.entries:
                    self._take(entry)
                self.is_ready = self.is_ready or batch.pending == 0

    def _take(self, entry: Entry) -> None:
        message = entry.message
        if isinstance(message, JobSubmitted):
            self._jobs.setdefault(message.job, _known(entry))
        known = self._jobs.get(message.job)
        if known is None:
            return
        if isinstance(message, JobClosed):
            self._jobs[message.job] = replace(known, status=message.status, reason=message.reason, ended=message.at)
        elif isinstance(message, JobRetried):
            self._jobs[message.job] = replace(known, status=None, reason="", ended=None)


def _known(entry: Entry) -> KnownJob:
    message = entry.message
    if not isinstance(message, JobSubmitted):
        raise TypeError(f"entry {entry.seq} submits no job")
    return KnownJob(message.job, message.team.team, message.goal[:_GOAL], entry.seq, message.at, message.parent)
