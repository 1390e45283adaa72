"""Puts finished jobs away: their log into files, then out of the broker.

First the file is written, read again and held against the log, and only then is anything taken out. So a crash at any
point loses nothing, and whatever was broken off is done by doing it again. The job's own chain stays in the log: its id
stays taken, and lists still know it.

Errors, all of them a person's mistake or something that they have to look at:

* ``JobStillOpen``: a job that is not over.
* ``ArchiveDiffers``: what was written is not what the log says.
* ``ArchiveLost``: the job's tasks are out of the log, and the file is not there.
"""

import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO

from anyio import to_thread

from interlock.protocol.codec import StoredBody, decode
from interlock.protocol.errors import ProtocolError
from interlock.protocol.items import StoredItems
from interlock.protocol.messages import JOB_TASK, Envelope, JobClosed, JobSubmitted, PlanExpanded
from interlock.protocol.state import JobState
from interlock.protocol.subjects import chain_subjects, job_chains
from interlock.runtime._shelf import Record
from interlock.runtime.archives import SUFFIX, Archive, ArchiveWriter
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import BodyMissing
from interlock.runtime.chain import patiently
from interlock.runtime.client import JobNotFound
from interlock.runtime.failures import Mistake
from interlock.runtime.lean import LeanFold, size_of

__all__ = [
    "ArchiveDiffers",
    "ArchiveLost",
    "Archived",
    "JobStillOpen",
    "archive",
    "drop_chunks",
    "drop_counters",
    "finished",
    "is_away",
]

_STAYS = timedelta(hours=1)
"""How long after the end of its last job a chunk of items stays: another job may just be given the same list. A job's
counters stay as long."""


class JobStillOpen(Mistake):
    """A job that is not over cannot be archived."""

    def __init__(self, job: str) -> None:
        self.job = job
        super().__init__(f"job {job} is not over: only finished jobs can be archived")


class ArchiveDiffers(Exception):
    """What was written is not what the log says; nothing was taken out of the log."""

    def __init__(self, job: str, path: Path) -> None:
        self.job = job
        self.path = path
        super().__init__(f"the archive {path} of job {job} is not what its log says; the log stays as it is")


class ArchiveLost(Mistake):
    """The tasks of a job were taken out of the log, and its archive is not where it should be."""

    def __init__(self, job: str, path: Path) -> None:
        self.job = job
        self.path = path
        super().__init__(f"job {job} was archived, and its file is not at {path}: name the file in place of the job")


@dataclass(frozen=True, slots=True)
class Archived:
    """A job that was put away."""

    job: str
    path: Path
    entries: int
    size: int
    """Of the file, bytes."""
    kept: bool
    """Whether it is still in the log too."""


async def finished(bus: Bus, older: timedelta = timedelta()) -> list[str]:
    """Return the jobs that are over for at least so long and have tasks in the log, oldest end first.

    :raises BusError: the broker is away for good
    """
    before, found = datetime.now(UTC) - older, list[tuple[datetime, str]]()
    for job in await bus.jobs():
        last = await bus.last(chain_subjects(bus.ns, job))
        if last is not None and isinstance(last.message, JobClosed) and last.message.at <= before:
            found.append((last.message.at, job))
    return [job for _, job in sorted(found) if await bus.shelf.has_tasks(job)]


async def is_away(bus: Bus, job: str) -> bool:
    """Return whether tasks of the job were taken out of the log, so that its archive is what there is of it.

    :raises BusError: the broker is away
    """
    return await bus.shelf.is_bare(job) and size_of(await _chain(bus, job)) > 0


