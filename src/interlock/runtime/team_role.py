"""The role of an agent that is a team: every assignment becomes a job of its own, whose end is the result.

A process that serves it waits and does nothing else. It may die at any point: the job has the same id whoever begins
it, so that whoever is given the assignment next waits for the same one.
"""

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import anyio

from interlock.agents.children import Ended, Home, child_of, ended, too_deep
from interlock.observability.attributes import HEADER_ORIGIN, HEADER_ROOT
from interlock.observability.context import job_traceparent, task_traceparent
from interlock.observability.tracing import AgentSpan, Tracing
from interlock.protocol.base import Json, Usage
from interlock.protocol.lineage import child_job, root_of
from interlock.protocol.messages import JobClosed, JobSubmitted, TaskAssigned, TaskResult
from interlock.protocol.subjects import closed_subject, closed_subjects, log_subject, result_subjects, submitted_subject
from interlock.protocol.taint import joined
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import AnswerRefused, EntryMissing
from interlock.runtime.chain import patiently
from interlock.runtime.config import ProcessConfig
from interlock.runtime.deliveries import Delivery
from interlock.runtime.received import Received
from interlock.runtime.roles import Serving, answering
from interlock.runtime.told import Told

__all__ = ["serve_team"]

_log = logging.getLogger(__name__)

_REMEMBERED = 64
"""The most jobs whose first entry is kept at hand."""


async def serve_team(
    config: ProcessConfig, bus: Bus, tracing: Tracing, ready: Callable[[], None], told: Told | None = None
) -> None:
    """Have the assignments of the configured role done as jobs, until cancelled or told to drain.

    :raises RoleIncomplete: the configuration names no agent or team
    :raises BusError: what no waiting will cure, such as missing permissions; in a group
    """
    heard = told or Told()
    serving = Serving(config, bus, tracing, heard)
    ends = _Ends(bus)
    async with anyio.create_task_group() as group:
        group.start_soon(ends.follow)
        team = _TeamRole(serving, config.home, ends, heard.draining)
        await serving.serve("assigned", team.work, ready)
        group.cancel_scope.cancel()


