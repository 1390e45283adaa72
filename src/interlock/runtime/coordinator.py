"""The manager's loop: fold the log, decide, append, until every job is closed.

A coordinator owns nothing. It may die at any point, and several may work on the same jobs: the broker refuses whatever
was decided on an outdated state, and the log then shows what moved on.
"""

import logging
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectSendStream

from interlock.agents.manager import Planner, Stamp
from interlock.observability.attributes import HEADER_REPLACES, HEADER_ROOT
from interlock.observability.context import job_traceparent, task_traceparent
from interlock.observability.tracing import JobRecord, TaskRecord, Tracing
from interlock.protocol.codec import kind_of
from interlock.protocol.decide import Assign, Command, deadline_of, decide
from interlock.protocol.machine import Entry, JobState, TaskState, evolve, fold
from interlock.protocol.messages import JOB_TASK, JobClosed, JobSubmitted, TaskClosed
from interlock.protocol.subjects import job_subjects, log_subject, log_subjects
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import AnswerRefused, AppendInDoubt, BrokerUnreachable, BusError, ReplyMissing
from interlock.runtime.received import Batch

__all__ = ["BROKER_AWAY", "Coordinator", "Job"]

_log = logging.getLogger(__name__)

BROKER_AWAY = (BrokerUnreachable, AppendInDoubt, ReplyMissing)
"""What an append raises while the broker is away: the same message may be appended again."""

_RETRY = 0.5
"""Seconds before a job is tried again whose messages the broker could not take."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _new_id() -> str:
    return uuid.uuid4().hex


@dataclass(slots=True)
class Job:
    """An open job and what the coordinator keeps for it."""

    planner: Planner
    root: str
    """Traceparent that the job's span hangs below."""
    state: JobState


@dataclass(frozen=True, slots=True)
class _Alarm:
    """Time to look at a job again although nothing new stands in the log."""

    job: str