async def archive(bus: Bus, job: str, folder: Path, *, keep: bool = False) -> Archived:
    """Write a finished job to ``folder`` and, unless it is to be kept, take its tasks out of the log.

    Doing it again is safe, and finishes what was broken off.

    :raises JobNotFound: it is not in the log
    :raises JobStillOpen: it is not over
    :raises ArchiveDiffers: the file is not what the log says
    :raises ArchiveLost: it was archived before, to somewhere else
    :raises OSError: the file cannot be written
    :raises BusError: the broker is away for good
    """
    closed = await _closing(bus, job)
    path = folder / f"{job}{SUFFIX}"
    if await is_away(bus, job):
        if not path.exists():
            raise ArchiveLost(job, path)
        count, last, bodies = await to_thread.run_sync(_read_back, path, job, closed)
    else:
        _make(folder)
        count, last, bodies = await _write(bus, job, path, closed)
    if not keep:
        if await patiently(partial(_closing, bus, job)) != closed:
            raise JobStillOpen(job)
        await patiently(partial(bus.shelf.take_out, job, closed, last))
        for stored in bodies:
            await patiently(partial(bus.shelf.drop_body, stored))
    return Archived(job, path, count, path.stat().st_size, keep)


async def drop_chunks(bus: Bus) -> int:
    """Take lists of items out of the object store that only jobs name which are away and long over; return how many.

    :raises BusError: the broker is away for good
    """
    wanted, left = dict[str, StoredBody](), dict[str, StoredBody]()
    async with bus.follow([job_chains(bus.ns)]) as batches:
        chains: dict[str, list[Envelope]] = {}
        async for batch in batches:
            for entry in batch.entries:
                chains.setdefault(entry.message.job, []).append(entry.message)
            if batch.pending == 0:
                break
    for job, messages in chains.items():
        chunks = {stored.digest: stored for message in messages for stored in _chunks_of(message)}
        if chunks and _is_long_over(messages[-1]) and await is_away(bus, job):
            left |= chunks
        else:
            wanted |= chunks
    idle = left.keys() - wanted.keys()
    there = await bus.shelf.bodies() if idle else set[str]()
    dropped = [left[digest] for digest in idle & there]
    for stored in dropped:
        await bus.shelf.drop_body(stored)
    return len(dropped)


async def drop_counters(bus: Bus) -> int:
    """Forget what jobs used of their budgets that are away and long over; return of how many jobs.

    An attempt that outlives its job may still ask for leave to send: so soon after the end it is to be refused.

    :raises BusError: the broker is away for good
    """
    dropped = 0
    for job in sorted(await bus.counters.jobs()):
        last = await bus.last(chain_subjects(bus.ns, job))
        if last is not None and _is_long_over(last.message) and not await bus.shelf.has_tasks(job):
            await bus.counters.forget(job)
            dropped += 1
    return dropped


def _is_long_over(last: Envelope) -> bool:
    return isinstance(last, JobClosed) and last.at <= datetime.now(UTC) - _STAYS


async def _closing(bus: Bus, job: str) -> int:
    """Return the sequence at which the job was closed."""
    last = await bus.last(chain_subjects(bus.ns, job))
    if last is None:
        raise JobNotFound(job, await bus.jobs())
    if not isinstance(last.message, JobClosed):
        raise JobStillOpen(job)
    return last.seq


async def _chain(bus: Bus, job: str) -> JobState:
    """Return the fold of the job's own chain alone."""
    fold = LeanFold()
    fold.take_all(one.entry for one in await bus.entries(chain_subjects(bus.ns, job)))
    return fold.state


class _Content:
    """What a job's records come to: whether two logs are the same, and what they need beside them."""

    def __init__(self) -> None:
        self._fold = LeanFold(small=0)
        self.count = self.last = 0
        self.bodies: list[StoredBody] = []
        """The stored bodies of entries about tasks."""
        self.closed = 0
        """Sequence of the job's end."""

    def take(self, record: Record) -> None:
        """Take in a record."""
        self.count, self.last = self.count + 1, record.raw.seq
        received = record.received
        if received is None:
            return
        if isinstance(received.message, JobClosed):
            self.closed = received.seq
        stored = _stored(record)
        if stored is not None and received.message.task != JOB_TASK:
            self.bodies.append(stored)
        self._fold.take(received.entry)
        self._fold.forget()

    def is_same(self, other: "_Content") -> bool:
        """Whether both are the same log."""
        mine, its = (self.count, self.last, self.bodies), (other.count, other.last, other.bodies)
        return mine == its and self.state == other.state

    @property
    def state(self) -> JobState:
        """The job; what closed tasks hold is forgotten."""
        return self._fold.state

    @property
    def is_whole(self) -> bool:
        """Whether the job is over and so is each of its tasks, as far as its steps were counted."""
        steps = self.state.steps.values()
        return self.state.closed is not None and all(step.size is None or step.complete for step in steps)


