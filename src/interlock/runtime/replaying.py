"""A job's log folded again, from the broker or from an archive: each step, and what it led to.

Errors besides those of ``archives``:

* ``JobNotFound``: neither the log nor the archive knows the job.
* ``ArchiveLost``: its tasks were taken out of the log, and the archive is not there.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from interlock.protocol.base import Json
from interlock.protocol.codec import StoredBody
from interlock.protocol.messages import JOB_TASK, Envelope
from interlock.protocol.state import Entry, JobState
from interlock.protocol.subjects import submitted_subject
from interlock.runtime._shelf import Record
from interlock.runtime.archives import SUFFIX, Archive
from interlock.runtime.archiving import ArchiveLost, is_away
from interlock.runtime.bus import Bus
from interlock.runtime.client import JobNotFound
from interlock.runtime.lean import LeanFold
from interlock.runtime.place import Place, open_log

__all__ = ["Replay", "Source", "Step", "archive_folder", "open_source", "read_source", "until"]

_SOME = 256
_SECOND = 1_000_000_000


def archive_folder(place: Place) -> Path:
    """Return where the archives of a place are unless somebody wants them elsewhere."""
    return place.state / "archive"


@dataclass(frozen=True, slots=True)
class Source:
    """Where the log of one job is: in the broker, or in an archive."""

    job: str
    bus: Bus | None
    """None: it is in an archive."""
    archive: Archive | None = None

    async def records(self) -> AsyncGenerator[list[Record], None]:
        """Yield the entries as they are stored, oldest first, some at a time.

        :raises ArchiveUnreadable: the archive is not whole
        :raises BusError: the broker is away for good
        """
        if self.archive is not None:
            for some in _portions(self.archive.records()):
                yield some
        elif self.bus is not None:
            async with aclosing(self.bus.shelf.records(self.job)) as batches:
                async for batch in batches:
                    yield batch

    async def entries(self) -> AsyncGenerator[list[Entry], None]:
        """Yield those that can be read."""
        async with aclosing(self.records()) as batches:
            async for batch in batches:
                yield [record.received.entry for record in batch if record.received is not None]

    async def body(self, stored: StoredBody) -> bytes:
        """Return what stands beside the log.

        :raises BodyMissing: it is not there any more
        """
        if self.archive is not None:
            return self.archive.body(stored)
        if self.bus is None:
            raise JobNotFound(self.job, ())
        return await self.bus.get_body(stored)


@asynccontextmanager
async def open_source(place: Place, job: str) -> AsyncIterator[Source]:
    """Find the log of a job, which is named by its id or by the file of its archive.

    :raises JobNotFound: there is neither
    :raises ArchiveLost: its tasks were taken out of the log, and the archive is not in the state folder
    :raises ArchiveUnreadable: the file is no archive
    :raises BrokerError: the embedded broker cannot be started
    :raises BusError: the broker cannot be reached
    """
    if _is_file(job):
        kept = Archive.open(Path(job))
        yield Source(kept.job, None, kept)
        return
    path = archive_folder(place) / f"{job}{SUFFIX}"
    if place.nats is None and not _is_there(place.state):
        raise JobNotFound(job, ())
    async with open_log(place, "client") as bus:
        there = await bus.last(submitted_subject(bus.ns, job)) is not None
        away = there and await is_away(bus, job)
        if there and not away:
            yield Source(job, bus)
            return
        if away and not _is_there(path):
            raise ArchiveLost(job, path)
        if not _is_there(path):
            raise JobNotFound(job, await bus.jobs())
    yield Source(job, None, Archive.open(path))


async def read_source(source: Source) -> JobState:
    """Return the state of a job as ``client.read_job`` does."""
    fold = LeanFold()
    async with aclosing(source.entries()) as batches:
        async for entries in batches:
            fold.take_all(entries)
            fold.forget()
    return fold.state


@dataclass(frozen=True, slots=True)
class Step:
    """One entry, and what it led to."""

    seq: int
    at: datetime
    """When the broker stored it."""
    task: str
    """``_`` is the job itself."""
    kind: str
    by: str
    """Who sent it, as ``agent@team``; empty: a client, a manager or an operator."""
    attempt: int
    before: str
    """The phase of the task, or of the job; empty before there was one."""
    after: str
    refused: bool
    """It is no next step: nothing came of it."""
    message: Envelope | None
    """None: nobody can read it."""

    def as_json(self) -> dict[str, Json]:
        """Return it as ``--json`` prints it."""
        message: Any = None if self.message is None else self.message.model_dump(mode="json", exclude_defaults=True)
        return {
            "seq": self.seq,
            "at": self.at.isoformat(),
            "task": self.task,
            "kind": self.kind,
            "by": self.by,
            "attempt": self.attempt,
            "before": self.before,
            "after": self.after,
            "refused": self.refused,
            "message": message,
        }


class Replay:
    """Folds records and tells the steps."""

    def __init__(self) -> None:
        self._fold = LeanFold()

    @property
    def state(self) -> JobState:
        """The job after the last record."""
        return self._fold.state

    def step(self, record: Record) -> Step:
        """Fold a record and return the step that it is."""
        at = datetime.fromtimestamp(record.raw.time / _SECOND, UTC)
        received = record.received
        if received is None:
            tokens = record.raw.subject.split(".")
            return Step(record.raw.seq, at, tokens[5], tokens[6], "", 0, "", "", refused=True, message=None)
        message, refused = received.message, self.state.refused
        before = _phase(self.state, message.task)
        self._fold.take(received.entry)
        after = _phase(self.state, message.task)
        self._fold.forget()
        return Step(
            record.raw.seq,
            at,
            message.task,
            str(message.kind),
            getattr(message, "by", ""),
            message.attempt,
            before,
            after,
            refused=self.state.refused > refused,
            message=message,
        )


def _phase(state: JobState, name: str) -> str:
    if name == JOB_TASK:
        return _job_phase(state)
    task = state.tasks.get(name)
    if task is None:
        return "accepted" if state.step_of_settled(name) else ""
    return task.outcome or task.phase.value


def _job_phase(state: JobState) -> str:
    if state.closed is not None:
        return state.closed.status
    if state.rejected is not None:
        return "rejected"
    return "planned" if state.version else "submitted" if state.submitted else ""


def _portions(records: Iterator[Record]) -> Iterator[list[Record]]:
    some: list[Record] = []
    for record in records:
        some.append(record)
        if len(some) == _SOME:
            yield some
            some = []
    yield some


def _is_file(job: str) -> bool:
    return ("/" in job or job.endswith(SUFFIX)) and Path(job).is_file()


def _is_there(path: Path) -> bool:
    return path.exists()


def until(records: Iterable[Record], last: int | None) -> list[Record]:
    """Return the records up to a sequence."""
    return [record for record in records if last is None or record.raw.seq <= last]
