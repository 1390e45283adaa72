"""The manager's loop: fold the log, decide, append, until every job is closed.

A coordinator owns nothing. It may die at any point, and several may work on the same jobs: the broker refuses whatever
was decided on an outdated state, and the log then shows what moved on.
"""

import logging
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectSendStream

from interlock.agents.manager import Planner, Stamp
from interlock.observability.attributes import HEADER_REPLACES, HEADER_ROOT
from interlock.observability.context import job_traceparent, task_traceparent
from interlock.observability.tracing import JobRecord, TaskRecord, Tracing
from interlock.protocol.codec import kind_of
from interlock.protocol.decide import Assign, Command, decide, wakes_at
from interlock.protocol.errors import BodyTooLarge
from interlock.protocol.machine import evolve, fold
from interlock.protocol.messages import (
    JOB_TASK,
    EffectDone,
    EffectInDoubt,
    JobClosed,
    JobSubmitted,
    Message,
    TaskClosed,
)
from interlock.protocol.state import Entry, JobState, TaskState
from interlock.protocol.subjects import job_subjects, log_subject, log_subjects
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import AnswerRefused, BusError
from interlock.runtime.failures import BROKER_AWAY
from interlock.runtime.policywatch import PolicyWatch
from interlock.runtime.received import Batch

__all__ = ["Coordinator", "Job"]

_log = logging.getLogger(__name__)

_RETRY = 0.5
"""Seconds before a job is tried again whose messages the broker could not take."""

_AT_ONCE = 256
"""The most messages that are sent before the first of them is acknowledged."""

_LONGEST_SLEEP = 60.0
"""Seconds after which who waits for a deadline looks at the clock again, which may have been set."""


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
    wakes: datetime | None = None
    """When time alone gives something to decide, as far as that is waited for."""
    watch: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    """Around what waits for that time."""
    policy_epoch: int = 0
    """The policy that its plan was held against."""


@dataclass(frozen=True, slots=True)
class _Alarm:
    """Time to look at a job again although nothing new stands in the log."""

    job: str