class Coordinator:
    """Carries jobs to their end."""

    def __init__(
        self, bus: Bus, tracing: Tracing, *, now: Callable[[], datetime] = _utc_now, new_id: Callable[[], str] = _new_id
    ) -> None:
        self._bus = bus
        self._tracing = tracing
        self._now = now
        self._new_id = new_id
        self._jobs: dict[str, Job] = {}

    async def run(self, only: str | None = None) -> None:
        """Work on every job of the namespace, or on one, until cancelled."""
        send, receive = anyio.create_memory_object_stream[Batch | _Alarm](8)
        async with anyio.create_task_group() as group, receive:
            subjects = log_subjects(self._bus.ns) if only is None else job_subjects(self._bus.ns, only)
            group.start_soon(self._read_log, subjects, send)
            caught_up = False
            async for news in receive:
                touched = [news.job] if isinstance(news, _Alarm) else self._take(news.entries, group, send)
                if not caught_up:  # what looks undone may stand further on in the log
                    if isinstance(news, _Alarm) or news.pending:
                        continue
                    caught_up, touched = True, list(self._jobs)
                for name in touched:
                    await self._advance_or_retry(name, group, send)

    async def _read_log(self, subjects: str, send: MemoryObjectSendStream[Batch | _Alarm]) -> None:
        async with self._bus.follow([subjects]) as batches:
            async for batch in batches:
                await send.send(batch)

    def _take(
        self, entries: Iterable[Entry], group: TaskGroup, send: MemoryObjectSendStream[Batch | _Alarm]
    ) -> list[str]:
        """Fold entries into their jobs and return the jobs that they belong to."""
        touched: dict[str, None] = {}
        for entry in entries:
            message = entry.message
            if isinstance(message, JobSubmitted) and message.job not in self._jobs:
                self._jobs[message.job] = job = self.job(message, entry.origin)
                job.state = evolve(job.state, entry)
                self._set_deadline(job, group, send)
            elif (known := self._jobs.get(message.job)) is not None:
                self._fold_news(known, entry)
            touched[message.job] = None
        return [name for name in touched if name in self._jobs]

    def _fold_news(self, job: Job, entry: Entry) -> None:
        """Fold an entry unless it was folded when it was appended here."""
        if entry.seq <= job.state.head_of(entry.message.task):
            return
        job.state = evolve(job.state, entry)
        if job.state.closed is not None:
            del self._jobs[entry.message.job]

    def _set_deadline(self, job: Job, group: TaskGroup, send: MemoryObjectSendStream[Batch | _Alarm]) -> None:
        deadline = deadline_of(job.state)
        if deadline is not None and job.state.submitted is not None:
            wait = (deadline - self._now()).total_seconds()
            group.start_soon(_ring, send, job.state.submitted.job, max(0.0, wait))

    async def _advance_or_retry(
        self, name: str, group: TaskGroup, send: MemoryObjectSendStream[Batch | _Alarm]
    ) -> None:
        job = self._jobs.get(name)
        if job is None:
            return
        try:
            await self.advance(job)
        except BROKER_AWAY as error:
            _log.warning("job %s waits for the broker: %s", name, error)
            group.start_soon(_ring, send, name, _RETRY)
        if job.state.closed is not None:
            self._jobs.pop(name, None)

    def job(self, submitted: JobSubmitted, origin: str | None, state: JobState | None = None) -> Job:
        """Return what is kept for a job; ``origin`` is that of its first entry."""
        root = self._tracing.job_root({HEADER_ROOT: origin} if origin else None, submitted.job)
        return Job(Planner(submitted), root, state or JobState())

    async def advance(self, job: Job, *, killed: str | None = None) -> None:
        """Decide and append until nothing is left to decide, or others have moved the job on.

        :raises BusError: the broker is away (one of ``BROKER_AWAY``); what it took until then stands
        """
        while commands := decide(job.state, self._now(), killed=killed):
            with anyio.CancelScope(shield=True):  # who is told to end still writes the spans of what it has closed
                entries = await self._carry_out(job, commands)
                job.state = fold(entries, job.state)
                self._trace_endings(job, entries)
            if not entries:
                return

    async def _carry_out(self, job: Job, commands: Iterable[Command]) -> list[Entry]:
        """Append a message for each command, at once; return those that the broker took, in the log's order."""
        taken: list[Entry] = []
        unreachable: list[BusError] = []

        async def one(command: Command) -> None:
            try:
                taken.append(await self._append(job, command))
            except AnswerRefused as refusal:
                _log.info("another manager was faster: %s", refusal)
            except BROKER_AWAY as error:
                unreachable.append(error)

        async with anyio.create_task_group() as group:
            for command in commands:
                group.start_soon(one, command)
        if unreachable and not taken:
            raise unreachable[0]
        return sorted(taken, key=lambda entry: entry.seq)

    async def _append(self, job: Job, command: Command) -> Entry:
        message = job.planner.message(job.state, command, Stamp(self._new_id(), self._now()))
        parent = (
            job_traceparent(job.root, message.job)
            if message.task == JOB_TASK
            else task_traceparent(job.root, message.job, message.task)
        )
        kind, subject = kind_of(type(message)), log_subject(message)
        with self._tracing.publish(kind, subject, parent, message_id=message.id) as headers:
            if isinstance(command, Assign) and command.replaces:
                headers[HEADER_REPLACES] = command.replaces
            return Entry(await self._bus.append(message, headers=headers), message)

    def _trace_endings(self, job: Job, entries: Iterable[Entry]) -> None:
        """Write the spans of what ``entries`` ended; only the manager whose message was taken does."""
        if not self._tracing.enabled:
            return
        for entry in entries:
            match entry.message:
                case TaskClosed():
                    self._tracing.emit_task(job.root, _task_record(job.state, job.state.tasks[entry.message.task]))
                case JobClosed():
                    self._tracing.emit_job(job.root, _job_record(job.state, entry.message))
                case _:
                    pass


async def _ring(send: MemoryObjectSendStream[Batch | _Alarm], job: str, seconds: float) -> None:
    await anyio.sleep(seconds)
    await send.send(_Alarm(job))


def _task_record(state: JobState, task: TaskState) -> TaskRecord:
    began = task.began or task.ended or _utc_now()
    step = state.steps[task.step].spec
    return TaskRecord(
        job=state.submitted.job if state.submitted else "",
        task=task.id,
        step=task.step,
        agent=task.current.role.partition("@")[0] if task.attempts else step.agent,
        started=began,
        ended=task.ended or began,
        outcome=task.outcome or "",
        attempts=len(task.attempts),
        reason=task.reason,
        redone={
            attempt.number: [objection.criterion for objection in attempt.objections]
            for attempt in task.attempts
            if attempt.number != task.stands and attempt.verdict is not None
        },
    )


def _job_record(state: JobState, closed: JobClosed) -> JobRecord:
    submitted = state.submitted
    return JobRecord(
        job=closed.job,
        team=submitted.team.team if submitted else "",
        started=submitted.at if submitted else closed.at,
        ended=closed.at,
        status=closed.status,
        reason=closed.reason,
    )
