"""What it takes to put finished jobs away: their entries as they are stored, and taking them out of the log."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from interlock.protocol.codec import StoredBody
from interlock.protocol.subjects import job_subjects, parse_log_subject
from interlock.runtime._blobs import Blobs
from interlock.runtime._follow import Follow
from interlock.runtime._jetstream import Raw, direct_get, purge, subjects_on
from interlock.runtime._names import log_stream
from interlock.runtime._wire import Wire
from interlock.runtime.received import Reader, Received

_OF_TASKS = (
    "assigned.>",
    "result.>",
    "verdict.>",
    "asked.>",
    "answered",
    "intended.>",
    "done.>",
    "in_doubt.>",
)
"""How the subjects of entries about tasks end; that of their closing is also that of the job's."""


@dataclass(frozen=True, slots=True)
class Record:
    """An entry as it is stored, and as it is understood."""

    raw: Raw
    received: Received | None
    """None: nobody can read it."""


class _Tap(Reader):
    """Has another reader read, which counts what nobody can, and keeps what that read it from."""

    def __init__(self, reader: Reader) -> None:
        self._by = reader
        self.records: list[Record] = []

    async def read_or_skip(self, raw: Raw) -> Received | None:
        received = await self._by.read_or_skip(raw)
        self.records.append(Record(raw, received))
        return received


class Shelf:
    """The log of one namespace as whoever archives it sees it."""

    def __init__(self, wire: Wire, ns: str, blobs: Blobs, reader: Reader) -> None:
        self._wire = wire
        self._ns = ns
        self._blobs = blobs
        self._reader = reader
        self._stream = log_stream(ns)

    async def records(self, job: str) -> AsyncGenerator[list[Record], None]:
        """Yield all that the log has of a job now, oldest first, some at a time.

        :raises BusError: the broker is away for good
        """
        tap = _Tap(self._reader)
        async with Follow(self._wire, tap, self._stream, [job_subjects(self._ns, job)], 1).open() as batches:
            async for batch in batches:
                records, tap.records = tap.records, []
                yield records
                if batch.pending == 0:
                    return

    async def has_tasks(self, job: str) -> bool:
        """Return whether the log has anything of the job's tasks.

        :raises BusError: the broker is away
        """
        return not await self.is_bare(job) or bool(await self._left(job))

    async def is_bare(self, job: str) -> bool:
        """Return whether the job is closed and no task of it is: it was put away, or it never had one.

        :raises BusError: the broker is away
        """
        first = await direct_get(self._wire, self._stream, {"seq": 1, "next_by_subj": self._of(job, "closed")})
        return first is not None and parse_log_subject(first.subject).task == "_"

    async def take_out(self, job: str, closed: int, last: int) -> None:
        """Take the tasks of a job out of the log, up to the sequence ``last``; its own chain stays.

        ``closed`` is the sequence at which the job was closed. May be repeated where it was broken off. What the tasks
        were closed with goes first, so that a job of which anything is gone ``is_bare``.

        :raises BusError: the broker is away, or does not let these credentials
        """
        await purge(self._wire, self._stream, self._of(job, "closed"), closed)
        for ending in _OF_TASKS:
            await purge(self._wire, self._stream, self._of(job, ending), last + 1)
        for subject in await self._left(job):
            await purge(self._wire, self._stream, subject, last + 1)

    async def drop_body(self, stored: StoredBody) -> None:
        """Take a body out of the object store, if it is there.

        :raises BusError: the broker is away, or does not let these credentials
        """
        await self._blobs.drop(stored)

    async def bodies(self) -> set[str]:
        """Return the digests of all bodies in the object store.

        :raises BusError: the broker is away
        """
        return await self._blobs.digests()

    def _of(self, job: str, ending: str) -> str:
        return f"{job_subjects(self._ns, job).removesuffix('>')}*.{ending}"

    async def _left(self, job: str) -> list[str]:
        """Return the subjects of tasks that there still are: of kinds that this version does not know."""
        subjects = await subjects_on(self._wire, self._stream, job_subjects(self._ns, job))
        return [subject for subject in subjects if parse_log_subject(subject).task != "_"]