_News = MemoryObjectSendStream[Batch | _Alarm]


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
        self._policy = PolicyWatch(bus.orders)

    async def run(self, only: str | None = None, ready: Callable[[], None] = lambda: None) -> None:
        """Work on every job of the namespace, or on one, until cancelled; call ``ready`` once the log is followed.

        :raises BusError: what no waiting will cure, such as missing permissions; in a group
        """
        send, receive = anyio.create_memory_object_stream[Batch | _Alarm](8)
        with send, receive:
            async with anyio.create_task_group() as group:
                group.start_soon(self._policy.run, partial(self._ring_all, send))
                subjects = log_subjects(self._bus.ns) if only is None else job_subjects(self._bus.ns, only)
                group.start_soon(self._read_log, subjects, send, ready)
                caught_up = False
                async for news in receive:
                    touched = [news.job] if isinstance(news, _Alarm) else self._take(news.entries)
                    if not caught_up:  # what looks undone may stand further on in the log
                        if isinstance(news, _Alarm) or news.pending:
                            continue
                        caught_up, touched = True, list(self._jobs)
                    for name in touched:
                        await self._advance_or_retry(name, group, send)

    async def _ring_all(self, send: _News) -> None:
        for name in tuple(self._jobs):
            await send.send(_Alarm(name))

    async def _read_log(self, subjects: str, send: _News, ready: Callable[[], None]) -> None:
        await self._policy.known.wait()
        async with self._bus.follow([subjects]) as batches:
            ready()
            async for batch in batches:
                await send.send(batch)

    def _take(self, entries: Iterable[Entry]) -> list[str]:
        """Fold entries into their jobs and return the jobs that they belong to."""
        touched: dict[str, None] = {}
        for entry in entries:
            message = entry.message
            if isinstance(message, JobSubmitted) and message.job not in self._jobs:
                self._jobs[message.job] = job = self.job(message, entry.origin)
                job.state = evolve(job.state, entry)
            elif (known := self._jobs.get(message.job)) is not None:
                self._fold_news(known, entry)
            touched[message.job] = None
        return [name for name in touched if name in self._jobs]

    def _fold_news(self, job: Job, entry: Entry) -> None:
        """Fold an entry unless it was folded when it was appended here."""
        beside = isinstance(entry.message, EffectDone | EffectInDoubt)
        if beside or entry.seq > job.state.head_of(entry.message.task):
            job.state = evolve(job.state, entry)
            self._forget_if_closed(entry.message.job, job)

    def _forget_if_closed(self, name: str, job: Job) -> None:
        if job.state.closed is not None:
            job.watch.cancel()
            self._jobs.pop(name, None)

    def _set_alarm(self, name: str, job: Job, group: TaskGroup, send: _News) -> None:
        """Wait for the next deadline, of the job or of a question that is open in it, instead of the one before."""
        wakes = wakes_at(job.state)
        if wakes == job.wakes or job.state.closed is not None:
            return
        job.watch.cancel()
        job.wakes, job.watch = wakes, anyio.CancelScope()
        if wakes is not None:
            group.start_soon(self._ring_at, name, wakes, job.watch, send)

    async def _ring_at(self, name: str, when: datetime, watch: anyio.CancelScope, send: _News) -> None:
        with watch:
            while (seconds := (when - self._now()).total_seconds()) > 0:  # noqa: ASYNC110 -- for the clock
                await anyio.sleep(min(seconds, _LONGEST_SLEEP))
            await send.send(_Alarm(name))

    async def _advance_or_retry(self, name: str, group: TaskGroup, send: _News) -> None:
        job = self._jobs.get(name)
        if job is None:
            return
        try:
            await self._heed_policy(job)
            await self.advance(job)
        except BROKER_AWAY as error:
            _log.warning("job %s waits for the broker: %s", name, error)
            group.start_soon(_ring, send, name, _RETRY)
        self._set_alarm(name, job, group, send)
        self._forget_if_closed(name, job)

    async def _heed_policy(self, job: Job) -> None:
        """Hold the job's plan against a policy that is new to it, and reject the plan where it does not stand.

        :raises BusError: the broker is away
        """
        if job.policy_epoch == self._policy.epoch:
            return
        job.planner.policy = self._policy.policy
        objections = job.planner.objections() if job.state.version and job.state.rejected is None else ()
        if objections:
            message = job.planner.rejection(job.state, objections, Stamp(self._new_id(), self._now()))
            try:
                job.state = evolve(job.state, await self._append_message(job, None, message))
            except AnswerRefused as refusal:
                _log.info("the job has moved on, its plan is looked at again: %s", refusal)
                return
        job.policy_epoch = self._policy.epoch

    def job(self, submitted: JobSubmitted, origin: str | None, state: JobState | None = None) -> Job:
        """Return what is kept for a job; ``origin`` is that of its first entry."""
        root = self._tracing.job_root({HEADER_ROOT: origin} if origin else None, submitted.job)
        return Job(Planner(submitted), root, state or JobState())

    async def advance(self, job: Job, *, killed: str | None = None) -> None:
        """Decide and append until nothing is left to decide, or others have moved the job on.

        :raises BusError: the broker is away (one of ``BROKER_AWAY``); what it took until then stands
        """
        while commands := decide(job.state, self._now(), killed=killed):
            took: list[Entry] = []
            for begin in range(0, len(commands), _AT_ONCE):
                with anyio.CancelScope(shield=True):  # who is told to end still writes the spans of what it has closed
                    took += await self._carry_out(job, commands[begin : begin + _AT_ONCE])
            if not took:
                return

    async def _carry_out(self, job: Job, commands: Sequence[Command]) -> list[Entry]:
        """Append a message for each command, at once, and fold those that the broker took; return them."""
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
        taken.sort(key=lambda entry: entry.seq)
        job.state = fold(taken, job.state)
        self._trace_endings(job, taken)
        return taken

    async def _append(self, job: Job, command: Command) -> Entry:
        message = job.planner.message(job.state, command, Stamp(self._new_id(), self._now()))
        try:
            return await self._append_message(job, command, message)
        except BodyTooLarge as error:
            message = job.planner.excuse(job.state, command, Stamp(self._new_id(), self._now()), str(error))
            return await self._append_message(job, command, message)

    async def _append_message(self, job: Job, command: Command | None, message: Message) -> Entry:
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


async def _ring(send: _News, job: str, seconds: float) -> None:
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