async def _write(bus: Bus, job: str, path: Path, closed: int) -> tuple[int, int, list[StoredBody]]:
    """Write and verify the archive; only then does it have its name. Return what ``_read_back`` does."""
    unnamed, content = path.with_name(f".{path.name}.{os.getpid()}"), _Content()
    try:
        with unnamed.open("wb") as file:
            await _write_records(bus, job, file, content)
            file.flush()
            os.fsync(file.fileno())
        again = await to_thread.run_sync(_content_of, unnamed)  # the connection stays alive meanwhile
        if not content.is_same(again) or not content.is_whole or content.closed != closed:
            raise ArchiveDiffers(job, path)
        unnamed.replace(path)
        _sync_folder(path.parent)
    finally:
        with suppress(FileNotFoundError):
            unnamed.unlink()
    return content.count, content.last, content.bodies


async def _write_records(bus: Bus, job: str, file: IO[bytes], content: _Content) -> None:
    writer = ArchiveWriter(file, bus.ns, job)
    async with aclosing(bus.shelf.records(job)) as some:
        async for records in some:
            for record in records:
                content.take(record)
                async with aclosing(_bodies(bus, _stored(record))) as bodies:
                    async for stored, body in bodies:
                        writer.body(stored, body)
                writer.entry(record.raw)
                message = record.received.message if record.received else None
                async with aclosing(_bodies(bus, *_chunks_of(message))) as chunks:
                    async for stored, body in chunks:
                        writer.chunk(stored, body)
    writer.close()


async def _bodies(bus: Bus, *wanted: StoredBody | None) -> AsyncGenerator[tuple[StoredBody, bytes], None]:
    """Yield what stands beside the log, as far as it is still there."""
    for stored in wanted:
        with suppress(BodyMissing):
            if stored is not None:
                yield stored, await bus.get_body(stored)


def _stored(record: Record) -> StoredBody | None:
    """Return what stands in the log in place of the entry's body, if something does."""
    with suppress(ProtocolError):
        message = decode(record.raw.body) if b'"body.stored"' in record.raw.body[:_STUB] else None
        return message if isinstance(message, StoredBody) else None
    return None


_STUB = 200
"""Bytes in which what stands in place of a body says that it does."""


def _chunks_of(message: Envelope | None) -> Iterator[StoredBody]:
    """Yield where the lists stand that a message names."""
    lists: list[StoredItems] = []
    if isinstance(message, JobSubmitted):
        lists = [*message.items.values(), *message.stored.values()]
    elif isinstance(message, PlanExpanded) and message.stored is not None:
        lists = [message.stored]
    for chunk in (chunk for one in lists for chunk in one.chunks):
        yield StoredBody(digest=f"sha256:{chunk.digest}", size=chunk.size)


def _read_back(path: Path, job: str, closed: int) -> tuple[int, int, list[StoredBody]]:
    """Return how many entries an archive has, the last sequence, and which bodies its tasks had beside the log."""
    kept, content = Archive.open(path), _content_of(path)
    if kept.job != job or content.closed != closed or not content.is_whole:
        raise ArchiveDiffers(job, path)
    return content.count, content.last, content.bodies


def _content_of(path: Path) -> _Content:
    content = _Content()
    for record in Archive.open(path).records():
        content.take(record)
    return content


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
