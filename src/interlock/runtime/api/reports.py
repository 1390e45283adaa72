"""The reports of jobs as they stand: each read on from where it was read last, and written once for all who ask."""

import os
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from io import TextIOWrapper
from typing import IO

import anyio
from anyio.to_thread import run_sync

from interlock.protocol.messages import QuestionAnswered, QuestionAsked, TaskClosed
from interlock.protocol.state import Entry, JobState
from interlock.protocol.subjects import job_subjects
from interlock.runtime.archiving import is_away
from interlock.runtime.bus import Bus
from interlock.runtime.client import Progress
from interlock.runtime.lean import size_of
from interlock.runtime.questions import KnownQuestion, questions_of
from interlock.runtime.report import overview_of
from interlock.runtime.reporting import ReportWriter

__all__ = ["Reports", "Written"]

_KEPT = 32
"""The most jobs whose reports are kept, to be read on."""

_READERS = 4
"""The most jobs whose logs are read at once."""

_CHUNK = 256 * 1024


class Written:
    """A report as JSON, in a file that goes away with it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.size = file.seek(0, 2)
        self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield its bytes."""
        for offset in range(0, self.size, _CHUNK):
            yield await run_sync(os.pread, self._descriptor, _CHUNK, offset)

    def small(self) -> bytes | None:
        """Return its bytes where they are few."""
        return os.pread(self._descriptor, _CHUNK, 0) if self.size <= _CHUNK else None


class Reports:
    """The reports of a namespace's jobs. Use ``Reports.open``."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._kept: OrderedDict[str, _Job] = OrderedDict()
        self._readers = anyio.CapacityLimiter(_READERS)

    @classmethod
    @contextmanager
    def open(cls, bus: Bus) -> "Iterator[Reports]":
        """Keep reports while the block runs."""
        reports = cls(bus)
        try:
            yield reports
        finally:
            reports._close()

    async def report(self, job: str) -> Written:
        """Return the report of a job that is in the log, as it stands now.

        :raises BusError: the broker is out of reach
        """
        kept = self._of(job)
        async with kept.lock:
            await self._read_on(kept)
            if kept.written is None:
                away = kept.may_be_away and await is_away(self._bus, job)
                kept.written = await run_sync(partial(_write, kept.writer, away=away))
            return kept.written

    async def questions(self, job: str) -> tuple[list[KnownQuestion], JobState]:
        """Return the questions of a job that is in the log, oldest first, and the job; closed tasks are forgotten.

        :raises BusError: the broker is out of reach
        """
        kept = self._of(job)
        async with kept.lock:
            await self._read_on(kept)
            news = Progress(tuple(kept.asked), kept.writer.state)
            return questions_of([news], datetime.now(UTC)), kept.writer.state

    def _of(self, job: str) -> "_Job":
        kept = self._kept.pop(job, None) or _Job(job)
        self._kept[job] = kept
        for one in list(self._kept.values())[: max(0, len(self._kept) - _KEPT)]:
            if one is not kept and not one.lock.locked():
                self._kept.pop(one.job).close()
        return kept

    def _close(self) -> None:
        for kept in self._kept.values():
            kept.close()

    async def _read_on(self, kept: "_Job") -> None:
        subjects = job_subjects(self._bus.ns, kept.job)
        last = await self._bus.last(subjects)
        if last is None or last.seq <= kept.seen:
            return
        async with self._readers, self._bus.follow([subjects], kept.seen + 1) as batches:
            async for batch in batches:
                kept.take(batch.entries)
                if batch.pending == 0:
                    return


@dataclass
class _Job:
    """A job that is read on."""

    job: str
    writer: ReportWriter = field(default_factory=ReportWriter)
    asked: list[Entry] = field(default_factory=list)
    """What was asked and answered."""
    seen: int = 0
    any_closed: bool = False
    written: Written | None = None
    lock: anyio.Lock = field(default_factory=anyio.Lock)

    @property
    def may_be_away(self) -> bool:
        """Whether its tasks may have been taken out of the log."""
        state = self.writer.state
        return state.closed is not None and not self.any_closed and size_of(state) > 0

    def close(self) -> None:
        """Let go of its file."""
        self.writer.__exit__(None, None, None)

    def take(self, entries: tuple[Entry, ...]) -> None:
        """Fold what came."""
        self.writer.take(entries)
        for entry in entries:
            if isinstance(entry.message, QuestionAsked | QuestionAnswered):
                self.asked.append(entry)
            self.any_closed = self.any_closed or isinstance(entry.message, TaskClosed)
            self.seen, self.written = entry.seq, None


def _write(writer: ReportWriter, *, away: bool) -> Written:
    with tempfile.TemporaryFile() as file:
        if away:
            file.write(overview_of(writer.state, ()).model_dump_json(indent=2).encode())
        else:
            text = TextIOWrapper(file, encoding="utf-8", newline="\n")
            writer.write(text)
            text.flush()
            text.detach()
        return Written(file)