class _Ends:
    """The ends of jobs, as they come."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._awaited: dict[str, set[anyio.Event]] = {}
        self._since = 1
        self._wanted = anyio.Event()

    async def follow(self) -> None:
        """Listen for ends until cancelled, from the first that anybody waits for."""
        await self._wanted.wait()
        async with self._bus.follow([closed_subjects(self._bus.ns)], self._since) as batches:
            async for batch in batches:
                for entry in batch.entries:
                    for event in self._awaited.get(entry.message.job, ()):
                        event.set()

    async def of(self, job: str, since: int) -> JobClosed:
        """Return the end of ``job``, which was no earlier in the log than ``since``."""
        if not self._wanted.is_set():
            self._since = since
            self._wanted.set()
        event = anyio.Event()
        self._awaited.setdefault(job, set()).add(event)
        try:
            while True:  # what is asked for first may have come before anybody listened
                last = await patiently(partial(self._bus.last, closed_subject(self._bus.ns, job)))
                if last is not None and isinstance(last.message, JobClosed):
                    return last.message
                await event.wait()
        finally:
            self._awaited[job].discard(event)
            if not self._awaited[job]:
                del self._awaited[job]


@dataclass(frozen=True, slots=True)
class _TeamRole:
    serving: Serving
    home: Home
    ends: _Ends
    draining: anyio.Event
    _jobs: dict[str, Received] = field(default_factory=dict[str, Received])

    async def work(self, delivery: Delivery) -> None:
        assignment = delivery.message
        if not isinstance(assignment, TaskAssigned) or await self.serving.overtaken(delivery):
            return
        with self.serving.span(delivery, assignment, assignment.step) as span:
            excuse = partial(self._no_result, assignment, delivery, span)
            await self.serving.respond(delivery, span, partial(self._answer, assignment, delivery, span), excuse)

    async def _answer(self, assignment: TaskAssigned, delivery: Delivery, span: AgentSpan) -> TaskResult | None:
        """Return the result of an attempt; None where the process is to end and others go on waiting."""
        parent = await self._job(assignment.job)
        child = child_job(assignment.job, assignment.task, assignment.attempt)
        if problem := too_deep(_submitted(await self._job(root_of(child))), child):
            return self._result(assignment, delivery, span, Ended("gave_up", None, problem))
        await patiently(partial(self._submit, parent, assignment))
        closed = await self._wait(child, delivery)
        if closed is None:
            await delivery.nak()
            return None
        came_to = ended(closed, assignment.output_schema)
        taint = joined(assignment.taint, await patiently(partial(self._taint, child)))
        return self._result(assignment, delivery, span, came_to, closed.usage, taint)

    async def _submit(self, parent: Received, assignment: TaskAssigned) -> None:
        """Append the job unless it is there: an attempt has one, however often it is begun."""
        bus, tracing = self.serving.bus, self.serving.tracing
        submitted = _submitted(parent)
        stamp, now = uuid.uuid4().hex, datetime.now(UTC)
        message = child_of(submitted, assignment, self.serving.agent_name, self.home, message_id=stamp, at=now)
        origin = {HEADER_ROOT: parent.origin} if parent.origin else None
        root = task_traceparent(tracing.job_root(origin, parent.message.job), parent.message.job, assignment.task)
        within = job_traceparent(root, message.job)
        with tracing.publish("job.submitted", log_subject(message), within, message_id=message.id) as headers:
            try:
                await bus.append(message, headers={**headers, HEADER_ROOT: root, HEADER_ORIGIN: root})
            except AnswerRefused:
                _log.info("job %s was begun before, and is waited for", message.job)

    async def _wait(self, child: str, delivery: Delivery) -> JobClosed | None:
        """Wait for the end of a job; None where this process is to end before."""
        closed: JobClosed | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(_cancel_once, self.draining, group.cancel_scope)
            closed = await self.ends.of(child, delivery.seq)
            group.cancel_scope.cancel()
        return closed

    async def _taint(self, child: str) -> tuple[str, ...]:
        """Return where the text from outside comes from that the agents of a job had before them."""
        labels: tuple[str, ...] = ()
        async with self.serving.bus.follow([result_subjects(self.serving.bus.ns, child)]) as batches:
            async for batch in batches:
                found = (entry.message.taint for entry in batch.entries if isinstance(entry.message, TaskResult))
                labels = joined(labels, *found)
                if batch.pending == 0:
                    break
        return labels

    async def _job(self, job: str) -> Received:
        """Return the first entry of a job.

        :raises EntryMissing: the log does not have it
        :raises BusError: what no waiting will cure
        """
        if job not in self._jobs:
            subject = submitted_subject(self.serving.bus.ns, job)
            found = await patiently(partial(self.serving.bus.last, subject))
            if found is None or not isinstance(found.message, JobSubmitted):
                raise EntryMissing(subject, 0)
            if len(self._jobs) >= _REMEMBERED:
                self._jobs.pop(next(iter(self._jobs)))
            self._jobs[job] = found
        return self._jobs[job]

    def _no_result(
        self, assignment: TaskAssigned, delivery: Delivery, span: AgentSpan, reason: str, _: object
    ) -> TaskResult:
        return self._result(assignment, delivery, span, Ended("gave_up", None, f"there is no job for it: {reason}"))

    def _result(
        self,
        assignment: TaskAssigned,
        delivery: Delivery,
        span: AgentSpan,
        came_to: Ended,
        usage: Usage | None = None,
        taint: tuple[str, ...] | None = None,
    ) -> TaskResult:
        output: Json = came_to.output
        result = TaskResult(
            **answering(assignment, delivery),
            by=self.serving.role,
            role=assignment.verifier,
            status=came_to.status,
            output=output,
            reason=came_to.reason,
            usage=usage or Usage(),
            taint=assignment.taint if taint is None else taint,
        )
        span.result(result.status, result.reason, result.usage)
        return result


def _submitted(received: Received) -> JobSubmitted:
    if not isinstance(received.message, JobSubmitted):
        raise EntryMissing(received.subject, received.seq)
    return received.message


async def _cancel_once(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
